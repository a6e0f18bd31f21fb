"""Processes of tests, forked from one server that has imported the package once: they start at once, and from a clean state.

What they run must be importable: functions at the top of a module that is no test.
"""

import multiprocessing

import torch

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
if METHOD == "forkserver":
    multiprocessing.set_forkserver_preload(
        # torch's optimizers load torch._dynamo when the first one is built, which costs as much as torch itself
        ["layermatch.commands.train", "torch._dynamo", "accelerate", "cyclopts", "sklearn.datasets", "PIL.Image"]
    )


def run_together(function, *arguments, count=2):
    """Call `function(rank, *arguments)` in `count` processes and wait; what one of them raises is raised here."""
    torch.multiprocessing.start_processes(function, arguments, nprocs=count, start_method=METHOD)


def meeting_point(count=2):
    """A store at which processes meet, to be kept, and their environment for it. It holds its port from the beginning:
    one that was tried and let go may be somebody else's by then."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    size = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return store, address | size | {"TORCHELASTIC_RESTART_COUNT": "0", "OMP_NUM_THREADS": "1"}


def exit_code(function, *arguments):
    """Call `function(*arguments)` in one process; what `Process.exitcode` says: 0, or minus the signal that ended it."""
    process = multiprocessing.get_context(METHOD).Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode
