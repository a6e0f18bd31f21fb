import pytest
import torch
from torch import nn

from layermatch.training.guard import KeptBuffers, NonFinite, all_finite, fill_momentum, guarded_step


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


def test_the_first_bad_step_is_remembered_and_all_that_were_left_out_are_counted():
    memory = NonFinite(torch.device("cpu"))
    seen = []
    for step, (sound, taken) in enumerate([(True, True), (True, False), (False, False), (True, True), (False, False)]):
        memory.note(step, torch.tensor(sound), taken=torch.tensor(taken))
        seen.append((int(memory.first_bad), int(memory.left_out)))
    assert seen == [(-1, 0), (-1, 1), (2, 2), (2, 2), (2, 3)]


def test_an_optimizer_that_would_not_look_is_refused():
    with pytest.raises(ValueError, match=r"SGD.*fused=True"):
        guarded_step(sgd(network(), fused=False), torch.tensor(True))


@pytest.mark.parametrize("finite", [True, False])
def test_buffers_are_put_back_unless_the_pass_was_finite(finite):
    norm = nn.BatchNorm1d(3, momentum=0.5)
    kept = KeptBuffers(norm)
    norm(torch.randn(4, 3))
    kept.keep()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    norm(torch.full((4, 3), 1.0 if finite else float("nan")))
    after = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    kept.put_back(unless=torch.tensor(finite))
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, (after if finite else before)[name]), name
    kept.put_back()
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
