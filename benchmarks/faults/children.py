"""Commands of a package as real processes: forked from one parent that has imported the wheel and run nothing.

An import costs 2 to 6 CPU seconds, a fork some milliseconds. The parent is Python's own fork server; a child gets its own folder,
its output in files, and a fault, which is put into it before it calls the command.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

HANGS_AFTER = 180.0  # seconds; a command here takes one to five on an idle core

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
            time.sleep(0.005)
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


def _command(package: str, words: list[str], folder: Path, said: Path, fault: Fault | None) -> None:
    """In the child: output into a file, the fault, the command, its exit code."""
    os.chdir(folder)
    os.setpgid(0, 0)  # so that who it leaves behind can be told from others
    with said.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in a shell's background was started to ignore it
    main = import_module(f"{package}.commands").main
    if fault is not None:
        fault()
    sys.exit(main(words))
