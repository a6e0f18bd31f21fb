"""Row 1: kill -9 at a random moment, during a save, an evaluation or an averaging too; the run that goes on ends with the same bits."""

import signal
import time
from pathlib import Path

from faults.bench import Bench, Row, uniform
from faults.children import Child, left_behind

IN_A_ROW = 10  # kills of one run, in every fifteenth case of the large size


def count(bench: Bench, size: str) -> int:
    """30, or 300 and 20 runs that are killed again and again."""
    return 30 if size == "small" else 320


def case(bench: Bench, number: int) -> list[str]:
    """Start, kill, go on. Forms take turns; a third of the kills wait for a checkpoint that is being written."""
    form = number % len(bench.job.forms)
    generator = bench.generator(1, number)
    _, seconds = bench.whole(form)
    folder = bench.folder(f"killed-{number}")
    kills = IN_A_ROW if number >= 300 else 1
    killed: list[int] = []
    for _ in range(kills):
        begun = (folder / "config.json").is_file()
        words = [bench.job.words[0], "--resume", str(folder)] if begun else [*bench.words(form), "--out", str(folder)]
        child = bench.start(words)
        if number % 3 == 0:
            child.wait_for(lambda: being_written(folder))
        else:
            sleep_in(child, uniform(generator, 0.1, 0.9) * seconds / (1 if kills == 1 else 3))
        child.send(signal.SIGKILL)
        child.wait()
        killed.append(child.pid)
    found = bench.go_on(folder, form, shell=bench.by_shell(1, number))
    return found + [sentence for pid in killed for sentence in left_behind(pid)]


def being_written(folder: Path) -> bool:
    """Whether a checkpoint lies half written."""
    inside = folder / "checkpoints"
    return inside.is_dir() and any(path.suffix == ".part" or path.name == "trainer" for path in inside.iterdir())


def sleep_in(child: Child, seconds: float) -> None:
    """Wait, but no longer than the command lives."""
    end = time.monotonic() + seconds
    child.wait_for(lambda: time.monotonic() > end)


ROW = Row(1, "kill -9 at a random moment, resume", count, case)
