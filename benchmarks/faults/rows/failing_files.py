"""Row 2: the Nth operation on a file of a checkpoint fails, for every N, with a full disk, an I/O error, or the process killed there.

The fault is put into the child before it calls the command: an audit hook refuses what Python announces (open, rename, remove,
mkdir), and `os.fsync` and the writes of opened files are wrapped. What native code writes (safetensors) is met at the rename of its
folder. Files are those of the run's second checkpoint, so that an older one is there to go on from.
"""

import builtins
import errno
import functools
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.bench import Bench, Row, checkpoints

FAULTS = (errno.ENOSPC, errno.EIO, 0)  # no space left, input/output error, and 0: killed
_MOST = 60  # operations of one checkpoint; those beyond the last are seen not to exist
_COUNT = "operations.txt"


def count(bench: Bench, size: str) -> int:
    """Every N of one checkpoint under each fault; the number of operations is counted first, by a fault that never comes."""
    return len(FAULTS) * operations(bench)


def operations(bench: Bench) -> int:
    """How many operations the second checkpoint takes."""
    file = bench.scratch / _COUNT
    if not file.is_file():
        folder = bench.folder("counted")
        fault = functools.partial(plant, str(folder / "checkpoints"), _MOST, 0, str(file))
        ended = bench.run([*bench.words(0), "--out", str(folder)], fault=fault)
        if ended.code != 0:
            raise RuntimeError(f"{bench.job.package}: counting operations ended with {ended.code}: {ended.said}")
    return len(file.read_text().splitlines())


def case(bench: Bench, number: int) -> list[str]:
    """One operation, one fault."""
    place, kind = number // len(FAULTS), FAULTS[number % len(FAULTS)]
    folder = bench.folder(f"failed-{number}")
    fault = functools.partial(plant, str(folder / "checkpoints"), place, kind, None)
    ended = bench.run([*bench.words(0), "--out", str(folder)], fault=fault)
    what = f"operation {place}, {errno.errorcode.get(kind, 'killed')}"
    found = []
    if kind and ended.code not in (0, 2):
        found.append(f"{what}: ended with {ended.code}: {ended.last}")
    if kind and ended.code == 2 and "checkpoints" not in ended.said:
        found.append(f"{what}: the path is not named: {ended.last}")
    if not kind and ended.code != -signal.SIGKILL:
        found.append(f"{what}: was not killed, but ended with {ended.code}")
    if not checkpoints(folder):
        found.append(f"{what}: no checkpoint is left, though one was whole")
    return found + [f"{what}: {sentence}" for sentence in bench.go_on(folder, 0, shell=number == 0)]


def plant(below: str, place: int, number: int, counted: str | None) -> None:
    """In the child: let operation `place` on a file of the second checkpoint below a folder fail with `number`, or kill."""
    state = {"done": 0, "failed": False}

    def operation(name: str, path: Any) -> None:
        if state["failed"] or not _is_of_second(path, below):
            return
        if counted is not None:
            with os.fdopen(os.open(counted, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
                file.write(f"{name} {Path(os.fsdecode(path)).name}\n")
        if state["done"] == place and counted is None:
            state["failed"] = True
            if not number:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(number, os.strerror(number), os.fsdecode(path))
        state["done"] += 1

    def hook(event: str, words: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(words[0], str | bytes) and _writes(words):
            operation("open", words[0])
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.move", "shutil.rmtree"):
            operation(event, words[1] if event == "os.rename" else words[0])

    sys.addaudithook(hook)
    os.fsync = _wrapped(os.fsync, operation)
    _wrap_writes(operation)


def _writes(words: tuple[Any, ...]) -> bool:
    mode, flags = words[1], words[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _is_of_second(path: Any, below: str) -> bool:
    """Whether a path is a checkpoint's, and an older one is whole already."""
    if not isinstance(path, str | bytes):
        return False
    text = os.path.abspath(os.fsdecode(path))
    folder = Path(below)
    if not text.startswith(below) or not folder.is_dir():
        return False
    names = [
        name for name in os.listdir(folder) if name.startswith("step-") and not name.endswith((".part", ".sha256"))
    ]
    return len(names) == 1 and names[0].split(".")[0] not in text


def _wrapped(function: Callable[..., Any], operation: Callable[[str, Any], None]) -> Callable[..., Any]:
    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}")
        if path.exists():
            operation("fsync", os.readlink(path))
        function(descriptor)

    return fsync


def _wrap_writes(operation: Callable[[str, Any], None]) -> None:
    """Let files that `open` gives count, and fail, on their first write: half of it lands, as on a disk that is full."""
    plain = io.open

    class Counted(io.FileIO):
        first = True

        def write(self, content: Any) -> int:
            if self.first:
                self.first = False
                try:
                    operation("write", self.name)
                except OSError:
                    super().write(bytes(content)[: len(content) // 2])
                    raise
            return super().write(content)

    def opened(file: Any, mode: str = "r", *words: Any, **options: Any) -> Any:
        if mode in ("wb", "xb") and isinstance(file, str | bytes | os.PathLike) and not words and not options:
            return io.BufferedWriter(Counted(os.fspath(file), mode.replace("b", "")))
        return plain(file, mode, *words, **options)

    io.open = opened
    builtins.open = opened
    _patch_pathlib(opened)


def _patch_pathlib(opened: Callable[..., Any]) -> None:
    def path_open(self: Path, mode: str = "r", buffering: int = -1, *words: Any, **options: Any) -> Any:
        if mode in ("wb", "xb"):
            return opened(str(self), mode)
        return open(str(self), mode, buffering, *words, **options)

    Path.open = path_open  # type: ignore[method-assign]  # put in on purpose, in the child alone


ROW = Row(2, "the Nth file operation of a save fails", count, case)
