"""`show RUN RUN ...`: runs side by side, a column each: state, the options that differ, the numbers of their results.

    1  runs/imwa-digits-single-seed-0
    2  runs/imwa-digits-imwa-seed-0

                                1         2
    state                finished  finished
    ...
Nothing is written. More runs than 80 columns hold stand in several tables one below the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from scarce_common_utils.command_line import Operands
from scarce_common_utils.errors import UserError
from scarce_common_utils.run_reading import Run, is_number, read_run, step_of

COLUMNS = 80
NARROWEST, WIDEST = 9, 18  # of a column, in characters
LONGEST_LABEL = 28
_APART = ("out", "data_folder")  # say where files lie; the runs' own folders stand above the table
Rows = list[tuple[str, list[str]]]


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Options of `show`."""

    runs: Annotated[
        tuple[str, ...], Operands("RUN", "Folders of runs, of one or several commands of this program")
    ] = ()
    given: frozenset[str] = frozenset()


def compare(config: ShowConfig, *, package: str) -> dict[str, Any]:
    """Print the table, and return it as JSON values.

    Raises:
        UserError: no run was given, or one is missing or of another package; it is named.
    """
    if not config.runs:
        raise UserError(f"RUN is missing. Give the folders of runs: {package} show RUN RUN ...")
    runs = [read_run(Path(path), package=package, word="show") for path in config.runs]
    names = differing(runs)
    print("\n".join(f"{number}  {run.path}" for number, run in enumerate(runs, 1)))
    print("\n" + "\n\n".join(tables(runs, names)))
    if len(runs) > 1:
        print("\n" + ("Options that differ are listed, and these alone." if names else "No option differs."))
    return {
        "differing_options": names,
        "runs": [
            {
                "run": str(run.path),
                "command": f"{package} {run.command}",
                "state": run.state,
                "steps_done": run.done,
                "seconds": run.seconds,
                "options": {name: run.options.get(name) for name in names},
                "numbers": run.result.get("numbers", {}),
                "last": last_values(run),
            }
            for run in runs
        ],
    }


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the options that do not have one value in all runs; of runs of several commands those that all have."""
    every = [name for name in runs[0].options if all(name in run.options for run in runs)]
    if len({run.command for run in runs}) == 1:  # an option that an older version had not yet
        every = list(dict.fromkeys(name for run in runs for name in run.options))
    return [
        name
        for name in every
        if name not in _APART and any(run.options.get(name) != runs[0].options.get(name) for run in runs)
    ]


def last_values(run: Run) -> dict[str, float]:
    """The last finite value of each number of the metrics; its step is the last one logged or before."""
    found: dict[str, float] = {}
    for line in run.lines:
        found |= {
            name: value for name, value in line.items() if is_number(value) and name not in ("step", "learning_rate")
        }
    return found


def tables(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Tables of at most 80 columns that hold all runs.

    Args:
        runs: at least one.
        names: of the options to list.
    """
    rows = _rows(runs, names)
    label = min(max(len(name) for name, _ in rows), LONGEST_LABEL)
    widths = [min(max(NARROWEST, *(len(cells[number]) for _, cells in rows)), WIDEST) for number in range(len(runs))]
    found: list[str] = []
    start = 0
    while start < len(runs):
        stop = start + 1
        while stop < len(runs) and label + sum(width + 2 for width in widths[start : stop + 1]) <= COLUMNS:
            stop += 1
        lines = [_line("", [str(number + 1) for number in range(start, stop)], label, widths[start:stop])]
        lines += [_line(name, cells[start:stop], label, widths[start:stop]) for name, cells in rows]
        found.append("\n".join(lines))
        start = stop
    return found


def _rows(runs: Sequence[Run], names: Sequence[str]) -> Rows:
    rows: Rows = []
    if len({run.command for run in runs}) > 1:
        rows.append(("command", [run.command for run in runs]))
    rows.append(("state", [run.state for run in runs]))
    rows.append(("steps done", [f"{_steps(run):,}" for run in runs]))
    rows.append(("seconds", [_cell(run.seconds, digits=1) for run in runs]))
    rows += [("--" + name.replace("_", "-"), [_cell(run.options.get(name)) for run in runs]) for name in names]
    numbers = list(dict.fromkeys(name for run in runs for name in run.result.get("numbers", {})))
    units: dict[str, str] = {}
    for run in runs:
        units |= run.result.get("units", {})
    for name in numbers:
        values = [run.number(name) for run in runs]
        if name != "steps" and any(value is not None for value in values):
            rows.append(
                (name + (" %" if units.get(name, "").startswith("%") else ""), [_cell(value) for value in values])
            )
    if any(not run.result for run in runs):  # what an unfinished run has, beside the same of the others
        unfinished = dict.fromkeys(name for run in runs if not run.result for name in last_values(run))
        last = [last_values(run) for run in runs]
        rows += [
            (f"last {name}", [_cell(values.get(name)) for values in last]) for name in unfinished if _is_said(name)
        ]
    return rows


def _steps(run: Run) -> int:
    """Steps done: as logged, or of the newest checkpoint where metrics are not written at every step."""
    kept = step_of(run.checkpoints[0]) if run.checkpoints else 0
    return max(run.done, kept)


def _is_said(name: str) -> bool:
    """Whether a number of the metrics is of interest beside others; counts of single classes are not."""
    return not name.startswith("used_of_class_") and name not in ("episode", "replica", "global_step", "grad_norm")


def _cell(value: Any, *, digits: int | None = None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}f}" if digits is not None else f"{value:.4g}"
    if isinstance(value, list):
        return ",".join(map(_cell, value)) or "-"
    return str(value)


def _line(name: str, cells: Sequence[str], label: int, widths: Sequence[int]) -> str:
    parts = [_cut(cell, width).rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join([_cut(name, label).ljust(label), *parts]).rstrip()


def _cut(text: str, width: int) -> str:
    """The end of a text that is too long: paths differ there."""
    return text if len(text) <= width else ".." + text[2 - width :]
