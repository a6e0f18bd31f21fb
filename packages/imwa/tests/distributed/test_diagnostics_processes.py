"""Diagnostics of replicas in two processes against replicas in turn: the same numbers, to the bit, in every process."""

import pytest
import torch

from distributed import diagnostics_workers as workers
from forked import run_together

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    run_together(workers.everything, 2, str(folder), count=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", workers.RUNS)
def test_the_same_numbers_as_in_turn_in_every_process(found, name):
    alone = workers.looked_at(**workers.RUNS[name])
    assert alone["warning"] is not None
    for rank, process in enumerate(found):
        mine = process[name]
        assert mine["reports"] == alone["reports"]
        assert mine["segments"] == alone["segments"]
        assert mine["warning"] == alone["warning"]
        assert mine["told"] == ([alone["warning"]] if rank == 0 else [])
    replicas = workers.RUNS[name]["replicas"]
    pairs = [place[:3] for place in alone["segments"]]
    if "diverges" not in workers.RUNS[name]:
        assert pairs == [(episode, m, m + 1) for episode in (0, 2) for m in range(replicas - 1)]
    else:
        assert [pair for pair in pairs if pair[0] == 2] == ([(2, 0, 2), (2, 2, 3)] if replicas == 4 else [])
