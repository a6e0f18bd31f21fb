"""A run's state, saved in the middle and loaded into parts that started elsewhere, goes on with the same bits."""

import io

import pytest
import torch

from test_step import ARMS, run, snapshot, step


def go_on(parts, steps):
    for _ in range(steps):
        step(*parts)


@pytest.mark.parametrize("arm", ARMS)
def test_saved_and_loaded_goes_on_with_the_same_bits(arm):
    whole = run(arm, seed=0)
    go_on(whole, 5)
    first = run(arm, seed=0)
    go_on(first, 2)
    file = io.BytesIO()
    torch.save(first[0].state_dict(digest="d", version="v"), file)
    second = run(arm, seed=1)
    torch.rand(3)
    file.seek(0)
    second[0].load_state_dict(torch.load(file, weights_only=True), digest="d")
    assert torch.equal(second[0].sums, first[0].sums)
    assert second[0].sums[0] > 0
    go_on(second, 3)
    for old, new in zip(snapshot(whole[0]), snapshot(second[0]), strict=True):
        assert torch.equal(old, new)
    assert torch.equal(whole[0].sums, second[0].sums)
    assert second[0].step == 5
    assert int(second[0].nonfinite.first_bad) == -1


def test_what_was_noted_of_a_bad_loss_survives():
    state, *_ = run()
    state.nonfinite.note(0, torch.tensor(False))
    other, *_ = run()
    other.load_state_dict(state.state_dict(digest="d", version="v"), digest="d")
    assert int(other.nonfinite.first_bad) == 0
    assert int(other.nonfinite.left_out) == 1


def test_a_state_of_another_run_or_format_is_refused():
    state, *_ = run()
    saved = state.state_dict(digest="abc", version="v")
    with pytest.raises(ValueError, match=r"run digest 'abc'.*'xyz' are needed"):
        state.load_state_dict(saved, digest="xyz")
    with pytest.raises(ValueError, match="format 'something else'"):
        state.load_state_dict(saved | {"format": "something else"}, digest="abc")


def test_a_state_of_another_model_is_refused_with_its_differences_and_nothing_is_loaded():
    state, *_ = run()
    saved = state.state_dict(digest="abc", version="v")
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    tensors = {name: value + 1 for name, value in saved["model"].items()}
    first, *_, last = tensors
    tensors[first], tensors["another.weight"] = tensors[first].double(), tensors.pop(last)
    with pytest.raises(ValueError, match=rf"{first} is float64.*{last} is missing; another.weight is not needed"):
        state.load_state_dict(saved | {"model": tensors}, digest="abc")
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
