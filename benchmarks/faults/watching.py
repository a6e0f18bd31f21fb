"""Many files read by the package's own functions in one forked child, under Python's audit hook: what was run, written or filled with them.

A task is a generator of attempts, made in the child: it writes a file and gives the function that reads it. The hook records and refuses
nothing, so that what a payload does is also seen where the hook is blind. What counts as harm:

    exec, import          of code that lies in the watched folder, or that bears the payloads' mark
    pickle.find_class     of anything: no reader needs it
    processes, sockets    of any kind
    open, rename, ...     for writing outside the watched folder; links are followed first

Besides: an error that is no UserError, more than MOST_SECONDS of CPU time, memory that grew by more than MOST_MEMORY (the process's
largest resident set, which a fork begins anew), and a child that dies.
"""

import contextlib
import io
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from faults.children import HANGS_AFTER
from scarce_common_utils.errors import UserError

MARK = "faults_poison"
MOST_MEMORY = 2**30  # bytes that reading one small file may add to the process
MOST_SECONDS = 1.0  # of CPU time for a file of some kB; bombs have a limit of their own
_PROCESSES = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
_SOCKETS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request", "webbrowser.open")
_CHANGES = (
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate"),
    *("shutil.rmtree", "shutil.copyfile", "shutil.move"),
)


class Attempt(NamedTuple):
    """One file to be read.

    Attributes:
        name: what and how it was harmed, for the fault's sentence.
        read: reads it, and returns faults of its own, a sentence each, or None.
        refused: whether a sentence has to come, or reading may do.
        named: what a refusal has to name, such as the file.
        seconds: of CPU time that it may take.
    """

    name: str
    read: Callable[[], list[str] | None]
    refused: bool = False
    named: str = ""
    seconds: float = MOST_SECONDS


Task = Callable[[Path], Iterator[Attempt]]


def faults_of(task: Task, *, folder: Path, hook: bool) -> list[str]:
    """Run a task in a child, in a folder of its own, and return its faults.

    Args:
        task: a function of a module, or a partial of one.
        folder: new; all that is written must lie in it.
        hook: whether the audit hook is put in; a fuzz of text does without.
    """
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=_child, args=(task, folder, hook))
    child.start()
    child.join(HANGS_AFTER)
    if child.exitcode is None:
        child.kill()
        child.join()
    said = _lines(folder / "faults.jsonl")
    if said[-1:] == [None]:
        return said[:-1]
    at = (folder / "at.txt").read_text() if (folder / "at.txt").is_file() else "its beginning"
    tail = (folder / "said.txt").read_text(errors="replace").strip()[-300:] if (folder / "said.txt").is_file() else ""
    how = "hung and was killed" if child.exitcode is None else f"ended with {child.exitcode}"
    return [*said, f"{at}: the process {how}: {tail}"]


class Watch:
    """The audit hook: events of harm while `on`, in `events`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.events = os.path.realpath(folder), False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, words: tuple[Any, ...]) -> None:
        harm = self._harm(event, words) if self.on else None
        if harm is not None:
            self.events.append(harm)

    def _harm(self, event: str, words: tuple[Any, ...]) -> str | None:
        if event in _PROCESSES or event in _SOCKETS or event == "pickle.find_class":
            return f"{event} {words[:2]!r}"[:120]
        if event == "exec":
            code = words[0]
            foreign = self._inside(code.co_filename) or MARK in repr((code.co_names, code.co_consts))
            return f"exec of {code.co_filename}" if foreign else None
        if event == "import":
            foreign = MARK in str(words[0]) or (isinstance(words[1], str) and self._inside(words[1]))
            return f"import {words[0]}" if foreign else None
        if event == "open":
            path, mode, flags = words
            writes = (
                any(sign in mode for sign in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
            )
            return self._outside(event, path) if writes else None
        if event in _CHANGES:
            places = words[1:2] if event == "shutil.copyfile" else words[:2]  # what is copied is read
            return next((found for path in places if (found := self._outside(event, path))), None)
        return None

    def _inside(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self.folder + os.sep) and not path.startswith("<")

    def _outside(self, event: str, path: Any) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        text = os.fsdecode(path)
        # An event of a rename or the like names the entry itself, which lies where its folder does.
        real = os.path.realpath(text) if event == "open" else os.path.join(os.path.realpath(os.path.dirname(text)), "x")
        return None if real == os.devnull or self._inside(real) else f"{event} of {text}, outside"


def faults_of_one(attempt: Attempt, watch: Watch | None) -> list[str]:
    """Read one file and judge what happened."""
    if watch is not None:
        watch.events.clear()
        watch.on = True
    before, began = _memory(), time.process_time()
    found, said = list[str](), None
    try:
        found = attempt.read() or []
    except UserError as error:
        said = str(error)
    except BaseException as error:
        found = [f"{type(error).__name__}: {str(error)[:200]}"]
        said = found[0]
    finally:
        if watch is not None:
            watch.on = False
    seconds, grown = time.process_time() - began, _memory() - before
    found = list(found)
    if watch is not None:
        found += list(dict.fromkeys(watch.events))[:3]
    if said is None and attempt.refused:
        found.append("was read in silence")
    if said is not None and attempt.named not in said:
        found.append(f"the sentence does not name {attempt.named}: {said[:200]}")
    if seconds > attempt.seconds:
        found.append(f"took {seconds:.1f} CPU seconds")
    if grown > MOST_MEMORY:
        found.append(f"took {grown / 2**20:.0f} MiB of memory")
    return [f"{attempt.name}: {sentence}" for sentence in found]


def _child(task: Task, folder: Path, hook: bool) -> None:
    """In the child: each attempt in turn, faults into a file as they come, None at the end."""
    os.chdir(folder)
    sys.dont_write_bytecode = True
    with open("said.txt", "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    at = os.open("at.txt", os.O_WRONLY | os.O_CREAT)
    tempfile.tempdir = str(folder)
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")  # where it is imported later, and where it was already:
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_DATASETS_CACHE = folder / "cache"
    watch = Watch(folder) if hook else None
    with open("faults.jsonl", "a", encoding="utf-8", buffering=1) as file:
        for attempt in task(folder):
            os.pwrite(at, attempt.name.encode().ljust(120)[:120], 0)
            for sentence in faults_of_one(attempt, watch):
                file.write(json.dumps(sentence) + "\n")
        file.write("null\n")


def _lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _memory() -> int:
    """Bytes of the largest resident set so far."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def command(main: Callable[[list[str]], int], *words: str) -> None:
    """A command in this process: exit code 2 is a UserError with what it said, 0 a reading."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(list(words))
    if code == 2:
        raise UserError(said.getvalue())
    if code != 0:
        raise RuntimeError(f"{words[0]} ended with {code}: {said.getvalue()[-200:]}")
