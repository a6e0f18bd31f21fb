"""Recomputed statistics: exact, any batch form, and everything put back whatever happens."""

import copy

import pytest
import torch

from imwa import recompute_batch_norm


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4),
        torch.nn.BatchNorm1d(4, momentum=0.3),
        torch.nn.ReLU(),
        torch.nn.BatchNorm1d(4, momentum=None),
    )
    for _ in range(3):
        model(torch.randn(8, 3))
    model[1].eval()
    return model


def batches(count=4):
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, generator=draw) for _ in range(count)]


def state(model):
    return (
        copy.deepcopy(model.state_dict()),
        [m.training for m in model.modules()],
        model[1].momentum,
        model[3].momentum,
    )


def assert_untouched(model, before, *, but=()):
    after = state(model)
    assert all(torch.equal(after[0][k], v) for k, v in before[0].items() if k not in but)
    assert after[1:] == before[1:]


def test_statistics_are_the_mean_over_batches_of_each_batch_s_own(model):
    before = state(model)
    assert recompute_batch_norm(model, batches()) == 4
    hidden = [model[0](batch).detach() for batch in batches()]
    assert torch.allclose(model[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-6)
    assert torch.allclose(model[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-6)
    statistics = [f"{layer}.running_{kind}" for layer in (1, 3) for kind in ("mean", "var")]
    assert_untouched(model, before, but=statistics)
    assert all(not torch.equal(model.state_dict()[name], before[0][name]) for name in statistics)


def test_an_empty_loader_leaves_everything_alone(model):
    before = state(model)
    assert recompute_batch_norm(model, []) == 0
    assert_untouched(model, before)


def test_an_error_in_the_loader_or_in_a_forward_leaves_everything_alone(model):
    before = state(model)

    def torn():
        yield batches(1)[0]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        recompute_batch_norm(model, torn())
    assert_untouched(model, before)
    with pytest.raises(RuntimeError):
        recompute_batch_norm(model, [*batches(2), torch.randn(4, 9)])
    assert_untouched(model, before)


def test_any_form_of_batch(model):
    expected = copy.deepcopy(model)
    recompute_batch_norm(expected, batches())
    forms = {
        "tuple": ([(batch, torch.zeros(16)) for batch in batches()], None),
        "list": ([[batch] for batch in batches()], None),
        "dict": ([{"input": batch} for batch in batches()], None),
        "own": ([{"pixels": batch, "y": 1} for batch in batches()], lambda m, batch: m(batch["pixels"])),
    }
    for name, (loader, forward_fn) in forms.items():
        again = copy.deepcopy(model)
        recompute_batch_norm(again, iter(loader), forward_fn=forward_fn)
        assert torch.equal(again[3].running_var, expected[3].running_var), name
    with pytest.raises(ValueError, match="A batch is a str"):
        recompute_batch_norm(model, ["cat.png"])
    with pytest.raises(ValueError, match="A batch is a set"):
        recompute_batch_norm(model, [{1}])


def test_a_model_without_running_statistics_reads_no_batch():
    def never():
        raise AssertionError("read")
        yield

    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3, track_running_stats=False))
    assert recompute_batch_norm(model, never()) == 0
