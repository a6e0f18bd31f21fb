"""Row 11: a resume with other settings, data or checkpoints, or a load of another model: refused with what differs, nothing touched.

Three groups. Options of the command that would change the result (`Job.refusals`). Files of the run folder that are another command's, a
newer version's, of other data, cut, or gone. Checkpoints, whole by their digests, and the model folder, whose tensors or words are
another run's: head, names, shapes, dtypes, vocabulary, order of classes, format (`faults.strangers`).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.bench import Bench, Row
from faults.comparing import tree
from faults.strangers import STRANGERS

Change = Callable[[Path], str]


def count(bench: Bench, size: str) -> int:
    """40 and some over the three packages, in both sizes."""
    return len(bench.job.refusals) + len(CHANGES) + len(STRANGERS[bench.job.package])


def case(bench: Bench, number: int) -> list[str]:
    """One thing changed, in a copy of the whole run."""
    folder = bench.folder(f"changed-{number}")
    shutil.copytree(bench.whole(0)[0], folder)
    words, wanted = [bench.job.words[0], "--resume", str(folder)], ""
    options, place = len(bench.job.refusals), number - len(bench.job.refusals)
    if place < len(CHANGES):
        (folder / "result.json").unlink()  # or a finished run has nothing to load for
    if number < options:
        more, wanted = bench.job.refusals[number]
        words += more
    elif place < len(CHANGES):
        wanted = CHANGES[place](folder)
    else:
        stranger = STRANGERS[bench.job.package][place - len(CHANGES)]
        wanted = stranger.change(folder).removeprefix("bert.")  # an encoder's names are without
        words = [word.format(run=folder) for word in stranger.words]
    before = tree(folder)
    ended = bench.shell(words) if bench.by_shell(11, number) else bench.run(words)
    found, what = [], " ".join(words[:1] + words[3:]) if number < options else f"{words[0]}, {wanted!r}"
    if ended.code != 2 or wanted not in ended.said:
        found.append(f"{what}: ended with {ended.code}: {ended.last}")
    if (after := tree(folder)) != before:
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        found.append(f"{what}: the run folder was touched: {', '.join(names[:5])}")
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


CHANGES: tuple[Change, ...] = (other_command, unknown_option, other_data, no_json, no_folder)
ROW = Row(11, "other settings, data or format on resume and load", count, case)
