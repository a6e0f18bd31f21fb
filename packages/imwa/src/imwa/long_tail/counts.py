"""Class counts as a loss needs them, and the weighted cross-entropy that all losses here end in.

Letters   B samples, K classes, n training samples of each class.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def check_counts(counts: Sequence[int]) -> list[int]:
    """The counts as integers.

    Raises:
        ValueError: there are fewer than two classes, or one has no training sample; the class is named.
    """
    if len(counts) < 2:
        raise ValueError(f"counts holds {len(counts)} number; give the training samples of each of 2 classes or more.")
    for number, count in enumerate(counts):
        if not count >= 1 or int(count) != count:
            raise ValueError(
                f"counts[{number}] is {count}. Each class needs at least one training sample; leave an empty class out."
            )
    return [int(count) for count in counts]


def log_counts(counts: Sequence[int]) -> Tensor:
    """Float64[K]: the natural logarithm of each count, checked as `check_counts` does."""
    return torch.tensor([math.log(count) for count in check_counts(counts)], dtype=torch.float64)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Float[]: mean cross-entropy; with `class_weights` Float[K] torch's weighted mean, divided by the batch's weight sum.

    That division makes the loss of a batch more than the mean of its samples' losses: a mean of replica gradients is then
    not the gradient of the joined batch.
    """
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    return nn.functional.cross_entropy(logits, labels, weight=weights)


def widened(logits: Tensor) -> Tensor:
    """Logits in float32 where they are half precision, so that no offset or loss is rounded to halves."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check_classes(logits: Tensor, classes: int) -> None:
    """Raise a ValueError that names both numbers if the logits are not (B, K)."""
    if logits.dim() != 2 or logits.shape[1] != classes:
        raise ValueError(
            f"The logits have shape {tuple(logits.shape)}, and the loss was built with counts of {classes} classes; "
            f"they must be (B, {classes})."
        )
