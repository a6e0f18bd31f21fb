"""Replicas in processes of their own against replicas in turn: two and four gloo processes."""

import pytest
import torch

from distributed import scenarios
from forked import run_together
from imwa import IMWA

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[2, 4], ids=["two", "four"])
def found(request, tmp_path_factory):
    """Of every process what it came to."""
    folder = tmp_path_factory.mktemp("store")
    run_together(scenarios.everything, request.param, str(folder), count=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def distance(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not torch.is_tensor(value) or not value.is_floating_point() or name.endswith("/step"):
            assert (value == other[name]).all() if torch.is_tensor(value) else value == other[name], name
    floats = [name for name, value in one.items() if torch.is_tensor(value) and value.is_floating_point()]
    ends = ((one[name] - other[name]).abs().nan_to_num(0.0) for name in floats)
    return max(difference.max().item() for difference in ends)


def same_bits(one, other):
    assert one.keys() == other.keys()
    return all(
        torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        for name, value in one.items()
    )


def shared(state, settings):
    """Without the optimizer's state where each replica keeps its own."""
    return {
        name: value for name, value in state.items() if settings.get("policy") != "local" or "optimizer" not in name
    }


@pytest.mark.parametrize("name", scenarios.RUNS)
def test_the_same_run_as_in_turn(found, name):
    settings = scenarios.RUNS[name]
    expected = scenarios.whole(**{key: value for key, value in settings.items() if key != "deterministic"})
    for rank, process in enumerate(found):
        if settings.get("deterministic"):
            assert same_bits(shared(process[name], settings), shared(expected, settings))
            assert rank or same_bits(process[name], expected)
        else:
            bound = 1e-9 if settings.get("optimizer") == "adamw" else 1e-12  # Adam scales rounding up, as in O10
            assert distance(shared(process[name], settings), shared(expected, settings)) < bound
            assert same_bits(shared(process[name], settings), shared(found[0][name], settings))


@pytest.mark.parametrize("word", ["in order", "summed"])
@pytest.mark.parametrize("policy", ["average", "local"])
def test_replicas_with_a_nan_are_left_out_in_every_process_and_counted(found, word, policy):
    settings = {"policy": policy}
    expected, listed = scenarios.left_out(**settings)
    assert [entry[:2] for entry in listed] == [(0, 0), (1, 2), (1, 3)]
    name = f"left out {word}" if policy == "average" else f"left out local {word}"
    for process in found:
        state, entries = process[name]
        assert entries == listed
        assert all(value.isfinite().all() for value in state.values() if torch.is_tensor(value))
        assert distance(shared(state, settings), shared(expected, settings)) < 1e-12
        assert word == "summed" or same_bits(shared(state, settings), shared(expected, settings))


@pytest.mark.parametrize("word", ["in order", "summed"])
def test_a_nan_stops_every_process_with_the_same_sentence_and_the_start_can_be_restored(found, word):
    for process in found:
        sentence, state = process[f"stopped {word}"]
        assert sentence.startswith("'0.weight' of replica 0 of episode 0 holds NaN")
        assert all(value.isfinite().all() for value in state.values() if torch.is_tensor(value))


@pytest.mark.parametrize("word", ["in order", "summed"])
@pytest.mark.parametrize(("kind", "replicas"), [("partial", 4), ("partial three", 5)])
def test_partial_state_frozen_half_and_fixed_tensors(found, word, kind, replicas):
    expected = scenarios.partial(replicas=replicas)
    start = scenarios.Partial().state_dict()
    for process in found:
        state = process[f"{kind} {word}"]
        assert distance({k: v.float() for k, v in state.items()}, {k: v.float() for k, v in expected.items()}) < 1e-2
        assert all(state[name].dtype == value.dtype for name, value in expected.items())
        assert word == "summed" or same_bits(state, expected)
        for name in ("frozen.weight", "minus", "mask", "ids"):
            assert torch.equal(state[name], start[name])
        assert state["seen"].item() == 6 + 6
        near = [name for name, value in expected.items() if value.dtype == torch.float32]
        assert distance({k: state[k] for k in near}, {k: expected[k] for k in near}) < 1e-6


def test_carried_states_that_differ_are_joined_as_in_turn(found):
    begins, end = scenarios.scales()
    assert (begins, end) == ([64.0] * 4 + [4.0] * 4, 0.25)
    for process in found:
        for word in ("in order", "summed"):
            assert process[f"scales {word}"][1] == end
            assert set(process[f"scales {word}"][0]) == {64.0, 4.0}


@pytest.mark.parametrize("word", ["in order", "summed"])
@pytest.mark.parametrize("policy", ["average", "local"])
def test_stopped_at_a_step_of_its_own_each_process_resumes_to_the_same_bits(found, word, policy):
    name = f"momentum {policy} 4 {word}"
    for process in found:
        assert same_bits(process[f"resumed {policy} {word}"], process[name])


def test_the_first_start_is_process_0_s(found):
    for process in found[1:]:
        weight, momentum, rate = process["start"]
        assert torch.equal(weight, found[0]["start"][0])
        assert torch.equal(momentum, found[0]["start"][1])
        assert rate == 0.1


def test_what_does_not_belong_together_is_refused_in_every_process(found):
    for rank, process in enumerate(found):
        told = process["refusals"]
        assert (
            "'weight' is float32 of shape (4, 2) in process 0 and float32 of shape (1, 2) in process 1"
            in told["other_model"]
        )
        assert "seed is 0 in process 0 and 1 in process 1" in told["other_settings"]
        size = len(found)
        assert f"replicas is {size - 1}, but the averaging group has {size} processes" in told["too_few"]
        assert "finished episodes is 2 in process 0 and 1 in process 1" in told["other_episode"]
        assert (
            told["other_process"] == "no error" or "first and last replica of this process is" in told["other_process"]
        )
        assert "'mask' differs between replicas" in told["mask_differs"]
        assert rank < size - 1 or told["other_process"] != "no error"


def test_a_replica_may_itself_be_data_parallel(found):
    torch.manual_seed(11)
    model = torch.nn.Linear(4, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    half = len(found) // 2
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=6):
        for _ in replica.steps:
            optimizer.zero_grad()
            model(torch.randn(8 * half, 4, generator=replica.generator, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
    for process in found:
        assert (process["data parallel"] - model.weight).abs().max() < 1e-12
