"""From logits, labels and the global step to the loss that a run trains on.

    cross-entropy, balanced-softmax, logit-adjustment, ldam      `long_tail/`; at test the plain logits decide
    deferred re-weighting                                        class weights from 80 % of the run on, under any of them

Letters   B samples, K classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from imwa.long_tail.balanced_softmax import BalancedSoftmaxLoss
from imwa.long_tail.counts import cross_entropy as weighted_cross_entropy
from imwa.long_tail.ldam import LDAMLoss
from imwa.long_tail.logit_adjustment import LogitAdjustedLoss
from imwa.long_tail.reweighting import START_SHARE, effective_number_weights

Objective = Callable[[Tensor, Tensor, int], Tensor]
REBALANCED: dict[str, Callable[..., nn.Module]] = {
    "balanced-softmax": BalancedSoftmaxLoss,
    "logit-adjustment": LogitAdjustedLoss,
    "ldam": LDAMLoss,
}
LOSSES = ("cross-entropy", *REBALANCED)


def cross_entropy(logits: Tensor, labels: Tensor, step: int) -> Tensor:
    """Float[]: the plain mean, whatever the step."""
    return nn.functional.cross_entropy(logits, labels)


def build_objective(
    loss: str, *, counts: Sequence[int], deferred: bool, steps: int, device: torch.device, tau: float = 1.0
) -> Objective:
    """The objective by name, called as `objective(logits Float[B K], labels Int64[B], step)`.

    Args:
        loss: one of LOSSES; `ldam` takes cosine logits.
        counts: training samples of each class, K integers of at least 1.
        deferred: weigh classes by the effective number of their samples from 80 % of the run on.
        steps: T, global steps.
        device: of the logits.
        tau: strength of logit-adjustment; the others do not look at it.
    """
    if loss == "cross-entropy" and not deferred:
        return cross_entropy
    strength = {"tau": tau} if loss == "logit-adjustment" else {}
    module = (REBALANCED[loss](counts, **strength) if loss in REBALANCED else _CrossEntropy()).to(device)
    weights = effective_number_weights(counts).to(device, torch.float32) if deferred else None
    start = int(START_SHARE * steps)

    def objective(logits: Tensor, labels: Tensor, step: int) -> Tensor:
        return module(logits, labels, weights if step >= start else None)

    return objective


class _CrossEntropy(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        return weighted_cross_entropy(logits, labels, class_weights)
