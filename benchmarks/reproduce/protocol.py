"""What a reproduction is made of: arms (what differs), scales (how large, how many seeds), numbers (what is reported).

`reproduce/<package>/arms.py` holds `ARMS: dict[str, Arm]`, `NUMBERS: tuple[Number, ...]`, `BASELINE: str` (the arm that the
others are compared with) and, where a run also measures a floor or a simple rival, `REFERENCES: tuple[Reference, ...]`.
`reproduce/<package>/scales.py` holds `SCALES: dict[str, Scale]` with the keys smoke, quickstart, cpu and paper.

An arm is one or several command lines of the package, run in order with the seed and a run folder each. The words of a
command may hold `{data}` (the folder given by --data), `{first}` (the run folder of the arm's first command) and `{seed}`.
"""

from typing import NamedTuple


class Arm(NamedTuple):
    """One way of doing it.

    Attributes:
        commands: for each command line the words after the program's name, such as `(("train", "--method", "fixmatch"),)`.
        cost: optimizer steps in units of the baseline's (randommask: of pretraining).
        steps_factor: the scale's steps are multiplied by it (a control that runs M times longer).
        note: one short sentence for the table, such as `M times the steps`.
        without: options, each with one value, of the scale's words that this arm's method refuses.
    """

    commands: tuple[tuple[str, ...], ...]
    cost: float = 1.0
    steps_factor: int = 1
    note: str = ""
    without: tuple[str, ...] = ()


class Scale(NamedTuple):
    """How large.

    Attributes:
        experiment: name of the experiment in its records, such as `digits-40-labels`.
        arms: names of the arms run at this scale.
        seeds: one run of each arm a seed.
        words: command name -> words added to each of its command lines (data, model, batch size).
        steps: command name -> `--steps`; a command that is not named keeps its own.
        note: what it is, whose settings they are ("ours" where they are).
        needs_data: whether --data must be given.
    """

    experiment: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    words: dict[str, tuple[str, ...]]
    steps: dict[str, int]
    note: str
    needs_data: bool = False


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
