"""A command in several processes: all train, the first alone writes and speaks, all end together.

torchrun --nproc-per-node 2 --no-python randommask pretrain genome.fa
"""

import os
import sys
from collections.abc import Callable, Collection
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TypeVar

from randommask.training.processes import Processes, join, launched, launched_rank
from scarce_common_utils.checkpoints import checkpoint_step, newest_checkpoint
from scarce_common_utils.command_line import resumed_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.manners import Result
from scarce_common_utils.options import RunOptions, choose_device
from scarce_common_utils.process_group import leave_together
from scarce_common_utils.resumption import begin
from scarce_common_utils.run_folder import RunFolder, to_stderr
from scarce_common_utils.watch import stopped_workers_end

Config = TypeVar("Config", bound=RunOptions)


def in_all_processes(work: Callable[[], Result]) -> Result:
    """Do a command's work; in a process that is not the first, without a word and with exit code 2 for a person's mistake.

    Returns:
        The command's result, in the first process.
    """
    result = None
    with stopped_workers_end():
        if launched_rank() == 0:
            result = work()
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                try:
                    work()
                except UserError:
                    sys.exit(2)
        leave_together()
    return result


def begin_together(
    config: Config, *, command: str, may_change: Collection[str]
) -> tuple[RunFolder | None, Config, Processes]:
    """`begin` of a command in every process: the first alone takes the run folder up, and tells the others.

    Raises:
        UserError: as `begin`, in every process.
    """
    if launched() == 1:
        return *begin(config, package="randommask", command=command, may_change=may_change), Processes()
    asked = config
    if config.resume is not None:
        stored = RunFolder.reopen(config.resume, package="randommask", command=command)
        asked = resumed_config(config, stored.config, may_change=may_change)
    processes = join(choose_device(asked.device))
    run = processes.by_main(lambda: begin(config, package="randommask", command=command, may_change=may_change)[0])
    return run, asked, processes


def open_run(run: RunFolder | None, processes: Processes, *, make: Callable[[], RunFolder]) -> RunFolder:
    """The run to go on with, or the one that `make` makes in the first process, for all; its refusal is everybody's."""
    return run or processes.by_main(make)


def last_checkpoint(run: RunFolder, processes: Processes) -> Path | None:
    """Newest whole checkpoint of a run, found by the first process for all; lines of the log behind it are dropped.

    Raises:
        UserError: it was made by another number of processes, whose masks and order another number would not go on with.
    """

    def found() -> Path | None:
        path = newest_checkpoint(run.checkpoints, to_stderr)
        if path is not None:
            begun = len(list(path.glob("rng_state_*.pth"))) or 1  # the Trainer keeps a random state for each of several
            if begun != processes.count:
                raise UserError(
                    f"{path} was made by {begun} process{'es' if begun > 1 else ''}, and {processes.count} "
                    f"{'were' if processes.count > 1 else 'was'} started, which would change the result. Start {begun}, or a new run."
                )
        run.cut_metrics(0 if path is None else checkpoint_step(path))
        return path

    return processes.by_main(found)
