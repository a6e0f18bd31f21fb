import pytest
import torch

from layermatch import FreeMatchWeighting
from reference.weighting_freematch import FreeMatch
from weighting_workers import batch, called, probabilities, start

CASES = {
    "usb": ({"fairness_weight": 1.0}, {}),
    "usb, quantile": ({"fairness_weight": 1.0, "quantile": 0.8}, {"quantile": 0.8}),
    "usb, limits": ({"fairness_weight": 1.0, "limits": (0.0, 0.4)}, {"limits": (0.0, 0.4), "limits_on": "global"}),
    "torchssl": ({"fairness_weight": 1.0, "variant": "torchssl"}, {}),
    "torchssl, limits": (
        {"fairness_weight": 1.0, "variant": "torchssl", "limits": (0.3, 0.45)},
        {"limits": (0.3, 0.45), "limits_on": "class"},
    ),
}


@pytest.mark.parametrize(
    ("momentum", "dtype", "tolerance"),
    [*((momentum, torch.float64, 1e-12) for momentum in (0.999, 0.8, 0.0)), (0.8, torch.float32, 2e-5)],
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (12, 4), (64, 10)])
def test_freematch_equals_the_twin(samples, classes, case, momentum, dtype, tolerance):
    ours, theirs = CASES[case]
    rule, twin = (
        FreeMatchWeighting(classes, momentum=momentum, **ours),
        FreeMatch(classes, momentum, start=start(classes), **theirs),
    )
    rule = rule.to(dtype)
    for step in range(6):
        q, strong, _ = batch(step, samples, classes, dtype)
        expected = twin(q.tolist(), torch.softmax(strong, -1).tolist())
        answer, gradient = called(rule, q, strong, None)
        assert answer.weights.tolist() == expected.weights
        assert answer.mask.tolist() == [weight == 1.0 for weight in expected.weights]
        pairs = [
            (answer.extra.detach(), expected.fairness),
            (gradient, expected.gradient),
            (rule.freematch_threshold, twin.threshold),
            (rule.freematch_probabilities, twin.probabilities),
            (rule.freematch_shares, twin.shares),
            (rule.thresholds(), twin.thresholds()),
        ]
        for found, wanted in pairs:
            torch.testing.assert_close(found, torch.tensor(wanted, dtype=dtype), rtol=tolerance, atol=tolerance)


def published_fairness(mask, logits_s, p, h):
    """The published code's steps: boolean indexing, bincount, inf replaced by 0."""
    prob_s = logits_s[mask].softmax(-1)
    hist = torch.bincount(prob_s.argmax(-1), minlength=logits_s.shape[1]).to(prob_s.dtype)
    hist = hist / hist.sum()
    a = p * torch.where(h == 0, 0.0, 1 / h)
    b = prob_s.mean(0) * torch.where(hist == 0, 0.0, 1 / hist)
    return ((a / a.sum()) * torch.log(b / b.sum() + 1e-12)).sum()


def test_o7_weights_instead_of_boolean_indexing_give_the_published_value_and_gradient():
    rule = FreeMatchWeighting(10, momentum=0.0, fairness_weight=1.0).double()
    for step in range(10):
        q, strong, _ = batch(step, 64, 10)
        answer, gradient = called(rule, q, strong, None)
        assert 0 < answer.mask.sum() < 64
        strong.requires_grad_()
        expected = published_fairness(answer.mask, strong, rule.freematch_probabilities, rule.freematch_shares)
        torch.testing.assert_close(answer.extra.detach(), expected.detach(), rtol=1e-14, atol=1e-14)
        (wanted,) = torch.autograd.grad(expected, strong)
        torch.testing.assert_close(gradient, wanted, rtol=1e-13, atol=1e-16)


def test_o7_freematchs_averages_sum_to_1_and_its_largest_threshold_is_the_global_one():
    rule = FreeMatchWeighting(5, momentum=0.9).double()
    for step in range(20):
        called(rule, *batch(step, 16, 5))
        for average in (rule.freematch_probabilities, rule.freematch_shares):
            torch.testing.assert_close(average.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-7)
        thresholds = rule.thresholds()
        assert (thresholds <= rule.freematch_threshold).all()
        assert thresholds[rule.freematch_probabilities.argmax()] == rule.freematch_threshold
        assert thresholds.unique().numel() == 5


@pytest.mark.parametrize("classes", [2, 8, 10])
def test_o7_a_first_step_with_uniform_probabilities_keeps_tau_and_p(classes):
    rule = FreeMatchWeighting(classes, fairness_weight=0)
    q = torch.full((8, classes), 1.0 / classes)
    assert rule(q).weights.eq(1).all()
    torch.testing.assert_close(rule.freematch_threshold, torch.tensor(1.0 / classes), rtol=1e-6, atol=0)
    torch.testing.assert_close(rule.freematch_probabilities, torch.full((classes,), 1.0 / classes), rtol=1e-6, atol=0)
    assert rule.freematch_shares[0] > rule.freematch_shares[1]


def nothing_counts():
    """All confident in class 0 and a global threshold above their confidence."""
    rule = FreeMatchWeighting(3, momentum=1.0, fairness_weight=1.0)
    rule.freematch_threshold.fill_(0.99)
    q = torch.tensor([[0.9, 0.05, 0.05]]).repeat(6, 1)
    return rule, q


def test_o7_no_sample_gives_no_fairness_and_finite_gradients():
    rule, q = nothing_counts()
    answer, gradient = called(rule, q, torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), None)
    assert not answer.mask.any()
    assert answer.extra == 0
    assert torch.equal(gradient, torch.zeros(6, 3))


