"""Named streams: golden values fix them for every machine, and no two keys collide by their spelling."""

import random

import numpy
import pytest
import torch

from scarce_common_utils.random_state import capture_random_state, restore_random_state, seed_random_state
from scarce_common_utils.streams import stream, stream_seed


def test_golden_values_hold_on_every_machine():
    assert stream_seed(0, "replica", 2) == 1141977876688641567
    assert torch.randint(1000, (4,), generator=stream(0, "replica", 2)).tolist() == [409, 853, 108, 6]


def test_names_are_told_apart():
    keys = [(), ("a",), ("a", "b"), ("ab",), ("a", ""), ("", "a"), (1,), ("1",), ("i1",), (11,), (1, 1), (-1,)]
    seeds = {stream_seed(seed, *names) for seed in (0, 1, 10) for names in keys}
    assert len(seeds) == 3 * len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("wrong", [1.0, None, True, torch.tensor(1)])
def test_a_name_of_another_type_is_refused_with_its_value(wrong):
    with pytest.raises(TypeError, match=r"names must be"):
        stream_seed(0, "replica", wrong)
    with pytest.raises(TypeError, match=r"seed must be"):
        stream_seed(wrong, "replica")


def test_a_stream_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    torch.rand(5, generator=stream(0, "weak", 7))
    assert torch.equal(torch.rand(3), expected)


def draw_all() -> tuple[float, float, float]:
    return random.random(), float(numpy.random.rand()), float(torch.rand(()))  # noqa: NPY002 (the global one is under test)


def test_random_state_comes_back_through_a_weights_only_file(tmp_path):
    seed_random_state(11)
    random.gauss(0, 1)
    numpy.random.randn()  # noqa: NPY002 (leaves a cached normal draw behind)
    torch.save(capture_random_state(), tmp_path / "state.pt")
    expected = [draw_all(), draw_all(), random.gauss(0, 1)]
    seed_random_state(12)
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draw_all(), draw_all(), random.gauss(0, 1)] == expected


def test_seeding_covers_python_numpy_and_torch():
    seed_random_state(5)
    first = draw_all()
    seed_random_state(5)
    assert draw_all() == first
    seed_random_state(6)
    assert all(ours != theirs for ours, theirs in zip(draw_all(), first, strict=True))
