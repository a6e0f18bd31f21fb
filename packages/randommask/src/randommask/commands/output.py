"""What `embed` and `score` share: their two operands, the model on its device, and a file of results that overwrites nothing."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from randommask.genome.sequences import STANDARD
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import choose_device

if TYPE_CHECKING:
    from randommask.training.loading import Loaded

AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def model_and_file(words: Sequence[str], command: str) -> tuple[Path, Path]:
    """The two operands.

    Raises:
        UserError: there are not two.
    """
    if len(words) != 2:
        raise UserError(
            f"Give a model's folder and a file of sequences (- is standard input): randommask {command} MODEL FILE -o OUT"
        )
    return Path(words[0]), Path(words[1])


def refuse_used_file(path: Path | None) -> None:
    """Refuse an output file that exists or whose folder does not; called before anything is read.

    Raises:
        UserError: as said.
    """
    if path is None or path == STANDARD:
        return
    if path.exists():
        raise UserError(f"-o is {path}, which exists; nothing there is touched. Name a new file.")
    if not path.parent.is_dir():
        raise UserError(f"-o is {path}, but there is no folder {path.parent}. Make it, or name another.")


def placed(loaded: "Loaded", device: str) -> "Loaded":
    """The model on a device by name.

    Raises:
        UserError: no such device.
    """
    loaded.model.to(choose_device(device))
    return loaded


def write_new(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside its place and move it there whole.

    Raises:
        UserError: the disk refuses.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"-o is {path}, which cannot be written ({error.strerror or error}).") from error
    finally:
        aside.unlink(missing_ok=True)
