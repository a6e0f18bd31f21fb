"""Row 11: a resume with other settings or data, of another command, a newer version, or no run at all: refused by name, nothing touched."""

import json
import shutil
from pathlib import Path
from typing import Any

from faults.bench import Bench, Row
from faults.comparing import tree


def count(bench: Bench, size: str) -> int:
    """Other options, then other files."""
    return len(bench.job.refusals) + len(CHANGES)


def case(bench: Bench, number: int) -> list[str]:
    """One thing changed, in a copy of the whole run."""
    folder = bench.folder(f"changed-{number}")
    shutil.copytree(bench.whole(0)[0], folder)
    (folder / "result.json").unlink()  # or a finished run has nothing to load for
    words, wanted = [bench.job.words[0], "--resume", str(folder)], ""
    if number < len(bench.job.refusals):
        options, wanted = bench.job.refusals[number]
        words += options
    else:
        wanted = CHANGES[number - len(bench.job.refusals)](folder)
    before = tree(folder)
    ended = bench.shell(words) if number == 0 else bench.run(words)
    found = []
    if ended.code != 2 or wanted not in ended.said:
        found.append(f"{words[3:]} or {wanted!r} ended with {ended.code}: {ended.last}")
    if tree(folder) != before:
        found.append(f"{wanted!r}: the run folder was touched")
    return found


def other_command(folder: Path) -> str:
    """The folder is of another command."""
    _edit(folder / "config.json", lambda content: content | {"command": "evaluate"})
    return "is a run of"


def unknown_option(folder: Path) -> str:
    """A newer version's option."""
    _edit(folder / "config.json", lambda content: content | {"options": content["options"] | {"of_tomorrow": 1}})
    return "'of_tomorrow'"


def other_data(folder: Path) -> str:
    """The data are not those of the run's beginning."""
    _edit(folder / "split.json", lambda content: content | {"of_yesterday": 1})
    return "split.json"


def no_json(folder: Path) -> str:
    """A configuration that is cut."""
    path = folder / "config.json"
    path.write_bytes(path.read_bytes()[:40])
    return "config.json"


def no_folder(folder: Path) -> str:
    """No run folder at all."""
    shutil.rmtree(folder)
    folder.mkdir()
    return "config.json"


def _edit(path: Path, change: Any) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


CHANGES = (other_command, unknown_option, other_data, no_json, no_folder)
ROW = Row(11, "other settings, data or format on resume", count, case)
