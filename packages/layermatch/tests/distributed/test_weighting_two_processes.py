"""Two gloo processes against one, float64: every rule's answers and state; and groups of one process."""

import tempfile

import pytest
import torch

from forked import run_together
from layermatch.processes import gathered, process_count, summed, summed_with_gradient
from weighting_workers import RULES, learn, same_state, worker

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")


@pytest.fixture(scope="module")
def in_two_processes():
    with tempfile.TemporaryDirectory() as folder:
        run_together(worker, folder)
        return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", RULES)
def test_o6_weighting_of_two_processes_equals_one(name, in_two_processes):
    weights, masks, extras, gradients, state = learn(RULES[name]().double(), 1, 0)
    found = [one[name] for one in in_two_processes]
    for step, expected in enumerate(weights):
        torch.testing.assert_close(
            torch.cat([one[0][step] for one in found]), expected, rtol=0, atol=1e-12, equal_nan=True
        )
        assert torch.equal(torch.cat([one[1][step] for one in found]), masks[step])
    assert any(0 < mask.double().mean() < 1 for mask in masks)
    for one in found:
        torch.testing.assert_close(one[2], extras, rtol=0, atol=1e-12, equal_nan=True)
        torch.testing.assert_close(one[3], gradients, rtol=0, atol=1e-12, equal_nan=True)
        assert one[4].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(one[4][key], value, rtol=0, atol=1e-12)
    assert same_state(found[0][4], found[1][4])


@pytest.mark.parametrize("name", RULES)
def test_a_loss_that_one_process_knows_not_to_be_finite_leaves_every_state(name, in_two_processes):
    for one in in_two_processes:
        assert same_state(*one[name, "not finite"])


def test_an_image_in_both_processes_keeps_the_later_ranks_label(in_two_processes):
    for one in in_two_processes:
        assert one["twice"]["flexmatch_labels"].tolist() == [-1, 0, -1, 0, 1]
        assert one["twice"]["flexmatch_counts"].tolist() == [2, 2, 1, 0]


def test_a_sum_leaves_what_it_was_given(in_two_processes):
    for rank, one in enumerate(in_two_processes):
        assert one["summed"].tolist() == [3.0, 10.0]
        assert one["given"].tolist() == [1.0 + rank, 5.0]


def unchanged():
    x = torch.arange(3.0, requires_grad=True)
    assert process_count() == 1
    assert summed_with_gradient(x) is x
    assert summed(x).data_ptr() == gathered(x).data_ptr() == x.data_ptr()
    assert not summed(x).requires_grad
    assert not gathered(x).requires_grad


def test_without_a_group_nothing_is_communicated():
    assert not torch.distributed.is_initialized()
    unchanged()


def test_in_a_group_of_one_nothing_is_communicated(monkeypatch):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        monkeypatch.setattr(torch.distributed, "all_reduce", None)
        monkeypatch.setattr(torch.distributed, "all_gather", None)
        unchanged()
    finally:
        torch.distributed.destroy_process_group()