def test_o7_freematch_moves_its_averages_before_the_mask():
    # With m = 0 the threshold becomes the batch's own mean, 0.75: the lower sample fails. Before, it is 0.5.
    rule = FreeMatchWeighting(2, momentum=0.0, fairness_weight=0)
    assert rule.thresholds().tolist() == [0.5, 0.5]
    assert rule(torch.tensor([[0.9, 0.1], [0.6, 0.4]])).mask.tolist() == [True, False]


def test_a_class_without_an_argmax_costs_log_1e_12_and_sends_no_gradient():
    rule = FreeMatchWeighting(3, momentum=1.0, fairness_weight=1.0).double()
    rule.freematch_threshold.fill_(0.0)
    strong = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    answer, gradient = called(rule, torch.softmax(strong, -1), strong, None)
    p = torch.softmax(strong, -1).mean(0)
    b = p[:2] / p[:2].sum()
    expected = (b.log().sum() + torch.tensor(1e-12).log().double()) / 3
    torch.testing.assert_close(answer.extra.detach(), expected, rtol=1e-6, atol=0)
    assert answer.extra < -9
    # b is p0 : p1 alone, equal here by symmetry; the third class's logit moves both alike.
    torch.testing.assert_close(gradient[:, 2], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_fairness_term_comes_with_its_factor_and_the_variants_own_default():
    values = {}
    for options in ({}, {"variant": "torchssl"}, {"fairness_weight": 1.0}):
        rule = FreeMatchWeighting(4, **options).double()
        answer, gradient = called(rule, *batch(0))
        values[rule.fairness_weight] = (answer.extra.detach(), gradient)
    assert list(values) == [0.001, 0.01, 1.0]
    for factor, (value, gradient) in values.items():
        torch.testing.assert_close(value, factor * values[1.0][0], rtol=1e-14, atol=0)
        torch.testing.assert_close(gradient, factor * values[1.0][1], rtol=1e-13, atol=1e-18)


def test_the_fairness_gradient_lowers_the_term():
    rule = FreeMatchWeighting(4, momentum=0.9, fairness_weight=1.0).double()
    q, strong, _ = batch(3, 64)
    before, gradient = called(rule, q, strong, None)
    rule.momentum = 1.0
    after, _ = called(rule, q, strong - 1e-3 * gradient, None)
    assert after.extra < before.extra


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 1.0])
@pytest.mark.parametrize("samples", [1, 2, 7, 64])
def test_the_quantile_is_torchs(samples, share):
    rule = FreeMatchWeighting(4, momentum=0.0, fairness_weight=0, quantile=share).double()
    q = probabilities(samples, 4)
    rule(q)
    torch.testing.assert_close(rule.freematch_threshold, q.amax(1).quantile(share), rtol=1e-14, atol=0)


def test_usbs_limits_stay_in_the_state_and_torchssls_do_not():
    q = torch.eye(2)[[0, 0, 0, 1]]
    usb = FreeMatchWeighting(2, momentum=0.0, fairness_weight=0, limits=(0.0, 0.95))
    usb(q)
    assert usb.freematch_threshold == torch.tensor(0.95)
    torch.testing.assert_close(usb.thresholds(), torch.tensor([0.95, 0.95 / 3]))
    other = FreeMatchWeighting(2, momentum=0.0, fairness_weight=0, variant="torchssl", limits=(0.9, 0.95))
    other(q)
    assert other.freematch_threshold == 1
    torch.testing.assert_close(other.thresholds(), torch.tensor([0.95, 0.9]))


def test_half_precision_logits_are_summed_in_the_weights_dtype():
    first, second = (FreeMatchWeighting(4, fairness_weight=1.0) for _ in range(2))
    q, strong, _ = batch(0, dtype=torch.float32)
    half = strong.to(torch.bfloat16)
    answer, gradient = called(first, q, half, None)
    assert answer.extra.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(answer.extra, called(second, q, half.float(), None)[0].extra)


def test_usbs_limits_wait_for_a_batch_that_is_finite():
    rule = FreeMatchWeighting(2, fairness_weight=0, limits=(0.9, 0.95))
    rule(torch.full((3, 2), float("nan")))
    assert rule.freematch_threshold == 0.5
    rule(torch.full((3, 2), 0.5))
    assert rule.freematch_threshold == torch.tensor(0.9)


def test_missing_or_misshapen_strong_logits_are_refused_before_anything_moves():
    rule, (q, strong, _) = FreeMatchWeighting(4), batch(0)
    with pytest.raises(ValueError, match=r"strong_logits of shape \(12, 4\) and was given none.*fairness_weight=0"):
        rule(q)
    with pytest.raises(ValueError, match=r"strong_logits of shape \(12, 4\) and was given some of shape \(11, 4\)"):
        rule(q, strong_logits=strong[:11])
    assert rule.freematch_threshold == 0.25


def test_without_fairness_no_strong_logits_are_needed():
    answer = FreeMatchWeighting(4, fairness_weight=0)(batch(0)[0])
    assert answer.extra is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "USB"}, "variant is 'USB'.*'usb', 'torchssl'"),
        ({"fairness_weight": -0.1}, "fairness_weight is -0.1"),
        ({"fairness_weight": float("nan")}, "fairness_weight is nan"),
        ({"quantile": 80}, "quantile is 80"),
        ({"limits": (0.9, 0.5)}, r"limits are \(0.9, 0.5\)"),
        ({"limits": (0.0, 1.5)}, r"limits are \(0.0, 1.5\)"),
    ],
)
def test_freematch_refuses_settings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        FreeMatchWeighting(4, **options)
