"""Where a run computes, through accelerate: one process, or several of `accelerate launch` or `torchrun`.

accelerate is used thinly: it makes the process group, gives each process its device, wraps the model once, and holds the
trackers. Autocast, gradient scaler and optimizer stay plain torch, so that a step costs what torch's own costs, and a
step that is not finite can be left out without the host (`training/guard.py`).
"""

import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from layermatch.training.processes import Processes
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import choose_device

if TYPE_CHECKING:
    from accelerate import Accelerator

    from layermatch.commands.options import TrainConfig

# Option of `accelerate launch` -> the environment variable by which it tells the processes.
LAUNCHER = {"--use_fsdp": "ACCELERATE_USE_FSDP", "--use_deepspeed": "ACCELERATE_USE_DEEPSPEED"}


class Place(NamedTuple):
    """`device` of this process, who computes along, and the accelerator that brought them together."""

    device: torch.device
    processes: Processes
    accelerator: "Accelerator"

    def wrap(self, model: nn.Module) -> nn.Module | None:
        """The model as several processes call it, or None where there is one alone."""
        return self.accelerator.prepare_model(model) if self.processes.count > 1 else None


def find_place(config: "TrainConfig") -> Place:
    """Join the other processes, if a launcher started several.

    Raises:
        UserError: the device, the precision or what the launcher was told does not fit; it is named.
    """
    from accelerate import Accelerator

    device = choose_device(config.device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    check_launcher(config)
    check_device(config, device, processes=count)
    # The precision is ours to keep (see above), whatever the launcher's own default is.
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", device_placement=False)
    return Place(
        accelerator.device if count > 1 else device,
        Processes(accelerator.process_index, accelerator.num_processes),
        accelerator,
    )


def check_launcher(config: "TrainConfig") -> None:
    """Refuse what `accelerate launch` was told and this command would not follow."""
    for option, variable in LAUNCHER.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise UserError(
                f"accelerate was launched with {option}, and layermatch trains whole copies of the model in each process. "
                "Leave it out; a step in parts, --accumulate, saves memory."
            )
    told = {"no": "float32"}.get(precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), precision)
    if told not in ("float32", config.precision):
        raise UserError(
            f"accelerate was launched with --mixed_precision {told}, and --precision is {config.precision}. "
            f"Say --precision {told} behind the command, or leave the launcher's option out."
        )
    parts = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if parts not in ("1", str(config.accumulate)):
        raise UserError(
            f"accelerate was launched with --gradient_accumulation_steps {parts}, and --accumulate is {config.accumulate}. "
            f"Say --accumulate {parts} behind the command, or leave the launcher's option out."
        )


def check_device(config: "TrainConfig", device: torch.device, *, processes: int) -> None:
    """Refuse what the device cannot do, and batches that the processes cannot share out."""
    if device.type == "cpu" and config.precision == "fp16":
        raise UserError(
            "--precision fp16 needs a GPU: on a CPU half-precision numbers are slower and overflow. Choose bf16 or float32."
        )
    if processes > 1 and device.type not in ("cpu", "cuda"):
        raise UserError(f"Several processes cannot share --device {device.type}. Start one, or choose cpu or cuda.")
    if processes > 1 and device.index is not None:
        raise UserError(
            f"--device {device} names one card for {processes} processes. Say --device {device.type}: each takes its own."
        )
    parts = processes * config.accumulate
    if config.batch_size % parts:
        raise UserError(
            f"--batch-size {config.batch_size} cannot be cut into {parts} equal parts ({processes} processes, --accumulate "
            f"{config.accumulate}). Choose a multiple of {parts}."
        )
    if config.compile and device.type == "cpu" and not find_compiler():
        raise UserError("--compile needs a C++ compiler on a CPU, such as g++, and none was found. Leave it out.")


def find_compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would take on a CPU."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "clang++", "cl"))), None)


def choose_tracker(name: str) -> str:
    """The tracker to use: `auto` is TensorBoard where it is installed, else none.

    Raises:
        UserError: the named one is not installed; the pip line is given.
    """
    if name == "none" or (name == "auto" and importlib.util.find_spec("tensorboard") is None):
        return "none"
    chosen = "tensorboard" if name == "auto" else name
    if importlib.util.find_spec(chosen) is None:
        raise UserError(f"--tracker {chosen} needs the package {chosen}: pip install {chosen}")
    return chosen


def open_tracker(place: Place, name: str, *, folder: Path, options: dict[str, Any]) -> None:
    """Start the tracker in the main process; `place.accelerator.log` feeds it from then on.

    Args:
        place: of the run.
        name: from `choose_tracker`.
        folder: the run's; TensorBoard's files go into `tensorboard/` there.
        options: the run's, as plain JSON values, for trackers that keep them.
    """
    if name == "none" or not place.processes.main:
        return
    from accelerate.tracking import GeneralTracker
    from accelerate.utils import LoggerType

    accelerator = place.accelerator
    accelerator.project_configuration.set_directories(str(folder))
    wanted: list[str | LoggerType | GeneralTracker] = [name]
    accelerator.log_with = wanted
    if name == "tensorboard":  # the project's name is the folder's; config.json beside it holds the options
        with nameless_host():
            accelerator.init_trackers("tensorboard")
        return
    named = {"name": folder.name} | ({"dir": str(folder)} if name == "wandb" else {})
    accelerator.init_trackers("layermatch", config=options, init_kwargs={name: named})


@contextmanager
def nameless_host() -> Iterator[None]:
    """Within the block the host is called `host`: TensorBoard names its file after it, and no file of a run names the machine."""
    before = socket.gethostname
    socket.gethostname = lambda: "host"
    try:
        yield
    finally:
        socket.gethostname = before


def leave(place: Place) -> None:
    """Close trackers and the process group."""
    place.accelerator.end_training()
