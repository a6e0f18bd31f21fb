"""One (arm, seed): its command lines in order, here or in a process of its own with one thread.

A task holds plain words and paths, so that it can be sent to another process; what comes back is what its record holds.
"""

import contextlib
import dataclasses
import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record, read_record, write_record

# Of every library that a run may use; read by each when it is loaded, so set before that.
ONE_THREAD: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Task(NamedTuple):
    """What is to be run.

    Attributes:
        package: whose commands these are.
        label: experiment, arm and seed, for messages.
        lines: words of each command line, the program's name and `--out` left out; may hold `{first}`.
        folder: run folders are made below it, one a command, numbered from 1.
        shell: the record, without its numbers.
        shared: for each command the run folder that it shares with other tasks, or None; empty where none does.
    """

    package: str
    label: str
    lines: tuple[tuple[str, ...], ...]
    folder: Path
    shell: Record
    shared: tuple[Path | None, ...] = ()


def run_task(task: Task) -> Record:
    """Run the command lines and return the record.

    Raises:
        UserError: a command ended with an exit code other than 0; its line is named.
    """
    shutil.rmtree(task.folder, ignore_errors=True)
    numbers: dict[str, float | None] = {}
    units: dict[str, str] = {}
    record, cpu_seconds = None, 0.0
    began = time.monotonic()
    shared = task.shared or (None,) * len(task.lines)
    folders = [serves or task.folder / str(number) for number, serves in enumerate(shared, start=1)]
    for words, folder, serves in zip(task.lines, folders, shared, strict=True):
        line = [word.replace("{first}", str(folders[0])) for word in words]
        record = _run_line(task.package, line, folder) if serves is None else _run_once(task.package, line, serves)
        cpu_seconds += record.numbers.get("cpu_seconds") or 0.0
        numbers |= record.numbers
        units |= record.units
    if record is None:
        raise ValueError(f"Arm {task.shell.arm!r} has no command line.")
    merged: dict[str, Any] = {
        "numbers": numbers | {"cpu_seconds": round(cpu_seconds, 2)},
        "units": units | {"cpu_seconds": "s"},
        "versions": record.versions,
        "seconds": time.monotonic() - began,
        "threads": record.threads,
        "device": record.device,
    }
    shell = task.shell
    return Record(experiment=shell.experiment, arm=shell.arm, seed=shell.seed, digest=shell.digest, **merged)


def run_tasks(tasks: Sequence[Task], *, jobs: int) -> Iterator[tuple[Task, Record]]:
    """Run all tasks, `jobs` at a time, and yield each with its record as it ends.

    With one job everything runs in this process and prints here. With several, each runs in a process with one thread and
    prints into `seed-003.log.txt` beside its folder; after a failure nothing new is begun,
    and what runs already is waited for and kept.

    Raises:
        UserError: as `run_task`; with several jobs it names the log.
    """
    if jobs == 1:
        for task in tasks:
            yield task, run_task(task)
        return
    os.environ.update(ONE_THREAD)  # inherited by the processes
    failure: Exception | None = None
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        running: dict[Future[Record], Task] = {pool.submit(_logged, task): task for task in tasks}
        try:
            while running:
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    task = running.pop(future)
                    error = None if future.cancelled() else future.exception()
                    if isinstance(error, Exception):
                        failure = failure or error
                        pool.shutdown(wait=False, cancel_futures=True)
                    elif not future.cancelled():
                        yield task, future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if failure is not None:
        raise failure


def _run_line(package: str, words: list[str], folder: Path) -> Record:
    """Run one command line into a folder; its record, with the processor's seconds among the numbers."""
    line = [*words, "--out", str(folder)]
    print(f"\n$ {package} {' '.join(line)}", flush=True)
    began = _processor_time()
    program, rest = _program(package, line)
    code = program(rest)
    if code != 0:
        raise UserError(f"{package} {' '.join(line)} ended with exit code {code}.")
    record = read_record(folder / "result.json")
    return dataclasses.replace(record, numbers=record.numbers | {"cpu_seconds": round(_processor_time() - began, 2)})


def _run_once(package: str, words: list[str], folder: Path) -> Record:
    """The record of a run that serves several tasks; run aside, where it is not there yet, and put there when it is whole."""
    if not folder.exists():
        aside = folder.with_name(f"unfinished-{os.getpid()}-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        write_record(aside / "result.json", _run_line(package, words, aside))
        shutil.rmtree(aside / "checkpoints", ignore_errors=True)  # nothing goes on from a finished run
        with contextlib.suppress(OSError):  # another process was faster: its run is the same
            aside.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    return read_record(folder / "result.json")


def _program(package: str, line: list[str]) -> tuple[Callable[[Sequence[str]], int], list[str]]:
    own = getattr(importlib.import_module(f"reproduce.{package}.arms"), "OWN", {})
    if line[0] in own:
        return own[line[0]], line[1:]
    return importlib.import_module(f"{package}.commands").main, line


def _processor_time() -> float:
    """Seconds of all threads of this process and of its ended children."""
    return sum(os.times()[:4])


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _logged(task: Task) -> Record:
    """`run_task` with everything printed in a log beside the run folders."""
    log = task.folder.parent / f"{task.folder.name}.log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        return run_task(task)
    except UserError as error:
        sys.stderr.flush()
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise UserError(f"{error} Its last line: {' '.join(tail)} (all of it: {log})") from error
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
