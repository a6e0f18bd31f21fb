"""`doctor RUN`: what is wrong with a run, in words: what was seen, the likely cause, what to try.

A method brings its own symptoms; here are those of every run, the frame and the print. A symptom is a hint from numbers, no proof,
and where nothing was seen, only what was looked at was fine. Nothing is written, and the exit code is 0 whatever is found.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from scarce_common_utils.command_line import Operands
from scarce_common_utils.errors import UserError
from scarce_common_utils.run_reading import Run, is_number, read_run, step_of

LEAST_LINES = 8  # of metrics: of fewer no course is told; the commands write a hundred a run
SHARE_OF_COURSE = 0.2  # at either end of a run that is compared: twenty of its hundred readings
# A loss that ends less than this below its beginning counts as not falling. On the built-in digits it loses 53 % within 60 steps of
# layermatch and 78 % within 100 of imwa.
LEAST_FALL = 0.05
COLUMNS = 80


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Options of `doctor`."""

    run: Annotated[str | None, Operands("RUN", "Folder of a run: finished, stopped, or still going on")] = None
    given: frozenset[str] = frozenset()


class Symptom(NamedTuple):
    """Something wrong: a short `name`, what was `seen` with its numbers, the likely `cause`, and what to `try_`."""

    name: str
    seen: str
    cause: str
    try_: str


def examine(
    config: DoctorConfig,
    *,
    package: str,
    symptoms: Mapping[str, Callable[[Run], list[Symptom]]],
    looked_at: Sequence[str],
) -> dict[str, Any]:
    """Read the run, print its symptoms, and return them as JSON values.

    Args:
        config: as parsed.
        package: whose runs are known.
        symptoms: command -> what it finds in a run.
        looked_at: what these look at, in words, for a run in which nothing is found.

    Raises:
        UserError: no run was given, or none of this package is there.
    """
    if config.run is None:
        raise UserError(f"RUN is missing. Give the folder of a run: {package} doctor RUN")
    run = read_run(Path(config.run), package=package, word="doctor")
    found = [*of_any_run(run), *symptoms.get(run.command, lambda run: [])(run)]
    everything = ["state", "checkpoints", "versions", "numbers that are not finite", *looked_at]
    print(in_words(run, found, looked_at=everything))
    return {
        "run": str(run.path),
        "command": f"{package} {run.command}",
        "state": run.state,
        "steps_done": run.done,
        "symptoms": [{"name": one.name, "seen": one.seen, "cause": one.cause, "try": one.try_} for one in found],
        "looked_at": everything,
    }


def in_words(run: Run, found: Sequence[Symptom], *, looked_at: Sequence[str]) -> str:
    """The printed report, at most 80 columns."""
    reached = f"{run.state}, {run.done:,} steps logged" if run.lines else run.state
    parts = [f"{run.path}\n{run.package} {run.command}, {reached}"]
    for number, symptom in enumerate(found, 1):
        rows = (("seen", symptom.seen), ("cause", symptom.cause), ("try", symptom.try_))
        body = "\n".join(_filled(text, head=f"   {head:<7}") for head, text in rows)
        parts.append(f"{number}. {symptom.name}\n{body}")
    if not found:
        parts.append(_filled(f"Nothing wrong was seen. Looked at: {', '.join(looked_at)}.", head=""))
    if run.lines and len(run.lines) < LEAST_LINES:
        told = f"Too few readings to tell a course from: {len(run.lines)}, and {LEAST_LINES} are needed."
        parts.append(_filled(told, head=""))
    return "\n\n".join(parts)


def of_any_run(run: Run) -> list[Symptom]:
    """What may be wrong with a run of any method."""
    found = [_unfinished(run), *_damaged(run), _broken_lines(run), _not_finite(run), _versions(run)]
    return [symptom for symptom in found if symptom is not None]


def ends(values: Sequence[float]) -> tuple[float, float] | None:
    """Means over the first and the last fifth of a course; None where it has too few values."""
    if len(values) < LEAST_LINES:
        return None
    some = max(1, round(SHARE_OF_COURSE * len(values)))
    return sum(values[:some]) / some, sum(values[-some:]) / some


