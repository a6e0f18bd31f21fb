"""Labelled tables as three sides with targets: class numbers, or real numbers for a regression.

Classes are the labels of the training rows, in the order of numbers where they are numbers. For a regression each label is one finite
number. A label of another side that no training row has is refused with the row's side.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from randommask.data.splits import fresh_rows, repeated, split_by_sequence
from randommask.data.tables import Table, read_table
from scarce_common_utils.errors import UserError

Task = Literal["classes", "regression"]
MOST_CLASSES: Final = 1000


class Side(NamedTuple):
    """Rows of one side: `sequences`, and `targets`, classes Int64[N] or numbers Float32[N]."""

    sequences: list[str]
    targets: Tensor


class Labelled(NamedTuple):
    """Three sides; `names` of the classes, empty for a regression; `split` says which rows went where, for split.json."""

    names: list[str]
    train: Side
    dev: Side
    test: Side
    split: dict[str, Any]

    @property
    def fresh(self) -> list[int]:
        """Test rows, the first of each sequence, that stand neither in train nor in dev."""
        return fresh_rows(self.test.sequences, self.train.sequences, self.dev.sequences)


def read_labelled(
    train: Path,
    *,
    dev: Path | None = None,
    test: Path | None = None,
    task: Task = "classes",
    columns: tuple[str, str] = ("sequence", "label"),
    seed: int = 0,
    source_name: str | None = None,
) -> Labelled:
    """Read the tables; what is not given is a tenth of `train` by distinct sequence.

    Args:
        train: table to learn from.
        dev: table to choose the epoch on.
        test: table to score on.
        task: classes, or one number a row.
        columns: names of the columns of letters and of labels.
        seed: of the division.
        source_name: how errors call `train`; its path by default.

    Raises:
        UserError: as `read_table`; too few rows to divide, labels that make no task, or labels of one side alone.
    """
    source = read_table(train, sequence_column=columns[0], label_column=columns[1])
    given = {
        name: read_table(path, sequence_column=columns[0], label_column=columns[1])
        for name, path in (("dev", dev), ("test", test))
        if path is not None
    }
    cut = [name for name in ("dev", "test") if name not in given]
    sides = [list(range(len(source.labels)))]
    if cut:
        try:
            sides = split_by_sequence(source.sequences, shares=(1 - 0.1 * len(cut), *[0.1] * len(cut)), seed=seed)
        except ValueError as error:
            raise UserError(f"{source_name or train}: {error}") from error
    rows = dict(zip(("train", *cut), sides, strict=True))
    tables = {name: source.rows(chosen) for name, chosen in rows.items()} | given
    names = label_names(tables["train"].labels) if task == "classes" else []
    found = {name: sided(name, tables[name], names) for name in ("train", "dev", "test")}
    if task == "regression" and float(found["train"].targets.std(correction=0)) == 0:
        raise UserError(f"All training rows have the label {tables['train'].labels[0]!r}. A regression needs several.")
    return Labelled(names, **found, split={"rows": rows} | overlaps(tables))


def overlaps(tables: dict[str, Table]) -> dict[str, dict[str, int]]:
    """Rows of each side, and how many stand on an earlier side too: keys `counts` and `repeated`."""
    also = {
        f"{late} rows also in {early}": repeated(tables[late].sequences, tables[early].sequences)
        for late, early in (("dev", "train"), ("test", "train"), ("test", "dev"))
    }
    return {"counts": {name: len(table.labels) for name, table in tables.items()}, "repeated": also}


def label_names(labels: Sequence[str]) -> list[str]:
    """Names of the classes, numbers in the order of numbers.

    Raises:
        UserError: fewer than two, or more than 1,000.
    """
    names = sorted(
        set(labels),
        key=lambda name: (not name.lstrip("-").isdigit(), int(name) if name.lstrip("-").isdigit() else 0, name),
    )
    if len(names) < 2:
        raise UserError(f"All training rows have the label {names[0]!r}. A classifier needs at least two labels.")
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"The training rows have {len(names)} different labels, such as {names[0]!r} and {names[1]!r}. Name the column of "
            "classes by --label-column, or give --task regression for numbers."
        )
    return names


def sided(side: str, rows: Table, names: Sequence[str]) -> Side:
    """Rows with targets: the numbers of their classes `names`, or real numbers where there are none.

    Raises:
        UserError: a label that no class has, or that is no finite number; it is named with `side`.
    """
    if not names:
        return Side(rows.sequences, torch.tensor([_number(side, label) for label in rows.labels], dtype=torch.float32))
    numbers = {label: number for number, label in enumerate(names)}
    unknown = next((label for label in rows.labels if label not in numbers), None)
    if unknown is not None:
        raise UserError(
            f"The {side} rows have the label {unknown!r}, which no training row has (those have {', '.join(names[:6])}). "
            "Take these rows out, or add some to the training table."
        )
    return Side(rows.sequences, torch.tensor([numbers[label] for label in rows.labels]))


def _number(side: str, label: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"The {side} rows have the label {label!r}, but a regression needs a finite number in each. Mend the row, or leave "
            "--task regression out for classes."
        )
    return value
