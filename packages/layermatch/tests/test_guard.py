import pytest
import torch
from torch import nn

from layermatch.training.guard import NonFinite, all_finite, fill_momentum, guarded_step


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def sgd(model, *, fused=True):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, fused=fused)


def losses(model, step):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    return model(x).square().mean()


@pytest.mark.parametrize("bad_steps", [(), (0,), (5,), (0, 1, 5)])
def test_bad_steps_are_left_out_whole(bad_steps):
    """Equal to a plain optimizer that never saw the bad steps."""
    guarded, plain = network(), network()
    optimizer, reference = sgd(guarded), sgd(plain)
    fill_momentum(optimizer)
    fill_momentum(reference)
    for step in range(8):
        optimizer.zero_grad()
        loss = losses(guarded, step) * (float("nan") if step in bad_steps else 1.0)
        loss.backward()
        finite = all_finite(loss, list(guarded.parameters()))
        assert bool(finite) is (step not in bad_steps)
        guarded_step(optimizer, finite)
        if step not in bad_steps:
            reference.zero_grad()
            losses(plain, step).backward()
            reference.step()
        assert all(torch.equal(a, b) for a, b in zip(guarded.parameters(), plain.parameters(), strict=True))
        assert all(
            torch.equal(a["momentum_buffer"], b["momentum_buffer"])
            for a, b in zip(optimizer.state.values(), reference.state.values(), strict=True)
        )


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_single_bad_gradient_or_loss_is_seen(poison):
    model = network()
    losses(model, 0).backward()
    parameters = list(model.parameters())
    assert all_finite(torch.tensor(1.0), parameters)
    assert not all_finite(torch.tensor(poison), parameters)
    model.weight.grad[1, 2] = poison
    assert not all_finite(torch.tensor(1.0), parameters)


def test_filled_momentum_changes_no_ordinary_step():
    first, second = network(), network()
    filled, plain = sgd(first), sgd(second)
    fill_momentum(filled)
    for step in range(3):
        for model, optimizer in ((first, filled), (second, plain)):
            optimizer.zero_grad()
            losses(model, step).backward()
            optimizer.step()
    assert torch.equal(first.weight, second.weight)


def test_the_first_bad_step_is_remembered():
    memory = NonFinite(torch.device("cpu"))
    for step, value in enumerate([1.0, 2.0, float("inf"), 1.0, float("nan")]):
        assert int(memory.first_bad) == (-1 if step <= 2 else 2)
        memory.note(step, torch.tensor(value))
    assert int(memory.first_bad) == 2
