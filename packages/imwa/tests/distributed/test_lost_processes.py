"""One process of two dies or hangs: the other ends with a sentence in bounded time, and all go on from the last episode."""

import pytest
import torch

from distributed.lost_workers import LONG, run
from forked import process_of


def start(folder, place, fate):
    """Exit codes of the two."""
    processes = [process_of(run, rank, str(folder), place, fate) for rank in range(2)]
    processes[0].join(300)
    if fate == "hangs":
        processes[1].kill()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, "store", "") == [0, 0]
    return [torch.load(folder / f"whole-end-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("fate", ["hangs", "dies"])
def test_the_others_end_with_a_sentence_and_all_resume_to_the_same_bits(whole, tmp_path, fate):
    assert start(tmp_path, "store", fate)[0] == 3
    sentence, seconds = torch.load(tmp_path / f"{fate}.pt")
    assert "Another process of the averaging group ended or did not answer, at episode 1" in sentence
    assert seconds < LONG.total_seconds()  # it hangs no longer than SHORT, and this is no test of speed
    if fate == "hangs":  # what is left is the same
        return
    assert start(tmp_path, "second store", "resume") == [0, 0]
    for rank, expected in enumerate(whole):
        end = torch.load(tmp_path / f"resume-end-{rank}.pt")
        assert end.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(value, end[name]) if torch.is_tensor(value) else value == end[name], name
