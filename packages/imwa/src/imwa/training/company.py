"""The processes that train one run's replicas together: who this one is, and what it tells the others.

Started by torchrun (or anything that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT); one process alone is
company enough for itself. Process 0 owns the run folder; every process keeps checkpoints of its own replicas.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imwa.group import ProcessLost, lost
from scarce_common_utils.checkpoints import checkpoint_step, load_checkpoint, newest_checkpoint, verify
from scarce_common_utils.errors import UserError
from scarce_common_utils.process_group import leave_together
from scarce_common_utils.watch import wait_for_verdict

_OURS = "process-{}-of-{}"


@dataclass(frozen=True)
class Company:
    """`group` is None for one process alone."""

    group: Any = None
    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether all replicas train in this process."""
        return self.group is None

    @property
    def first(self) -> bool:
        """Whether this process owns the run folder, evaluates averages, and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank."""
        if self.alone:
            return [value]
        everyone: list[Any] = [None] * self.size
        with lost("an exchange of the run's numbers"):
            dist.all_gather_object(everyone, value, group=self.group)
        return everyone

    def first_does(self, make: Callable[[], Any]) -> Any:
        """What `make` returns in process 0, for all; the others wait for it."""
        made = make() if self.first else None
        everyone = self.gather(made)
        return made if self.first else everyone[0]  # process 0 keeps its own, whatever a copy would lose

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The block runs in process 0 before it runs in the others (files that it fetches are there then)."""
        if not self.first:
            self.gather(None)
        yield
        if self.first:
            self.gather(None)

    def place(self, device: torch.device) -> torch.device:
        """The device of this process where several share a machine."""
        if self.alone or device.type != "cuda" or device.index is not None:
            return device
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def checkpoints(self, folder: Path) -> Path:
        """Where this process keeps its checkpoints.

        Raises:
            UserError: the run was begun with another number of processes.
        """
        mine = folder / _OURS.format(self.rank, self.size)
        if folder.is_dir():
            sizes = {int(path.name.rpartition("-")[2]) for path in folder.glob(_OURS.format("*", "*"))}
            sizes |= {1} if any(folder.glob("step-*.pt")) else set()
            if sizes - {self.size}:
                raise UserError(
                    f"The run in {folder.parent} was begun with {max(sizes)} processes, and {self.size} were started. "
                    "Start as many as then, or a new run."
                )
        return folder if self.alone else mine

    def newest_common(self, folder: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
        """State of the newest checkpoint that is whole in every process, None where there is none; alone, in this one."""
        if self.alone:
            path = newest_checkpoint(folder, report)
            return None if path is None else load_checkpoint(path)
        whole: dict[int, Path] = {}
        for path in sorted(folder.glob("step-*.pt")):
            try:
                verify(path)
            except UserError as error:
                report(f"{error} The checkpoint before it is used.")
            else:
                whole[checkpoint_step(path)] = path
        common = set.intersection(*(set(steps) for steps in self.gather(list(whole))))
        return load_checkpoint(whole[max(common)]) if common else None


@contextmanager
def company(device: torch.device) -> Iterator[Company]:
    """Join the processes that torchrun started, for the block; without torchrun, be alone.

    Args:
        device: that the run computes on; CUDA talks over NCCL, everything else over gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Company()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0")))
    with lost("the processes' start"):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Company(dist.group.WORLD, dist.get_rank(), size)
        with lost("the processes' end"):
            leave_together()
    except ProcessLost:
        wait_for_verdict()  # which names the process
        raise
    finally:
        dist.destroy_process_group()
