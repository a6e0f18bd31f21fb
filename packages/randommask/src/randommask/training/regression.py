"""Scores of a regression over a whole set: mean square, Pearson's and Spearman's correlation.

    r = sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2);   rho = r of the ranks, ties at their mean rank

0 where a side is constant.      Letters   N rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Fit(NamedTuple):
    """`loss`, mean square in the units of the targets squared; `pearson` and `spearman` in -1 to 1."""

    loss: float
    pearson: float
    spearman: float


def fit(predicted: Tensor, targets: Tensor) -> Fit:
    """Score predictions Float[N] against targets Float[N]."""
    predicted, targets = predicted.double(), targets.double()
    return Fit(
        float((predicted - targets).square().mean()),
        pearson(predicted, targets),
        pearson(ranks(predicted), ranks(targets)),
    )


def pearson(x: Tensor, y: Tensor) -> float:
    """Correlation of Float64[N] and Float64[N]."""
    x, y = x - x.mean(), y - y.mean()
    scale = float((x.square().sum() * y.square().sum()).sqrt())
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def ranks(values: Tensor) -> Tensor:
    """Float64[N]: ranks from 1, equal values at the mean of theirs.

    Example:
        >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[place]
