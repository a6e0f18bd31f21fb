"""One process of two dies or hangs: the other ends with a sentence in bounded time, and all go on from the last episode."""

import datetime
import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from distributed.scenarios import fresh, go_on
from imwa import ProcessLost

SETTINGS = {"replicas": 3, "policy": "local"}
TIMEOUT = 15  # seconds of the group in which one dies or hangs


def run(rank, folder, place, fate):
    """Train; every process saves its own state after each average and goes on from it where there is one."""
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=TIMEOUT if fate in ("dies", "hangs") else 600)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{place}", rank=rank, world_size=2, timeout=timeout)
    own, iterative = fresh(group=dist.group.WORLD, **SETTINGS)
    states = f"{folder}/{fate and 'broken'}-{rank}.pt"
    if fate == "resume":
        states = f"{folder}/broken-{rank}.pt"
        torch.manual_seed(7)
        iterative.load_state_dict(torch.load(f"{folder}/broken-{rank}.pt", weights_only=True))
    iterative.after_average = lambda episode, model: torch.save(iterative.state_dict(), states)

    def meet_fate(own, replica):
        if rank == 1 and replica.episode == 1:
            if fate == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if fate == "hangs":
                time.sleep(10 * TIMEOUT)

    began = time.monotonic()
    try:
        go_on(own, iterative, spoil=meet_fate)
    except ProcessLost as error:
        torch.save((str(error), time.monotonic() - began), f"{folder}/{fate}.pt")
        os._exit(3)
    torch.save(own.everything(), f"{folder}/{fate or 'whole'}-end-{rank}.pt")
    dist.destroy_process_group()


def start(folder, place, fate):
    """Exit codes of the two."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=run, args=(rank, str(folder), place, fate)) for rank in range(2)]
    for process in processes:
        process.start()
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
    assert seconds < 8 * TIMEOUT  # bounded: a quiet machine takes one TIMEOUT, and this is no test of speed
    if fate == "hangs":  # what is left is the same
        return
    assert start(tmp_path, "second store", "resume") == [0, 0]
    for rank, expected in enumerate(whole):
        end = torch.load(tmp_path / f"resume-end-{rank}.pt")
        assert end.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(value, end[name]) if torch.is_tensor(value) else value == end[name], name
