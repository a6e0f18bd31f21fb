import pytest
import torch

from layermatch import FixedThreshold
from reference.weighting import fixed_threshold


def probabilities(samples, classes, dtype=torch.float32, sharpness=3.0):
    generator = torch.Generator().manual_seed(samples * classes)
    return torch.softmax(sharpness * torch.randn(samples, classes, generator=generator, dtype=dtype), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (17, 3), (200, 10)])
def test_fixed_threshold_equals_the_twin(samples, classes, threshold, dtype):
    q = probabilities(samples, classes, dtype)
    weights, mask, _ = FixedThreshold(threshold)(q)
    assert weights.tolist() == fixed_threshold(q.tolist(), threshold)
    assert mask.tolist() == [weight == 1.0 for weight in weights.tolist()]
    assert weights.dtype == dtype
    assert mask.dtype == torch.bool


def test_o7_fixed_threshold_is_monotone_in_confidence():
    q = probabilities(500, 10)
    weights = FixedThreshold(0.6)(q).weights[q.amax(1).argsort()]
    assert weights.min() == 0
    assert weights.max() == 1
    assert (weights.diff() >= 0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.0999])
def test_o7_any_threshold_below_one_over_k_takes_everything(threshold):
    uniform = torch.full((3, 10), 0.1)
    q = torch.cat([probabilities(50, 10), uniform, torch.eye(10)])
    assert FixedThreshold(threshold)(q).weights.eq(1).all()


def test_o7_one_hot_and_uniform_rows_give_no_nan_and_the_threshold_itself_counts():
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.95, 0.05], [0.9499, 0.0501]])
    weights, mask, _ = FixedThreshold(0.95)(q)
    assert weights.tolist() == [1, 0, 1, 0]
    assert mask.tolist() == [True, False, True, False]
    assert not weights.requires_grad


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold is {threshold}"):
        FixedThreshold(threshold)
