"""Runs an example as one of two processes; in a module of its own, so that another process can import it."""

import os
import runpy
from contextlib import redirect_stdout
from pathlib import Path


def run_example(rank, file, steps, environment, folder):
    """What `torchrun --nproc-per-node=2 FILE STEPS` does in the process of this rank; it prints into a file of the folder."""
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    with Path(folder, f"{rank}.txt").open("w") as out, redirect_stdout(out):
        runpy.run_path(file)["main"](steps)
