"""Row 7: SIGTERM and SIGINT, sent for real: the step under way is kept, the exit code says which, no process is left, resume is equal."""

import signal

from faults.bench import Bench, Row, checkpoints, uniform
from faults.children import left_behind
from faults.rows.kill import being_written, sleep_in


def count(bench: Bench, size: str) -> int:
    """20, or 500."""
    return 20 if size == "small" else 500


def case(bench: Bench, number: int) -> list[str]:
    """Four kinds in turn: SIGTERM, SIGINT, both one after the other, and one during a save."""
    form = number // 4 % len(bench.job.forms)
    kind, generator = number % 4, bench.generator(7, number)
    _, seconds = bench.whole(form)
    folder = bench.folder(f"signalled-{number}")
    child = bench.start([*bench.words(form), "--out", str(folder)])
    first = (signal.SIGTERM, signal.SIGINT)[kind % 2]
    child.wait_for(lambda: (folder / "metrics.jsonl").is_file())
    if kind == 3:
        child.wait_for(lambda: being_written(folder))
    else:
        sleep_in(child, uniform(generator, 0.0, 0.5) * seconds)
    child.send(first)
    if kind == 2:
        child.send(signal.SIGINT)
    ended = child.wait()
    found = left_behind(child.pid)
    if ended.code == 0:  # it came to its end before the signal
        return found + bench.go_on(folder, form)
    # Of two that are pending at once Python hears the lower number first.
    expected = {128 + first, 128 + signal.SIGINT} if kind == 2 else {128 + first}
    if ended.code not in expected:
        return [*found, f"{first.name} ended with {ended.code}: {ended.last}"]
    if "stopped by" not in ended.last:
        found.append(f"no sentence said so, but {ended.last!r}")
    if "is kept" in ended.last and not checkpoints(folder):
        found.append(f"it said {ended.last!r}, and no checkpoint is there")
    return found + bench.go_on(folder, form, shell=bench.by_shell(7, number))


ROW = Row(7, "SIGTERM and SIGINT, twice and during a save", count, case)
