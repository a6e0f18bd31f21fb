import pytest
import torch

from layermatch import SoftMatchWeighting
from reference.weighting_softmatch import SoftMatch
from weighting_workers import batch, probabilities, start


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("alignment", [True, False])
@pytest.mark.parametrize("variant", ["usb", "torchssl"])
@pytest.mark.parametrize("momentum", [0.999, 0.8])
@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (2, 3), (12, 4), (64, 10)])
def test_softmatch_equals_the_twin(samples, classes, momentum, variant, alignment, dtype):
    equals_the_twin(samples, classes, momentum, variant=variant, alignment=alignment, n_sigma=2.0, dtype=dtype)


@pytest.mark.parametrize("n_sigma", [3.0, 0.5])
@pytest.mark.parametrize("variant", ["usb", "torchssl"])
def test_softmatch_of_another_width_equals_the_twin(variant, n_sigma):
    equals_the_twin(12, 4, 0.8, variant=variant, alignment=True, n_sigma=n_sigma, dtype=torch.float64)


def equals_the_twin(samples, classes, momentum, *, variant, alignment, n_sigma, dtype):
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    settings = {"n_sigma": n_sigma, "alignment": alignment, "variant": variant}
    rule = SoftMatchWeighting(classes, momentum=momentum, **settings).to(dtype)
    twin = SoftMatch(classes, momentum, start=start(classes), **settings)
    for step in range(6):
        q, _, _ = batch(step, samples, classes, dtype)
        expected = twin(q.tolist())
        answer = rule(q)
        assert answer.extra is None
        pairs = [
            (answer.weights, expected),
            (rule.softmatch_mean, twin.mean),
            (rule.softmatch_variance, twin.variance),
            (rule.threshold, twin.mean),
        ]
        if alignment:
            pairs.append((rule.softmatch_probabilities, twin.probabilities))
        for found, wanted in pairs:
            torch.testing.assert_close(found, torch.tensor(wanted, dtype=dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("variant", ["usb", "torchssl"])
def test_o7_softmatchs_weights_lie_in_0_to_1_and_are_1_from_the_mean_on(variant):
    rule = SoftMatchWeighting(4, momentum=0.5, variant=variant)
    seen = []
    for step in range(20):
        q, _, _ = batch(step, 32, dtype=torch.float32)
        weights, mask, _ = rule(q)
        confidence = rule.aligned(q).amax(1)
        assert torch.equal(mask, confidence >= rule.softmatch_mean)
        assert weights[mask].eq(1).all()
        assert (weights[~mask] < 1).all()
        assert (weights > 0).all()
        seen.append(mask.double().mean())
    assert 0 < min(seen) < max(seen) < 1


def test_o7_softmatchs_weights_grow_with_confidence():
    rule = SoftMatchWeighting(4, momentum=0.5, alignment=False).double()
    q, _, _ = batch(0, 64)
    weights = rule(q).weights[q.amax(1).argsort()]
    assert (weights.diff() >= 0).all()
    assert (weights.diff() > 0).any()


def test_o7_n_sigma_towards_0_gives_all_ones():
    q, _, _ = batch(0, 64)
    sums = [float(SoftMatchWeighting(4, momentum=0.0, n_sigma=n).double()(q).weights.sum()) for n in (4, 2, 1, 0.1)]
    assert sums == sorted(sums)
    assert sums[-1] == pytest.approx(64, abs=0.5)
    for rows in (q, q[:1].expand(5, -1)):
        for momentum in (0.0, 0.9):
            assert SoftMatchWeighting(4, momentum=momentum, n_sigma=0).double()(rows).weights.eq(1).all()


def test_o7_a_far_outlier_may_underflow_to_0_and_is_no_nan():
    rule = SoftMatchWeighting(2, momentum=1.0, alignment=False)
    rule.softmatch_mean.fill_(0.99)
    rule.softmatch_variance.zero_()
    weights = rule(torch.tensor([[0.5, 0.5], [0.99, 0.01], [1.0, 0.0]])).weights
    assert weights.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("variant", ["usb", "torchssl"])
def test_o7_a_uniform_average_leaves_the_probabilities_as_they_are(variant):
    rule = SoftMatchWeighting(5, momentum=1.0, variant=variant).double()
    rule.softmatch_started.fill_(True)
    q = probabilities(20, 5)
    torch.testing.assert_close(rule.aligned(q), q, rtol=1e-14, atol=0)
    rule.softmatch_probabilities.copy_(torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1]))
    assert (rule.aligned(q)[:, 0] < q[:, 0]).all()
    torch.testing.assert_close(rule.aligned(q).sum(1), torch.ones(20, dtype=torch.float64), rtol=1e-14, atol=0)


