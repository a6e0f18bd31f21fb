"""The processes that train one model together: which one this is, and what they tell each other.

The group is made by accelerate (`commands/launch.py`) or by a person's own script. One process alone calls nothing of
torch.distributed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layermatch.processes import summed


@dataclass(frozen=True)
class Processes:
    """`rank` of this process, from 0, of `count`; the default is one process alone."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes, prints and evaluates."""
        return self.rank == 0

    def all(self, flag: Tensor) -> Tensor:
        """Bool[]: whether the flag is True in every process; on the flag's device, without a host read."""
        return flag if self.count == 1 else summed((~flag).to(torch.int32)) == 0

    def total(self, numbers: Tensor) -> Tensor:
        """Sums of `numbers` over the processes."""
        return numbers if self.count == 1 else summed(numbers)

    def shared(self, value: Any) -> Any:
        """What the main process gives as `value`, in every process; it must pickle. All of them wait for it."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """The `value` of each process, by rank, in every process; it must pickle."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the main process's buffers, such as BatchNorm's statistics, into every process's model."""
        if self.count > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)
