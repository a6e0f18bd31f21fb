"""Processes of tests, forked from one server that has imported the package once: they start at once, and from a clean state.

What they run must be importable: functions at the top of a module that is no test.
"""

import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch.multiprocessing.spawn import start_processes

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
if METHOD == "forkserver":
    multiprocessing.set_forkserver_preload(
        # torch's optimizers load torch._dynamo when the first one is built, which costs as much as torch itself
        ["imwa.commands.train", "imwa.processes", "torch._dynamo", "cyclopts", "sklearn.datasets", "PIL.Image"]
    )


def run_together(function, *arguments, count):
    """Call `function(rank, *arguments)` in `count` processes and wait; what one of them raises is raised here."""
    start_processes(function, arguments, nprocs=count, start_method=METHOD)


def process_of(function, *arguments):
    """A started process that calls `function(*arguments)`."""
    process = multiprocessing.get_context(METHOD).Process(target=function, args=arguments)
    process.start()
    return process


def meeting_point(count):
    """A store at which processes meet, to be kept, and what torchrun would put into their environment.

    The store holds its port from the beginning: one that was tried and let go may be somebody else's by then.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    size = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return store, address | size | {"TORCHELASTIC_RESTART_COUNT": "0", "OMP_NUM_THREADS": "1"}


def as_rank(rank, environment, printed, function, arguments):
    """Call `function(*arguments)` as torchrun's process of this rank; what it prints goes into `<printed>-<rank>.txt`.

    A result that is a number becomes the exit code.
    """
    os.environ.update({**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
    torch.set_num_threads(1)
    with Path(f"{printed}-{rank}.txt").open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = function(*arguments)
    if isinstance(code, int):
        sys.exit(code)


def finished(count, printed, function, *arguments):
    """Exit codes of `count` processes that call `function(*arguments)` as ranks of one launch, and what they printed."""
    _store, environment = meeting_point(count)
    processes = [process_of(as_rank, rank, environment, str(printed), function, arguments) for rank in range(count)]
    for process in processes:
        process.join(840)
    return (
        [process.exitcode for process in processes],
        [Path(f"{printed}-{rank}.txt").read_text() for rank in range(count)],
    )
