"""What a run trains on: each loss by name, class weights from 80 % of the run on, and the plain loss bit for bit."""

import pytest
import torch
from torch import nn

from imwa.long_tail.balanced_softmax import BalancedSoftmaxLoss
from imwa.long_tail.ldam import LDAMLoss
from imwa.long_tail.logit_adjustment import LogitAdjustedLoss
from imwa.long_tail.reweighting import effective_number_weights
from imwa.training.objective import LOSSES, build_objective

COUNTS = [50, 8, 1]
LOGITS = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).tanh()
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 0, 1])
EXPECTED = {
    "cross-entropy": lambda weights: nn.functional.cross_entropy(LOGITS, LABELS, weight=weights),
    "balanced-softmax": lambda weights: BalancedSoftmaxLoss(COUNTS)(LOGITS, LABELS, weights),
    "logit-adjustment": lambda weights: LogitAdjustedLoss(COUNTS)(LOGITS, LABELS, weights),
    "ldam": lambda weights: LDAMLoss(COUNTS)(LOGITS, LABELS, weights),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_by_its_name(loss):
    plain = build_objective(loss, counts=COUNTS, deferred=False, steps=10, device=torch.device("cpu"))
    for step in (0, 9):
        assert torch.equal(plain(LOGITS, LABELS, step), EXPECTED[loss](None))


@pytest.mark.parametrize("loss", LOSSES)
def test_class_weights_come_in_at_four_fifths_of_the_run(loss):
    weights = effective_number_weights(COUNTS).float()
    objective = build_objective(loss, counts=COUNTS, deferred=True, steps=10, device=torch.device("cpu"))
    assert torch.equal(objective(LOGITS, LABELS, 7), EXPECTED[loss](None))
    assert torch.equal(objective(LOGITS, LABELS, 8), EXPECTED[loss](weights))
    assert not torch.equal(EXPECTED[loss](weights), EXPECTED[loss](None))


def test_tau_is_logit_adjustments_alone():
    cpu = torch.device("cpu")
    halved = build_objective("logit-adjustment", counts=COUNTS, deferred=False, steps=10, device=cpu, tau=0.5)
    assert torch.equal(halved(LOGITS, LABELS, 0), LogitAdjustedLoss(COUNTS, tau=0.5)(LOGITS, LABELS))
    for loss in ("cross-entropy", "balanced-softmax", "ldam"):
        other = build_objective(loss, counts=COUNTS, deferred=False, steps=10, device=cpu, tau=0.5)
        assert torch.equal(other(LOGITS, LABELS, 0), EXPECTED[loss](None))
