"""Row 2: the Nth operation on a file of a checkpoint fails, for every N, with a full disk, an I/O error, or the process killed there.

The fault is put into the child before it calls the command: an audit hook refuses what Python announces (open, rename, remove,
mkdir), and `os.fsync` and the writes of opened files are wrapped. What native code writes (safetensors) is met at the rename of its
folder. Small: the files of the run's second checkpoint, so that an older one is there to go on from, each operation under one of
the three faults, which take turns (each package begins with another one). Large: every operation of the whole run too, from its
folder's making to its result, under each fault.
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
from faults.jobs import JOBS

FAULTS = (errno.ENOSPC, errno.EIO, 0)  # no space left, input/output error, and 0: killed
_NEVER = -1
LOCKS = (".lock", ".holder.json")


def count(bench: Bench, size: str) -> int:
    """Every N of one checkpoint; behind those, in the large size, every N of a run under each fault."""
    one = operations(bench, whole_run=False)
    return one if size == "small" else one + len(FAULTS) * operations(bench, whole_run=True)


def case(bench: Bench, number: int) -> list[str]:
    """One operation, one fault."""
    one = operations(bench, whole_run=False)
    whole_run = number >= one
    turn = number + list(JOBS).index(bench.job.package)
    place, kind = divmod(number - one, len(FAULTS)) if whole_run else (number, turn % len(FAULTS))
    return failed(
        bench,
        bench.folder(f"failed-{number}"),
        place,
        FAULTS[kind],
        whole_run=whole_run,
        shell=bench.by_shell(2, number),
    )


def operations(bench: Bench, *, whole_run: bool) -> int:
    """How many operations the second checkpoint, or the whole run, takes; counted once, by a fault that never comes."""
    file = bench.scratch / f"operations-{'run' if whole_run else 'save'}.txt"
    if not file.is_file():
        folder = bench.folder("counted")
        fault = functools.partial(plant, str(folder), _NEVER, 0, counted=str(file), whole_run=whole_run)
        ended = bench.run([*bench.words(0), "--out", str(folder)], fault=fault)
        if ended.code != 0:
            raise RuntimeError(f"{bench.job.package}: counting operations ended with {ended.code}: {ended.said}")
    return len(file.read_text().splitlines())


def failed(bench: Bench, folder: Path, place: int, kind: int, *, whole_run: bool, shell: bool) -> list[str]:
    """What is wrong of a run whose operation `place` fails with the error `kind` (0: it is killed there), and that then goes on."""
    fault = functools.partial(plant, str(folder), place, kind, counted=None, whole_run=whole_run)
    ended = bench.run([*bench.words(0), "--out", str(folder)], fault=fault)
    what = f"operation {place}{' of the run' if whole_run else ''}, {errno.errorcode.get(kind, 'killed')}"
    found = []
    if kind and ended.code not in (0, 2):
        found.append(f"{what}: ended with {ended.code}: {ended.last}")
    if kind and ended.code == 2 and str(folder) not in ended.said:
        found.append(f"{what}: the path is not named: {ended.last}")
    if not kind and ended.code != -signal.SIGKILL:
        found.append(f"{what}: was not killed, but ended with {ended.code}")
    if not whole_run and not checkpoints(folder):
        found.append(f"{what}: no checkpoint is left, though one was whole")
    return found + [f"{what}: {sentence}" for sentence in bench.go_on(folder, 0, shell=shell)]


def plant(run: str, place: int, number: int, *, counted: str | None, whole_run: bool) -> None:
    """In the child: let operation `place` on a file of a run, or of its second checkpoint, fail with `number`, or kill there."""
    state = {"done": 0, "failed": False}
    meant = functools.partial(_is_of_run if whole_run else _is_of_second, run=run)

    def operation(name: str, path: Any) -> None:
        if state["failed"] or not meant(path):
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


def _is_of_run(path: Any, run: str) -> bool:
    """Whether a path is the run's folder, or lies in it; the lock's files, which are no part of the result, apart."""
    if not isinstance(path, str | bytes):
        return False
    text = os.path.abspath(os.fsdecode(path))
    return text == run or (text.startswith(run + os.sep) and os.path.basename(text) not in LOCKS)


def _is_of_second(path: Any, run: str) -> bool:
    """Whether a path is a checkpoint's, and an older one is whole already."""
    below = os.path.join(run, "checkpoints")
    if not _is_of_run(path, below) or not os.path.isdir(below):
        return False
    names = [name for name in os.listdir(below) if name.startswith("step-") and not name.endswith((".part", ".sha256"))]
    return len(names) == 1 and names[0].split(".")[0] not in os.path.abspath(os.fsdecode(path))


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
