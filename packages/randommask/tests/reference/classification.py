"""Matthews correlation of several classes as a covariance of indicator vectors (Gorodkin 2004), in float64."""

import math
from collections.abc import Sequence


def matthews(true: Sequence[int], found: Sequence[int]) -> float:
    classes = sorted({*true, *found})

    def covariance(x: Sequence[int], y: Sequence[int]) -> float:
        total = 0.0
        for one in classes:
            a, b = [float(v == one) for v in x], [float(v == one) for v in y]
            mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
            total += sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
        return total

    both = covariance(true, true) * covariance(found, found)
    return covariance(true, found) / math.sqrt(both) if both > 0 else 0.0
