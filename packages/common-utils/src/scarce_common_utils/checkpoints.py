"""Checkpoints that are whole or not there: written aside, synced, renamed, and verified by SHA-256.

A checkpoint is one file, `step-00001200.pt`, or one folder, `step-00001200/`, with its digests in the format of
`sha256sum`: `step-00001200.sha256` beside the file, `SHA256SUMS` inside the folder. The digests of a file are
renamed into place before the file itself, so at every moment each name holds the old content or the new one,
and a checkpoint that anything cut short is recognised, named, and the one before it is used.
"""

import errno
import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from scarce_common_utils.errors import UserError

_NAME = re.compile(r"^step-(\d{8,})(\.pt)?$")
_SUMS = "SHA256SUMS"


def save_checkpoint(folder: Path, *, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` as `folder/step-<step>.pt`, verified and atomic, and leave the newest `keep` checkpoints.

    Args:
        folder: the run's `checkpoints` folder; made where it is missing.
        step: number of optimizer steps done, at least 0.
        state: tensors, strings, numbers, lists, tuples and dicts alone (what `torch.load(weights_only=True)` reads).
        keep: how many of the newest checkpoints stay, at least 1.

    Returns:
        The path of the checkpoint.

    Raises:
        ValueError: `step` or `keep` is out of range.
        OSError: the disk refused; an older checkpoint is untouched.
    """
    path = _destination(folder, step=step, keep=keep, suffix=".pt")
    aside = path.with_suffix(".pt.part")
    aside.unlink(missing_ok=True)  # a link that somebody laid there would be followed
    try:
        with aside.open("wb") as file:
            _save(state, file)
            _sync(file)
        sums = f"{_digest(aside)}  {path.name}\n"
        write_atomically(path.with_suffix(".sha256"), sums.encode())
        os.replace(aside, path)
        _sync_folder(folder)
    finally:
        aside.unlink(missing_ok=True)
    _forget_older(folder, newest=path, keep=keep)
    return path


def adopt_folder(source: Path, folder: Path, *, step: int, keep: int = 2) -> Path:
    """Move a whole folder, such as a checkpoint of the transformers Trainer, in as `folder/step-<step>/`.

    The files' digests are written into it first (`SHA256SUMS`), everything is synced, and one rename puts it in place.

    Raises:
        ValueError: `step` or `keep` is out of range.
        OSError: the disk refused, or `source` lies on another file system.
    """
    path = _destination(folder, step=step, keep=keep, suffix="")
    files = sorted(file for file in source.rglob("*") if file.is_file() and file.name != _SUMS)
    sums = "".join(f"{_digest(file)}  {file.relative_to(source).as_posix()}\n" for file in files)
    for file in files:
        with file.open("rb+") as opened:
            _sync(opened)
    write_atomically(source / _SUMS, sums.encode())
    if path.exists():
        shutil.rmtree(path)
    os.replace(source, path)
    _sync_folder(folder)
    _forget_older(folder, newest=path, keep=keep)
    return path


def newest_checkpoint(folder: Path, report: Callable[[str], None], *, before: Path | None = None) -> Path | None:
    """Newest checkpoint in `folder` that is whole, or None where there is none.

    Args:
        folder: the run's `checkpoints` folder; may be missing.
        report: gets one sentence for each newer checkpoint that is torn or altered and therefore passed over.
        before: a checkpoint; it and newer ones are not looked at.
    """
    paths = _listed(folder)
    for path in paths if before is None else paths[paths.index(before) + 1 :]:
        try:
            verify(path)
        except UserError as error:
            report(f"{error} The checkpoint before it is used.")
        else:
            return path
    return None


def verify(path: Path) -> None:
    """Compare a checkpoint with its digests.

    Raises:
        UserError: the digests are missing, a file is, or a file's content differs; the file is named.
    """
    sums_file = path / _SUMS if path.is_dir() else path.with_suffix(".sha256")
    if not sums_file.is_file():
        raise UserError(
            f"{path} has no digests beside it ({sums_file.name} is missing): it was cut short or not written by us."
        )
    root = path if path.is_dir() else path.parent
    for line in sums_file.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        file = root / name
        if not name or ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"{sums_file} holds the line {line!r}, which is no digest of a file of this checkpoint.")
        if not file.is_file():
            raise UserError(f"{file} is missing, though {sums_file.name} lists it.")
        if _digest(file) != digest:
            raise UserError(f"{file} is torn or altered: its SHA-256 is not the one in {sums_file.name}.")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """State of a checkpoint file, verified first, on the CPU.

    Raises:
        UserError: the file is torn, altered, or holds anything but plain tensors and numbers; it is named.
    """
    verify(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is no checkpoint that can be read: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__} where a checkpoint holds a dictionary.")
    return state


def checkpoint_step(path: Path) -> int:
    """Number of optimizer steps done, read off the name of a checkpoint file or folder.

    Raises:
        ValueError: the name is none of a checkpoint.
    """
    match = _NAME.match(path.name)
    if match is None:
        raise ValueError(
            f"{path.name!r} is not the name of a checkpoint, which is like step-00001200.pt or step-00001200."
        )
    return int(match.group(1))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that its name holds the old content or the new, never a part; the folder must exist."""
    aside = path.with_name(path.name + ".part")
    aside.unlink(missing_ok=True)  # a link that somebody laid there would be followed
    try:
        with aside.open("wb") as file:
            file.write(content)
            _sync(file)
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _destination(folder: Path, *, step: int, keep: int, suffix: str) -> Path:
    if step < 0:
        raise ValueError(f"A checkpoint's step is {step}; it counts optimizer steps from 0.")
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least the newest checkpoint must stay.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"step-{step:08d}{suffix}"


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), key=checkpoint_step, reverse=True)


def _forget_older(folder: Path, *, newest: Path, keep: int) -> None:
    # Only what is older than the one just written goes: after a resume from an earlier step the later ones were
    # passed over for a reason, and their names are written again as the run reaches them.
    older = [path for path in _listed(folder) if checkpoint_step(path) <= checkpoint_step(newest)]
    for path in older[keep:]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".sha256").unlink(missing_ok=True)


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    """`torch.save`, whose writer answers a disk that refuses with a RuntimeError about its own container."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        refusal = error.__context__
        if not isinstance(refusal, OSError):
            raise
        raise OSError(refusal.errno, os.strerror(refusal.errno or errno.EIO), file.name) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is durable enough there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