def last_fifth(lines: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The lines at the end of a course; none where it has too few."""
    return lines[-max(1, round(SHARE_OF_COURSE * len(lines))) :] if len(lines) >= LEAST_LINES else []


def flat_loss(run: Run, name: str, *, called: str, try_: str) -> Symptom | None:
    """A loss that does not fall.

    Args:
        run: finished or not.
        name: of the number in metrics.jsonl.
        called: what it is called in the sentence.
        try_: what helps with this method.
    """
    found = ends(run.values(name))
    if found is None or found[1] <= found[0] * (1 - LEAST_FALL):
        return None
    first, last = found
    return Symptom(
        "The training loss does not fall",
        f"{called} is {last:.3g} nats in the mean of the last fifth of the readings, and was {first:.3g} in the first fifth.",
        "The learning rate is too high (the loss jumps) or too low (it stays), the run is too short, or the labels have nothing to "
        "do with the data.",
        try_,
    )


def _unfinished(run: Run) -> Symptom | None:
    state = run.state
    if state == "finished":
        return None
    kept = (
        f"the newest checkpoint is of step {step_of(run.checkpoints[0]):,}"
        if run.checkpoints
        else "no checkpoint is there"
    )
    total = run.options.get("steps")
    seen = f"{run.done:,} steps are logged" + (f" (--steps {total:,})" if isinstance(total, int) else "") + f"; {kept}."
    go_on = f"{run.package} {run.command} --resume {run.path}"
    if state == "running":
        return Symptom(
            "The run is still going on",
            f"Process {run.process} holds the folder. {seen}",
            "It is at work, or it hangs: a run writes a line of metrics a hundred times.",
            f"Wait. If metrics.jsonl no longer grows, stop the process (kill {run.process}) and go on: {go_on}",
        )
    if state == "killed":
        return Symptom(
            "The run was killed",
            f"Process {run.process} held the folder, is gone, and did not give it back. {seen}",
            "kill -9, memory that ran out (the system's log names such processes), or the machine went down. A run on another machine "
            "that shares this folder looks the same from here.",
            f"{go_on}  (for less memory first see `{run.package} check`)",
        )
    return Symptom(
        "The run was stopped before its end",
        seen,
        "A signal (Ctrl-C, kill, a scheduler) or an error that it told on standard error.",
        go_on,
    )


def _damaged(run: Run) -> list[Symptom]:
    if not run.checkpoints:
        return []
    from scarce_common_utils.checkpoints import verify  # loads torch

    told: list[str] = []
    for path in run.checkpoints:
        try:
            verify(path)
        except (UserError, OSError) as error:
            told.append(str(error))
    if not told:
        return []
    left = len(run.checkpoints) - len(told)
    go_on = (
        "--resume passes it over and takes the newest that is whole. Remove it."
        if left
        else "No checkpoint is whole, so the run begins at its first step again on --resume. A finished model/ is not touched by this."
    )
    return [
        Symptom(
            "A checkpoint is damaged",
            f"Of {len(run.checkpoints)} checkpoints {len(told)}: {told[0]}",
            "It was changed or copied in part after it was written: a checkpoint of ours is renamed into place whole. A failing disk "
            "does this too.",
            go_on,
        )
    ]


def _broken_lines(run: Run) -> Symptom | None:
    if not run.broken_lines:
        return None
    return Symptom(
        "metrics.jsonl cannot be read in part",
        f"No JSON with a step: line {_few(run.broken_lines)}.",
        "The file was edited, or two programs wrote into it.",
        "Figures and numbers below leave these lines out. To write them anew, remove them and --resume from a checkpoint before.",
    )


def _not_finite(run: Run) -> Symptom | None:
    """Numbers that were infinite or no numbers, which metrics.jsonl holds as null."""
    found = [(line["step"], name) for line in run.lines for name, value in line.items() if value is None]
    if not found:
        return None
    step, name = found[0]
    return Symptom(
        "Numbers were not finite",
        f"Infinite or no number, {len(found)} times: first {name} at step {step:,}.",
        "The training diverged: a learning rate that is too high, half precision that overflows, or a broken input.",
        "Lower --learning-rate, compute in --precision float32, and look at the data with `check`.",
    )


def _versions(run: Run) -> Symptom | None:
    here = {}
    for name, before in run.versions.items():
        try:
            now = metadata.version(name)
        except metadata.PackageNotFoundError:
            now = "none"
        if now != before:
            here[name] = (before, now)
    if not here:
        return None
    told = ", ".join(f"{name} {before} (here {now})" for name, (before, now) in here.items())
    return Symptom(
        "Versions differ from those here",
        f"The run began with {told}.",
        "Something was installed since, or the run comes from another environment.",
        "Its numbers stand. A resumed run need not end with the same bits under other versions: go on in the old environment, or "
        "compare runs of one environment alone.",
    )


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def _filled(text: str, *, head: str) -> str:
    """Lines of at most 80 columns; paths and commands stay whole."""
    return textwrap.fill(
        text,
        COLUMNS,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


__all__ = [
    "LEAST_LINES",
    "DoctorConfig",
    "Run",
    "Symptom",
    "ends",
    "examine",
    "flat_loss",
    "is_number",
    "last_fifth",
    "of_any_run",
]
