"""The processes that `torchrun` or `accelerate launch` began for one run: which one this is, and what the first tells the others.

The group is accelerate's, the same that the Trainer uses. One process alone calls nothing of torch.distributed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from scarce_common_utils.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """`rank` of this process, from 0, of `count`; the default is one process alone."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0

    def shared(self, value: Value) -> Value:
        """What the main process gives as `value`, in every process; it must pickle. All of them wait for it."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def by_main(self, work: Callable[[], Value]) -> Value:
        """What `work` returns in the main process, the only one that does it, in every process; it must pickle.

        Raises:
            UserError: the main process's, in every process.
        """
        told: Any = None
        if self.main:
            try:
                told = work()
            except UserError as error:
                told = error
        other = self.shared(told)
        told = told if self.main else other  # the first keeps its own, whatever a copy would lose
        if isinstance(told, UserError):
            raise told
        return told


def launched_rank() -> int:
    """Rank that the launcher's environment gives this process; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def launched() -> int:
    """How many processes the launcher's environment tells of; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> Processes:
    """Join the processes that a launcher began, if it began several."""
    if launched() == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu")
    return Processes(state.process_index, state.num_processes)


def share_of_batch(batch_size: int) -> int:
    """Rows of one of the processes that a launcher began, so that together they make the batch.

    Raises:
        UserError: the batch cannot be dealt evenly.
    """
    processes = launched()
    if batch_size % processes:
        raise UserError(
            f"--batch-size is {batch_size}, which {processes} processes cannot share evenly. Choose a multiple."
        )
    return batch_size // processes
