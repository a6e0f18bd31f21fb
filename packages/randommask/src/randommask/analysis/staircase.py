"""The staircase of a pretraining loss: each phase beside its own floor, and the jump at each boundary beside the floors' jump.

    opening   mean loss of the first log lines that lie wholly in a phase        closing   of its last ones
    excess    closing - floor: what is left to learn at this width
    jump      opening of a phase - closing of the phase before                   floor jump   difference of the two floors

A mask that widens hides more bases, so the loss of even a perfect model jumps at a boundary by about the floors' difference;
what falls inside a phase is learning. A model that has learned nothing yet stands at the ceiling, whatever the width, and does not
jump. LOSSES OF DIFFERENT WIDTHS ARE NOT COMPARED: each stands beside the floor of its own width; to compare over a run, or two
runs, take the held-out loss at one fixed width.

Source    the jumps are described in a public review of RandomMask (arXiv 2310.07644); floors and these definitions are ours.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

LINES: Final = 3  # log lines that an opening or a closing is the mean of, at most


class Step(NamedTuple):
    """One phase of the schedule: `width` in tokens, `first` optimizer step, `floor` in nats a masked token."""

    width: int
    first: int
    floor: float


class PhaseLoss(NamedTuple):
    """A phase as the log shows it; what it does not show yet is None."""

    width: int
    first: int
    stop: int  # the step that begins the next phase, or the end of the run
    floor: float
    lines: int
    opening: float | None
    closing: float | None
    excess: float | None
    jump: float | None
    floor_jump: float | None


class Line(NamedTuple):
    """A log line: the mean `loss` of the steps [`first`, `stop`)."""

    first: int
    stop: int
    loss: float


def log_lines(metrics: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Lines of metrics.jsonl with their reach: each is a mean since the line before it; a loss that is no number is left out."""
    lines, first = [], 0
    for entry in metrics:
        stop = int(entry["step"]) + 1
        loss = entry.get("loss")
        if loss is not None:  # null: the log holds no other number that is none
            lines.append(Line(first, stop, float(loss)))
        first = stop
    return lines


def staircase(lines: Sequence[Line], steps: Sequence[Step], *, total_steps: int) -> list[PhaseLoss]:
    """Loss by phase; lines that reach over a boundary mix two widths and are in no phase.

    Args:
        lines: of the log, in order.
        steps: phases in order, the first at step 0.
        total_steps: of the run.

    Raises:
        ValueError: no phase, or one that does not begin behind the one before.

    Example:
        >>> lines = [Line(0, 5, 3.0), Line(5, 10, 1.5), Line(10, 15, 4.0), Line(15, 20, 3.5)]
        >>> first, second = staircase(lines, [Step(6, 0, 1.0), Step(8, 10, 2.0)], total_steps=20)
        >>> first.excess, second.jump, second.floor_jump, second.excess
        (0.5, 2.5, 1.0, 1.5)
    """
    starts = [step.first for step in steps]
    if not steps or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
        raise ValueError(f"Phases begin at steps {starts}; the first begins at 0 and each other behind the one before.")
    found: list[PhaseLoss] = []
    for number, (step, stop) in enumerate(zip(steps, [*starts[1:], total_steps], strict=True)):
        losses = [line.loss for line in lines if line.first >= step.first and line.stop <= stop]
        few = min(LINES, (len(losses) + 1) // 2)  # so that opening and closing share one line at most
        opening = math.fsum(losses[:few]) / few if few else None
        closing = math.fsum(losses[-few:]) / few if few else None
        before = found[-1] if number else None
        jump = None
        if before is not None and before.closing is not None and opening is not None:
            jump = opening - before.closing
        found.append(
            PhaseLoss(
                step.width,
                step.first,
                stop,
                step.floor,
                len(losses),
                opening,
                closing,
                None if closing is None else closing - step.floor,
                jump,
                None if before is None else step.floor - before.floor,
            )
        )
    return found
