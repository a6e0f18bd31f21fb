"""Data of randommask's experiments: splice junctions cut into three sides, with all labels or few, and made inputs for trials.

A recipe makes a folder. Splice junctions: 70 / 10 / 20 % by distinct sequence, so that no sequence stands on two sides; of few labels the
training rows are drawn from those of the whole set, dev and test are the same. Made inputs have the shapes of the real ones (bases,
classes, number of tasks) and random letters.
"""

import csv
from functools import partial
from pathlib import Path

import torch

from randommask.data.gue import TASKS
from randommask.data.splits import split_by_sequence
from randommask.data.tables import Table, read_table
from randommask.sample import SPLICE_JUNCTIONS, sample_path
from reproduce.protocol import Recipe
from scarce_common_utils.streams import stream

SHARES = (0.7, 0.1, 0.2)
SIDES = ("train", "dev", "test")
# Bases and classes of GUE's families; the other tasks are as their family's.
SHAPES = {
    "EMP": (500, 2),
    "prom_300": (300, 2),
    "prom_core": (70, 2),
    "tf": (101, 2),
    "mouse": (101, 2),
    "splice": (400, 3),
    "virus": (1000, 9),
}
_ROWS = {"train": 18, "dev": 4, "test": 4}  # train holds every class


def splice(data: Path | None, seed: int, folder: Path, *, labels: int | None = None) -> None:
    """UCI splice junctions as train.csv, dev.csv and test.csv, with `labels` training rows or all; they ship with the package."""
    rows = read_table(sample_path(SPLICE_JUNCTIONS))
    sides = split_by_sequence(rows.sequences, shares=SHARES, seed=seed)
    if labels is not None:
        order = torch.randperm(len(sides[0]), generator=stream(seed, "split", "few labels"))
        sides[0] = [sides[0][place] for place in order[:labels].tolist()]
    for name, chosen in zip(SIDES, sides, strict=True):
        _write(folder / f"{name}.csv", rows.rows(chosen))


def made(data: Path | None, seed: int, folder: Path) -> None:
    """genome.fa of three records, and gue/ with all 28 tasks, of random letters."""
    generator = stream(seed, "split", "made")
    folder.mkdir(parents=True, exist_ok=True)
    records = (f">made{number}\n{_letters(40_000, generator)}\n" for number in range(3))
    (folder / "genome.fa").write_text("".join(records), encoding="utf-8")
    for task in TASKS:
        bases, classes = next(shape for family, shape in SHAPES.items() if family in task)
        for side, count in _ROWS.items():
            sequences = [_letters(bases, generator) for _ in range(count)]
            _write(
                folder / "gue" / task / f"{side}.csv", Table(sequences, [str(row % classes) for row in range(count)])
            )


def _letters(count: int, generator: torch.Generator) -> str:
    return "".join("ACGT"[base] for base in torch.randint(0, 4, (count,), generator=generator).tolist())


def _write(path: Path, rows: Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("sequence", "label"))
        writer.writerows(zip(rows.sequences, rows.labels, strict=True))


PREPARED = {
    "splice": Recipe(splice, suffix=""),
    "splice-256": Recipe(partial(splice, labels=256), suffix=""),
    "made-genome-and-gue": Recipe(made, suffix="", every_seed=False),
}
