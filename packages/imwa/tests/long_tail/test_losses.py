"""Losses of long-tailed classification against their twins, the papers' own numbers and their limits."""

import math

import pytest
import torch

from imwa.long_tail.balanced_softmax import BalancedSoftmaxLoss
from imwa.long_tail.ldam import CosineClassifier, LDAMLoss, margins
from imwa.long_tail.logit_adjustment import LogitAdjustedLoss, PostHocAdjusted, adjusted
from imwa.long_tail.reweighting import deferred_weights, effective_number_weights
from reference import long_tail as slow

CIFAR_10_LT = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
COUNTS = [40, 7, 1]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([0, 1, 2, 2, 0, 1])


def test_balanced_softmax_equals_its_twin(batch):
    logits, labels = batch
    expected = slow.balanced_softmax(logits.tolist(), labels.tolist(), COUNTS)
    assert float(BalancedSoftmaxLoss(COUNTS)(logits, labels)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_equals_its_twin(batch, tau):
    logits, labels = batch
    expected = slow.logit_adjustment(logits.tolist(), labels.tolist(), COUNTS, tau)
    assert float(LogitAdjustedLoss(COUNTS, tau=tau)(logits, labels)) == pytest.approx(expected, abs=1e-12)


def test_logit_adjustment_at_tau_one_is_balanced_softmax_and_at_zero_cross_entropy(batch):
    logits, labels = batch
    balanced = BalancedSoftmaxLoss(COUNTS)(logits, labels)
    torch.testing.assert_close(LogitAdjustedLoss(COUNTS)(logits, labels), balanced, atol=1e-14, rtol=0)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.equal(LogitAdjustedLoss(COUNTS, tau=0.0)(logits, labels), plain)
    assert float(balanced) != float(plain)


def test_equal_counts_change_nothing_but_rounding(batch):
    logits, labels = batch
    plain = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(BalancedSoftmaxLoss([7, 7, 7])(logits, labels), plain, atol=1e-14, rtol=0)
    assert torch.equal(adjusted(logits, [7, 7, 7]).argmax(1), logits.argmax(1))


def test_post_hoc_adjustment_turns_a_decision_to_the_rare_class():
    logits = torch.tensor([[2.0, 0.0]])
    assert adjusted(logits, [100, 1]).argmax(1).tolist() == [1]  # log 100 = 4.6 is more than the lead of 2
    assert adjusted(logits, [5, 1]).argmax(1).tolist() == [0]  # log 5 = 1.6 is less


@pytest.mark.parametrize("tau", [0.5, 1.0, -1.0])
def test_a_post_hoc_adjusted_model_gives_z_minus_tau_log_pi(batch, tau):
    logits, _ = batch
    model = PostHocAdjusted(torch.nn.Identity(), COUNTS, tau=tau)
    expected = [
        [z - tau * math.log(n / sum(COUNTS)) for z, n in zip(row, COUNTS, strict=True)] for row in logits.tolist()
    ]
    torch.testing.assert_close(model(logits), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(model(logits), adjusted(logits, COUNTS, tau=tau))
    assert model(logits.bfloat16()).dtype == torch.float32
    assert model.state_dict() == {}
    with pytest.raises(ValueError, match=r"shape \(6, 2\)"):
        model(logits[:, :2])


def test_ldam_equals_its_twin_with_and_without_class_weights(batch):
    logits, labels = batch
    cosines = logits.tanh()
    loss = LDAMLoss(COUNTS)
    expected = slow.ldam(cosines.tolist(), labels.tolist(), COUNTS, 0.5, 30.0)
    assert float(loss(cosines, labels)) == pytest.approx(expected, abs=1e-11)
    weights = effective_number_weights(COUNTS)
    expected = slow.ldam(cosines.tolist(), labels.tolist(), COUNTS, 0.5, 30.0, weights.tolist())
    assert float(loss(cosines, labels, weights)) == pytest.approx(expected, abs=1e-11)


def test_ldam_margins_are_those_published_for_cifar_10_lt():
    # The paper page's row for imbalance 100: the rarest class has the largest margin, 0.5.
    expected = [0.158, 0.180, 0.204, 0.232, 0.264, 0.300, 0.341, 0.387, 0.441, 0.5]
    assert margins(CIFAR_10_LT).tolist() == pytest.approx(expected, abs=6e-4)


def test_the_margin_lowers_the_true_class_alone():
    cosines = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    plain = torch.log(torch.tensor(3.0, dtype=torch.float64))
    loss = LDAMLoss([10, 10, 10])(cosines, torch.tensor([1]))
    assert float(loss.detach()) > float(plain) + 10  # s times a margin of 0.5 is 15 nats
    loss.backward()
    assert cosines.grad is not None
    assert cosines.grad.argmin() == 1


def test_cosine_classifier_equals_its_twin_and_ignores_lengths():
    classifier = CosineClassifier(4, 3).double()
    features = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(slow.cosine_logits(features.tolist(), classifier.weight.tolist()), dtype=torch.float64)
    torch.testing.assert_close(classifier(features), expected, atol=1e-14, rtol=0)
    with torch.no_grad():
        classifier.weight.mul_(7.0)
    torch.testing.assert_close(classifier(3.0 * features), expected, atol=1e-14, rtol=0)
    assert classifier(torch.zeros(1, 4, dtype=torch.float64)).tolist() == [[0.0, 0.0, 0.0]]


def test_effective_number_weights_are_those_published_for_cifar_10_lt():
    weights = effective_number_weights(CIFAR_10_LT)
    assert float(weights[0]) == pytest.approx(0.0506, abs=5e-5)
    assert float(weights[-1]) == pytest.approx(3.99, abs=5e-3)
    assert float(weights.sum()) == pytest.approx(10.0, abs=1e-12)
    assert weights.tolist() == pytest.approx(slow.effective_number_weights(CIFAR_10_LT, 0.9999), abs=1e-12)
    assert effective_number_weights(COUNTS, beta=0.0).tolist() == [1.0, 1.0, 1.0]


def test_deferred_weights_begin_at_epoch_160_of_200():
    for step in (0, 15_519):
        assert deferred_weights(step, 19_400, counts=CIFAR_10_LT) is None
    for step in (15_520, 19_399):
        weights = deferred_weights(step, 19_400, counts=CIFAR_10_LT)
        assert weights is not None
        assert torch.equal(weights, effective_number_weights(CIFAR_10_LT))


def test_weighted_loss_is_not_the_mean_of_its_parts():
    # The trap of page 1.4: torch divides by the batch's weight sum.
    logits, labels = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([0, 1])
    logits[0, 0] = 2.0
    loss, weights = LogitAdjustedLoss([9, 1], tau=0.0), torch.tensor([0.1, 1.9])
    parts = [loss(logits[i : i + 1], labels[i : i + 1], weights) for i in range(2)]
    assert float(loss(logits, labels, weights)) != pytest.approx(float(sum(parts)) / 2, abs=0.01)


@pytest.mark.parametrize("loss", [BalancedSoftmaxLoss(COUNTS), LogitAdjustedLoss(COUNTS), LDAMLoss(COUNTS)])
def test_losses_hold_no_state_keep_float32_and_refuse_other_shapes(loss):
    assert not list(loss.parameters())
    assert not loss.state_dict()
    half = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert loss(half, torch.tensor([0, 2])).dtype == torch.float32
    with pytest.raises(ValueError, match=r"shape \(2, 4\).*counts of 3 classes"):
        loss(torch.zeros(2, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize("build", [BalancedSoftmaxLoss, LogitAdjustedLoss, LDAMLoss, effective_number_weights])
def test_counts_that_cannot_be_are_named(build):
    with pytest.raises(ValueError, match=r"counts\[1\] is 0"):
        build([5, 0, 2])
    with pytest.raises(ValueError, match=r"counts\[0\] is 1.5"):
        build([1.5, 2])
    with pytest.raises(ValueError, match=r"holds 1 number"):
        build([5])


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"tau is inf"):
        LogitAdjustedLoss(COUNTS, tau=float("inf"))
    with pytest.raises(ValueError, match=r"scale is 0"):
        LDAMLoss(COUNTS, scale=0.0)
    with pytest.raises(ValueError, match=r"largest_margin is -1"):
        LDAMLoss(COUNTS, largest_margin=-1.0)
    with pytest.raises(ValueError, match=r"beta is 1"):
        effective_number_weights(COUNTS, beta=1.0)
    with pytest.raises(ValueError, match=r"start_share is 2"):
        deferred_weights(0, 10, counts=COUNTS, start_share=2.0)
