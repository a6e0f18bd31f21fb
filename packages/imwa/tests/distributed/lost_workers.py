"""What each of two processes does for `test_lost_processes.py`: a toy run of which one may die or hang."""

import datetime
import os
import signal
import time

import torch
import torch.distributed as dist

from distributed.scenarios import fresh, go_on
from imwa import ProcessLost

# Its name changed after torch 2.9.
set_timeout = getattr(dist.distributed_c10d, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
SETTINGS = {"replicas": 3, "policy": "local"}
LONG, SHORT = datetime.timedelta(minutes=10), datetime.timedelta(seconds=15)


def run(rank, folder, place, fate):
    """Train; every process saves its own state after each average and goes on from it where there is one."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{place}", rank=rank, world_size=2, timeout=LONG)
    own, iterative = fresh(group=dist.group.WORLD, **SETTINGS)
    states = f"{folder}/{fate and 'broken'}-{rank}.pt"
    if fate == "resume":
        states = f"{folder}/broken-{rank}.pt"
        torch.manual_seed(7)
        iterative.load_state_dict(torch.load(f"{folder}/broken-{rank}.pt", weights_only=True))

    def after_average(episode, model):
        torch.save(iterative.state_dict(), states)
        if fate == "hangs":  # from here on nobody answers, so that however slow a machine is, only that is waited for
            set_timeout(SHORT, dist.group.WORLD)

    iterative.after_average = after_average

    def meet_fate(own, replica):
        if rank == 1 and replica.episode == 1:
            if fate == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if fate == "hangs":
                time.sleep(10 * LONG.total_seconds())

    began = time.monotonic()
    try:
        go_on(own, iterative, spoil=meet_fate)
    except ProcessLost as error:
        torch.save((str(error), time.monotonic() - began), f"{folder}/{fate}.pt")
        os._exit(3)
    torch.save(own.everything(), f"{folder}/{fate or 'whole'}-end-{rank}.pt")
    dist.destroy_process_group()
