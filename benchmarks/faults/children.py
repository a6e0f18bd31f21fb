"""Commands of a package as real processes: forked from one parent that has imported the wheel and run nothing.

An import costs 2 to 6 CPU seconds, a fork some milliseconds. The parent is Python's own fork server; a child gets its own folder,
its output in files, and a fault, which is put into it before it calls the command. Painting figures took half of a small run's
time, and no figure is compared: in a child matplotlib's painter gives a picture's first bytes alone. What is run from the shell
imports, and paints, as it does for a person.
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

# A command here takes one to five seconds, and got 10 CPU seconds in 180 on a machine that others held.
HANGS_AFTER = 1800.0  # seconds
GRACE = 300.0  # seconds, at most: loading processes look for their parent every five, and later on a busy machine

Fault = Callable[[], None]


class Ended(NamedTuple):
    """How a command ended.

    `code` is minus a signal's number where one killed it, None where it hung and was killed; `said` holds standard output and
    error; `seconds` is wall time.
    """

    code: int | None
    said: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line that was said."""
        return (self.said.strip().splitlines() or [""])[-1]


class Child:
    """One command under way, in `folder`."""

    def __init__(self, package: str, words: Sequence[str], *, folder: Path, fault: Fault | None) -> None:
        self.began = time.monotonic()
        self.said = folder / f"said-{self.began:.6f}.txt"
        context = multiprocessing.get_context("forkserver")
        self.process = context.Process(target=_command, args=(package, list(words), folder, self.said, fault))
        self.process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.running():
            os.kill(self.pid, number)

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Wait until something is so; False where the command ended before."""
        while not happened():
            if not self.running():
                return happened()
            time.sleep(0.01)
        return True

    def wait(self, seconds: float = HANGS_AFTER) -> Ended:
        """How it ended; one that hangs is killed."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        said = self.said.read_text(encoding="utf-8", errors="replace") if self.said.is_file() else ""
        self.said.unlink(missing_ok=True)
        return Ended(code, said, time.monotonic() - self.began)


def prepare(modules: Sequence[str]) -> None:
    """Name what the parent imports before it forks the first child."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


def cpu_seconds() -> float:
    """CPU seconds so far of this process, of what it ran from the shell, and, on Linux, of the fork server and its children."""
    used = os.times()
    seconds = used.user + used.system + used.children_user + used.children_system
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)  # type: ignore[attr-defined]  # nothing public says it
    try:
        fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return seconds
    return seconds + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def from_the_shell(package: str, words: Sequence[str], *, folder: Path) -> Ended:
    """Run a command as a person does: the console script of the environment, in a process of its own."""
    script = Path(sys.executable).with_name(package)
    began = time.monotonic()
    try:
        child = subprocess.run(
            [str(script), *words],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HANGS_AFTER,
        )
    except subprocess.TimeoutExpired as error:
        return Ended(None, str(error), time.monotonic() - began)
    return Ended(child.returncode, child.stdout + child.stderr, time.monotonic() - began)


def left_behind(parent: int) -> list[str]:
    """Sentences on processes of a command that ended which do not end too."""
    end = time.monotonic() + GRACE
    while (left := children_of_group(parent)) and time.monotonic() < end:
        time.sleep(0.2)
    return [f"process {pid} was left behind" for pid in left]


def children_of_group(parent: int) -> list[int]:
    """Processes of the group that the command `parent` made; Linux alone can tell."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat") if os.path.isdir("/proc") else ():
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[2]) == parent and int(entry.parent.name) != parent:
            found.append(int(entry.parent.name))
    return found


def _command(package: str, words: list[str], folder: Path, said: Path, fault: Fault | None) -> None:
    """In the child: output into a file, the fault, the command, its exit code."""
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # a command's own children start as they do from the shell
    os.setpgid(0, 0)  # so that who it leaves behind can be told from others
    with said.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in a shell's background was started to ignore it
    main = import_module(f"{package}.commands").main
    gc.freeze()  # what the parent imported stays out of the collector's rounds
    _paint_nothing()
    if fault is not None:
        fault()
    sys.exit(main(words))


def _paint_nothing() -> None:
    """In the child: let matplotlib give the first bytes of a picture in place of one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def print_png(self: Any, file: Any, *words: Any, **options: Any) -> None:
        file.write(b"\x89PNG\r\n\x1a\n")

    FigureCanvasAgg.print_png = print_png  # type: ignore[method-assign]  # on purpose, in the child alone
