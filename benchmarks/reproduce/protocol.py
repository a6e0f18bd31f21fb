"""What a reproduction is made of: arms (what differs), experiments (on what, how many seeds), scales (which experiments), numbers.

`reproduce/<package>/arms.py` holds `ARMS: dict[str, Arm]`, `NUMBERS: tuple[Number, ...]`, `BASELINE: str` (the arm that the
others are compared with) and, where a run also measures a floor or a simple rival, `REFERENCES: tuple[Reference, ...]`; where a
command lives in this folder and not in the package, `OWN: dict[str, Callable[[Sequence[str]], int]]`: its name -> its main. `SHARED:
tuple[str, ...]` names commands whose run serves every experiment that has the same words up to it (one pretraining, many tasks), and
`closing(experiments, records) -> str` writes what stands below all tables.
`reproduce/<package>/scales.py` holds `SCALES: dict[str, Scale]` with the keys smoke, quickstart, cpu, cpu-full and paper.
`reproduce/<package>/data.py`, where data are made or cut to size first, holds `PREPARED: dict[str, Recipe]`.

An arm is one or several command lines of the package, run in order with the seed and a run folder each. The words of a
command may hold `{data}` (the folder given by --data), `{prepared}` (the file that the experiment's recipe made), `{first}` (the
run folder of the arm's first command), `{package}` (the folder of the installed package) and `{seed}`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Arm(NamedTuple):
    """One way of doing it.

    Attributes:
        commands: for each command line the words after the program's name, such as `(("train", "--method", "fixmatch"),)`.
        cost: optimizer steps in units of the baseline's (randommask: of pretraining).
        steps_factor: the scale's steps are multiplied by it (a control that runs M times longer).
        note: one short sentence for the table, such as `M times the steps`.
        without: options, each with one value, of the experiment's words that this arm's method refuses.
    """

    commands: tuple[tuple[str, ...], ...]
    cost: float = 1.0
    steps_factor: int = 1
    note: str = ""
    without: tuple[str, ...] = ()


class Experiment(NamedTuple):
    """On what, how long, how often.

    Attributes:
        name: of the experiment in its records, such as `digits-40-labels`.
        arms: names of the arms.
        seeds: one run of each arm a seed.
        words: command name -> words added to each of its command lines (data, model, batch size).
        steps: command name -> `--steps`; a command that is not named keeps its own.
        note: what it is, whose settings they are ("ours" where they are).
        files: paths below the folder of --data that it reads; `reproduce/data_files.py` has their digests.
        prepared: name of the recipe whose file `{prepared}` stands for.
        baseline: what its arms are compared with, instead of the package's.
        commands: of its arms' commands those that run; all if empty.
        numbers: names of the numbers that its table shows; all that were measured if empty.
        trial: what runs in its place with --generated: the same commands on made images, named so.
    """

    name: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    words: dict[str, tuple[str, ...]]
    steps: dict[str, int]
    note: str
    files: tuple[str, ...] = ()
    prepared: str = ""
    baseline: str = ""
    trial: "Experiment | None" = None
    commands: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


class Scale(NamedTuple):
    """The `experiments` that run, and a `note` on all of them."""

    experiments: tuple[Experiment, ...]
    note: str = ""


class Recipe(NamedTuple):
    """How a file of data is made; whoever changes what it makes gives it another name, or old records would seem to fit.

    Attributes:
        make: (folder of --data or None, seed, file to write) -> None.
        suffix: of the file.
        every_seed: whether each seed gets a file of its own.
    """

    make: Callable[[Path | None, int, Path], None]
    suffix: str = ".npz"
    every_seed: bool = True


class Number(NamedTuple):
    """A number of result.json that the table shows: its `name` there, a short `label`, its `unit`, and how many decimals."""

    name: str
    label: str
    unit: str = ""
    decimals: int = 1


class Reference(NamedTuple):
    """A row that is no arm: the `row` name, and the `number` of result.json that stands in the column of `column`'s label."""

    row: str
    number: str
    column: str
