"""Deferred re-weighting (DRW): equal class weights first, weights by the effective number of samples from a step on.

    w_k ∝ (1 - beta) / (1 - beta ** n_k),   sum_k w_k = K,   beta = 0.9999        from step `start` on; before it all 1

Source    Cui et al. 2019 (effective number), arXiv 1901.05555; deferred as in Cao et al. 2019, arXiv 1906.07413, whose
          schedule turns them on at epoch 160 of 200.
Letters   K classes, n training samples of each class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from imwa.long_tail.counts import check_counts

BETA = 0.9999
START_SHARE = 0.8


def effective_number_weights(counts: Sequence[int], *, beta: float = BETA) -> Tensor:
    """Float64[K] class weights with sum K.

    Args:
        counts: n, K integers of at least 1.
        beta: in [0, 1); 0 weighs all classes alike.

    Raises:
        ValueError: beta or a count is out of range; it is named.
    """
    if not 0.0 <= beta < 1.0:
        raise ValueError(f"beta is {beta}. Choose a number from 0 to below 1, such as 0.9999.")
    numbers = torch.tensor(check_counts(counts), dtype=torch.float64)
    weights = (1.0 - beta) / (1.0 - beta**numbers)
    return weights * (len(numbers) / weights.sum())


def deferred_weights(
    step: int, steps: int, *, counts: Sequence[int], beta: float = BETA, start_share: float = START_SHARE
) -> Tensor | None:
    """Class weights of a global step: None before `start_share` of the run, Float64[K] from there on.

    Args:
        step: from 0; with IMWA the global step, so that every replica turns the weights on at the same one.
        steps: T, of the whole run.
        counts: n, K integers of at least 1.
        beta: of `effective_number_weights`.
        start_share: in [0, 1]; 160 of 200 epochs is 0.8.

    Raises:
        ValueError: a value is out of range; it is named.
    """
    if not 0.0 <= start_share <= 1.0:
        raise ValueError(f"start_share is {start_share}. Choose a share of the run from 0 to 1, such as 0.8.")
    if step < int(start_share * steps):
        return None
    return effective_number_weights(counts, beta=beta)
