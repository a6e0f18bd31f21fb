"""The processes that `torchrun` or `accelerate launch` began for one run: which one this is, and what the first tells the others.

The group is accelerate's, the same that the Trainer uses. One process alone calls nothing of torch.distributed.
"""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch

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


def launched_rank() -> int:
    """Rank that the launcher's environment gives this process; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def join(device: torch.device) -> Processes:
    """Join the processes that a launcher began, if it began several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu")
    return Processes(state.process_index, state.num_processes)
