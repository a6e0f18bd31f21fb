"""Row 10: two runs in one folder, a holder killed, a folder that cannot be written, resume while running: one writer, others told who."""

import os
import signal
from pathlib import Path

from faults.bench import Bench, Row
from faults.comparing import tree


def count(bench: Bench, size: str) -> int:
    """20, or 500."""
    return 20 if size == "small" else 500


def case(bench: Bench, number: int) -> list[str]:
    """Five kinds in turn, and the forms; the run of the first holder that was killed goes on from the shell."""
    form = number // len(KINDS) % len(bench.job.forms)
    kind, folder = KINDS[number % len(KINDS)], bench.folder(f"shared-{number}")
    return kind(bench, folder, form)


def started_together(bench: Bench, folder: Path, form: int) -> list[str]:
    """Two runs are given one new folder at the same moment: one runs, the other exits with 2."""
    words = [*bench.words(form), "--out", str(folder)]
    two = [bench.start(words), bench.start(words)]
    ended = [child.wait() for child in two]
    codes = sorted(str(one.code) for one in ended)
    if codes != ["0", "2"]:
        return [f"two runs in one folder ended with {codes}: {ended[0].last} / {ended[1].last}"]
    refused = next(one for one in ended if one.code == 2)
    said = [] if "in use" in refused.last or "already holds" in refused.last else [f"the second said {refused.last!r}"]
    return said + bench.go_on(folder, form)


def resumed_while_running(bench: Bench, folder: Path, form: int) -> list[str]:
    """A resume of a run that is under way is refused, with the process named, and the run is not disturbed."""
    child = bench.start([*bench.words(form), "--out", str(folder)])
    if not child.wait_for(lambda: (folder / "metrics.jsonl").is_file()):
        return [f"the run ended early: {child.wait().last}"]
    child.send(signal.SIGSTOP)  # so that it is surely under way, on the slowest machine
    refused = bench.run([bench.job.words[0], "--resume", str(folder)])
    child.send(signal.SIGCONT)
    ended = child.wait()
    found = []
    if refused.code != 2 or f"process {child.pid}" not in refused.last:
        found.append(f"resume while running ended with {refused.code}: {refused.last}")
    if ended.code != 0:
        found.append(f"the run that was there ended with {ended.code}: {ended.last}")
    return found or bench.go_on(folder, form)


def holder_killed(bench: Bench, folder: Path, form: int) -> list[str]:
    """The lock of a process that was killed is taken at once."""
    child = bench.start([*bench.words(form), "--out", str(folder)])
    child.wait_for(lambda: (folder / "metrics.jsonl").is_file())
    child.send(signal.SIGKILL)
    child.wait()
    return bench.go_on(folder, form, shell=bench.by_shell(10, form))


def used_folder(bench: Bench, folder: Path, form: int) -> list[str]:
    """A folder with something in it is refused, and left as it is."""
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    before = tree(folder)
    ended = bench.run([*bench.words(form), "--out", str(folder)])
    found = [] if ended.code == 2 and str(folder) in ended.last else [f"ended with {ended.code}: {ended.last}"]
    return found + ([] if tree(folder) == before else ["files of another were touched"])


def not_writable(bench: Bench, folder: Path, form: int) -> list[str]:
    """A place where no folder can be made (a file stands where a folder should), or one that forbids it, is said."""
    folder.mkdir()
    (folder / "file").write_text("")
    if os.geteuid() != 0:  # root may write anywhere
        folder.chmod(0o500)
        places = [folder / "new", folder / "file" / "new"]
    else:
        places = [folder / "file" / "new"]
    found = []
    for place in places:
        ended = bench.run([*bench.words(form), "--out", str(place)])
        if ended.code != 2 or str(place) not in ended.last:
            found.append(f"--out {place.name} ended with {ended.code}: {ended.last}")
    folder.chmod(0o700)
    return found


KINDS = (started_together, resumed_while_running, holder_killed, used_folder, not_writable)
ROW = Row(10, "one writer a run folder", count, case)
