"""Masked-language loss by a loop over positions: sum of -log softmax at the targets over a count, 0 where nothing is masked."""

import math
from collections.abc import Sequence


def loss(
    logits: Sequence[Sequence[Sequence[float]]], labels: Sequence[Sequence[int]], count: int | None = None
) -> float:
    total, found = 0.0, 0
    for row, targets in zip(logits, labels, strict=True):
        for scores, target in zip(row, targets, strict=True):
            if target == -100:
                continue
            top = max(scores)
            total -= scores[target] - top - math.log(math.fsum(math.exp(score - top) for score in scores))
            found += 1
    return total / max(found if count is None else count, 1)
