"""95 % intervals of numbers measured on a test set: Wilson's of a share, the bootstrap's of anything else, Fisher's of a correlation.

Wilson      (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.96 (Wilson 1927): never outside 0 to 1, right for few cases
bootstrap   the 2.5 % and 97.5 % quantiles over 1,000 test sets drawn from this one with replacement (Efron 1979)
Fisher      tanh(artanh r ± 1.96 / √(n - 3))

They say how far another test set of this size would move the number, and nothing of another seed.
Letters   n test cases, K classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scarce_common_utils.streams import stream

_Z = 1.959964  # the 0.975 quantile of the normal distribution
DRAWS = 1000


class Interval(NamedTuple):
    """`low` to `high`, by the `method` named."""

    low: float
    high: float
    method: str


def wilson(right: int, count: int) -> Interval:
    """Of the share `right / count`, on the scale 0 to 1.

    Raises:
        ValueError: no case, or more right than there are.

    Example:
        >>> wilson(8, 10)
        Interval(low=0.4901..., high=0.9433..., method='Wilson')
    """
    if not 0 <= right <= count or not count:
        raise ValueError(f"{right} of {count} cases is no share.")
    share, square = right / count, _Z**2 / count
    middle = share + square / 2
    reach = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    low, high = (max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square)))
    return Interval(0.0 if right == 0 else low, 1.0 if right == count else high, "Wilson")


def bootstrap_confusion(confusion: Tensor, metric: Callable[[Tensor], float], *, seed: int) -> Interval:
    """Of a metric of a confusion matrix Int64[K K], whose n cases are drawn anew; the draws come from the stream "bootstrap"."""
    generator = stream(seed, "bootstrap")
    counts = confusion.flatten().double()
    cases = int(confusion.sum())
    values = []
    for _ in range(DRAWS):
        drawn = torch.multinomial(counts, cases, replacement=True, generator=generator)
        values.append(metric(torch.bincount(drawn, minlength=len(counts)).reshape(confusion.shape)))
    return _quantiles(values, f"bootstrap, {DRAWS:,} draws of the test rows")


def bootstrap_ratio(parts: Sequence[tuple[float, int]], *, seed: int) -> Interval | None:
    """Of a sum over a count, both given by part, as a loss and its tokens by batch; None of fewer than four parts."""
    if len(parts) < 4:
        return None
    generator = stream(seed, "bootstrap")
    sums, counts = (torch.tensor(column, dtype=torch.float64) for column in zip(*parts, strict=True))
    chosen = torch.randint(0, len(parts), (DRAWS, len(parts)), generator=generator)
    values = (sums[chosen].sum(1) / counts[chosen].sum(1)).tolist()
    return _quantiles(values, f"bootstrap, {DRAWS:,} draws of the {len(parts)} batches")


def fisher(correlation: float, count: int) -> Interval | None:
    """Of Pearson's r over `count` cases; None of fewer than four, or where r is 1 or not a number."""
    if count < 4 or not abs(correlation) < 1:
        return None
    middle, reach = math.atanh(correlation), _Z / math.sqrt(count - 3)
    return Interval(math.tanh(middle - reach), math.tanh(middle + reach), "Fisher")


def _quantiles(values: Sequence[float], method: str) -> Interval:
    found = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Interval(float(found[0]), float(found[1]), method)
