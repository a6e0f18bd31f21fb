"""GUE: 28 tasks of sequence classification, where their files lie, and how each was trained as published.

    FOLDER/<family>/<task>/{train,dev,test}.<csv, tsv or parquet, compressed or not>

A task whose train file is absent is "reduced": trained on a share of dev, its epoch chosen on the rest, tested on test. It runs only when
asked for, and every table says so, since its score compares with nothing published.

Source    DNABERT-2's scripts (run_dnabert1.sh, run_dnabert2.sh, train.py): AdamW, learning rate 3e-5, global batch 32, weight decay 0.01,
          linear decay; the checkpoint of the lowest dev loss is scored once on test. Ours: sequences longer than the model are cut and
          pooled (Covid), the batch is 32 for Covid too, dropout as the model has it.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from randommask.data.labelled import Labelled, Side, label_names, overlaps, sided
from randommask.data.splits import split_by_sequence
from randommask.data.tables import read_table
from scarce_common_utils.errors import UserError

LEARNING_RATE: Final = 3e-5
BATCH: Final = 32
_SUFFIXES: Final = tuple(
    kind + packed for kind in (".csv", ".tsv", ".parquet") for packed in ("", ".gz", ".bz2", ".xz")
)
_REDUCED_SHARES: Final = (0.8, 0.2)  # of dev: to train on, and to choose the epoch on; ours


class GueTask(NamedTuple):
    """A task's published recipe: `epochs`, or `steps` in their place; `warm_up` and `evaluate_every` in steps; its metric."""

    name: str
    epochs: int
    steps: int | None
    warm_up: int
    evaluate_every: int
    metric: Literal["mcc", "f1"] = "mcc"


def _tasks() -> dict[str, GueTask]:
    marks = ("H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac")
    tasks = [GueTask(f"EMP/{mark}", 3, None, 50, 200) for mark in marks]
    for stem in ("prom_300", "prom_core"):
        tasks += [GueTask(f"prom/{stem}_{part}", 4, None, 50, 400) for part in ("all", "notata")]
        tasks.append(GueTask(f"prom/{stem}_tata", 10, None, 50, 200))
    tasks += [GueTask(f"tf/{number}", 3, None, 30, 200) for number in range(5)]
    tasks += [GueTask(f"mouse/{number}", 5, 1000, 30, 200) for number in range(5)]  # 1,000 steps override the 5 epochs
    tasks.append(GueTask("splice/reconstructed", 5, None, 50, 200))
    tasks.append(GueTask("virus/covid", 9, None, 50, 200, "f1"))
    return {task.name: task for task in tasks}


TASKS: Final[dict[str, GueTask]] = _tasks()


class GueData(NamedTuple):
    """A task's rows; `reduced` if trained on dev."""

    task: GueTask
    data: Labelled
    reduced: bool

    @property
    def title(self) -> str:
        """The task's name, marked where it is reduced."""
        return self.task.name + (" (reduced)" if self.reduced else "")


def choose_tasks(folder: Path, names: Sequence[str] = (), *, reduced: bool = False) -> tuple[list[str], list[str]]:
    """Names of the tasks to run, and of those that are left out because their train file is absent.

    Args:
        folder: GUE's.
        names: asked for, such as `tf/0` or `prom_core_tata`; none asks for all that have files.
        reduced: whether tasks without a train file are run on dev.

    Raises:
        UserError: no folder, no task in it, an unknown name, or a task asked for without the files it needs.
    """
    if not folder.is_dir():
        raise UserError(
            f"--data is {folder}, which is no folder. Give the folder that holds EMP, prom, tf, mouse, splice or virus."
        )
    present = {name: {stem for stem in ("train", "dev", "test") if _file(folder, name, stem)} for name in TASKS}
    wanted = [_full_name(name) for name in names] or [name for name in TASKS if {"dev", "test"} <= present[name]]
    if not wanted:
        raise UserError(f"--data is {folder}, which holds no task, such as {folder / 'tf' / '0' / 'test.csv'}.")
    for name in wanted:
        lacking = {"dev", "test"} - present[name]
        if lacking:
            raise UserError(
                f"The task {name} has no {min(lacking)} file in {folder / name}. Add it, or leave the task out."
            )
        if names and "train" not in present[name] and not reduced:
            raise UserError(
                f"The task {name} has no train file in {folder / name}. With --reduced it is trained on dev and named so, or leave it out."
            )
    left_out = [name for name in wanted if "train" not in present[name] and not reduced]
    chosen = [name for name in wanted if name not in left_out]
    if not chosen:
        raise UserError(
            f"--data is {folder}, where no task has a train file. With --reduced they are trained on dev and named so."
        )
    return chosen, left_out


def read_task(folder: Path, name: str) -> GueData:
    """Rows of a task, reduced where it has no train file.

    Raises:
        UserError: as `read_labelled`; a label of dev or test that no training row has.
    """
    found = {stem: _file(folder, name, stem) for stem in ("train", "dev", "test")}
    files = {stem: read_table(path) for stem, path in found.items() if path is not None}
    tables = dict(files)
    if "train" not in tables:
        parts = split_by_sequence(tables["dev"].sequences, shares=_REDUCED_SHARES, seed=0)
        tables |= {"train": tables["dev"].rows(parts[0]), "dev": tables["dev"].rows(parts[1])}
    names = label_names(tables["train"].labels)
    sides: dict[str, Side] = {stem: sided(stem, tables[stem], names) for stem in ("train", "dev", "test")}
    data = Labelled(names, sides["train"], sides["dev"], sides["test"], overlaps(tables))
    return GueData(TASKS[name], data, "train" not in files)


def _file(folder: Path, name: str, stem: str) -> Path | None:
    paths = (folder / name / f"{stem}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _full_name(name: str) -> str:
    if name in TASKS:
        return name
    ends = [task for task in TASKS if task.split("/")[1] == name and not name.isdigit()]
    if ends:
        return ends[0]
    near = difflib.get_close_matches(name, [*TASKS, *(task.split("/")[1] for task in TASKS)], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the tasks are {', '.join(list(TASKS)[:3])}, ..."
    raise UserError(f"--tasks names {name!r}, which is no task of GUE; {hint}")
