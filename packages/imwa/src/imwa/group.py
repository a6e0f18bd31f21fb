"""The averaging group: the processes that train one run's replicas, which of them trains which, and their exchanges.

Replicas  process r of W trains the replicas r*M//W to (r+1)*M//W - 1.
Failure   an exchange that fails says that another process ended or does not answer; the error names the point of the run.
Letters   M replicas, W processes of the group, r a process's number in it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


class ProcessLost(RuntimeError):
    """Another process of the averaging group ended, or did not answer within the group's timeout."""


class Group:
    """A group of torch.distributed and this process's place in it.

    Args:
        group: averaging group, one member for each place within a replica.
        replicas: M, at least one for each process.

    Attributes:
        rank: r.
        size: W.
        own: replicas that this process trains.
        device: where arrays lie that are exchanged.

    Raises:
        ValueError: torch.distributed has no process group, this process is no member, or M is below W.
    """

    def __init__(self, group: Any, *, replicas: int) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError(
                "A group is given, but torch.distributed has no process group. Call init_process_group first."
            )
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError(
                "This process is no member of the averaging group. Give each process the group that holds it."
            )
        if replicas < self.size:
            raise ValueError(
                f"replicas is {replicas}, but the averaging group has {self.size} processes, and each trains at least one. "
                f"Give replicas={self.size} or more, or a smaller group."
            )
        self._group, self._replicas = group, replicas
        self.own = self.of(self.rank)
        on_device = dist.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_device else torch.device("cpu")

    def of(self, process: int) -> range:
        """Replicas that a process trains."""
        return range(process * self._replicas // self.size, (process + 1) * self._replicas // self.size)

    def owner(self, replica: int) -> int:
        """The process that trains a replica."""
        return next(process for process in range(self.size) if replica in self.of(process))

    def add_up(self, array: torch.Tensor, *, when: str) -> None:
        """The array becomes the sum of all processes' arrays, in place."""
        self._together(when, lambda: dist.all_reduce(array, group=self._group))

    def send(self, array: torch.Tensor, *, source: int, when: str) -> None:
        """The array becomes that of process `source`, in place."""
        rank = dist.get_global_rank(self._group, source)
        self._together(when, lambda: dist.broadcast(array, src=rank, group=self._group))

    def gather(self, value: Any, *, when: str) -> list[Any]:
        """Everybody's value, by process."""
        everyone: list[Any] = [None] * self.size
        self._together(when, lambda: dist.all_gather_object(everyone, value, group=self._group))
        return everyone

    def of_first(self, value: Any, *, when: str) -> Any:
        """Process 0's value; what the others give is not looked at."""
        box = [value]
        rank = dist.get_global_rank(self._group, 0)
        self._together(when, lambda: dist.broadcast_object_list(box, src=rank, group=self._group))
        return box[0]

    def _together(self, when: str, call: Callable[[], object]) -> None:
        with lost(when):
            call()


@contextmanager
def lost(when: str) -> Iterator[None]:
    """Give the failure of a collective call within the block its name: another process is lost."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ProcessLost(
            f"Another process of the averaging group ended or did not answer, at {when} ({reason}). Look there for the "
            "cause; then start all processes again from their last saved states."
        ) from error