def test_usb_starts_its_average_with_the_first_batch_and_torchssl_with_one_over_k():
    q = probabilities(16, 4)
    for variant, momentum, expected in (
        ("usb", 0.9, q.mean(0)),
        ("usb", 1.0, q.mean(0)),
        ("torchssl", 0.9, 0.9 / 4 + 0.1 * q.mean(0)),
    ):
        rule = SoftMatchWeighting(4, momentum=momentum, variant=variant).double()
        assert rule.softmatch_probabilities.tolist() == [0.25] * 4
        rule(q)
        torch.testing.assert_close(rule.softmatch_probabilities, expected, rtol=1e-13, atol=0)
        assert bool(rule.softmatch_started)
    again = probabilities(16, 4, seed=1)
    rule = SoftMatchWeighting(4, momentum=0.9).double()
    rule(q)
    rule(again)
    torch.testing.assert_close(rule.softmatch_probabilities, 0.9 * q.mean(0) + 0.1 * again.mean(0), rtol=1e-13, atol=0)


def test_usb_learns_from_aligned_maxima_and_torchssl_from_unaligned_ones():
    q = probabilities(32, 4)
    usb, other = (SoftMatchWeighting(4, momentum=0.0, variant=variant).double() for variant in ("usb", "torchssl"))
    usb(q)
    other(q)
    aligned = usb.aligned(q).amax(1)
    torch.testing.assert_close(usb.softmatch_mean, aligned.mean(), rtol=1e-13, atol=0)
    torch.testing.assert_close(usb.softmatch_variance, aligned.var(), rtol=1e-13, atol=0)
    torch.testing.assert_close(other.softmatch_mean, q.amax(1).mean(), rtol=1e-13, atol=0)
    torch.testing.assert_close(other.softmatch_variance, q.amax(1).var(), rtol=1e-13, atol=0)
    assert usb.softmatch_mean != other.softmatch_mean


def test_a_single_sample_moves_the_mean_and_leaves_the_variance():
    rule = SoftMatchWeighting(4, momentum=0.5, alignment=False)
    rule(torch.tensor([[0.7, 0.1, 0.1, 0.1]]))
    assert rule.softmatch_mean == pytest.approx(0.5 * 0.25 + 0.5 * 0.7)
    assert rule.softmatch_variance == 1
    rule(torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.5, 0.2, 0.2, 0.1]]))
    assert rule.softmatch_variance == pytest.approx(0.5 + 0.5 * 0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "USB"}, "variant is 'USB'.*'usb', 'torchssl'"),
        ({"n_sigma": -1.0}, "n_sigma is -1.0"),
        ({"n_sigma": float("nan")}, "n_sigma is nan"),
    ],
)
def test_softmatch_refuses_settings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        SoftMatchWeighting(4, **options)


def test_a_confidence_at_the_mean_itself_is_in_the_mask():
    rule = SoftMatchWeighting(2, momentum=0.0, alignment=False)
    weights, mask, _ = rule(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    assert mask.tolist() == [True, True]
    assert weights.tolist() == [1.0, 1.0]
