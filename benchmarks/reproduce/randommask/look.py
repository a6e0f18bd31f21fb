"""`look --run FOLDER`: what a finished pretraining did on its way, from its log alone.

    masked share    mean over the logged steps, beside its closed form for full windows (a drift would be a masking bug)
    hidden bases    a masked token, over the same steps
    staircase       at each phase: loss just behind the boundary minus loss just before it, beside the difference of the floors

The jump is measured over two lines of the log on either side, in which the model goes on learning: it comes out a little too small.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from randommask.identities import loss_floor, masked_share
from randommask.methods import METHODS, Masking
from randommask.schedule import MaskSchedule, Phase
from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record, write_record

_LINES = 2  # of the log, on either side of a boundary


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Options of the look."""

    run: Annotated[Path, Option("Finished run folder of `randommask pretrain`")]
    out: Annotated[Path, Option("Folder for result.json")]
    seed: Annotated[int, Option("Seed of the record", at_least=0)] = 0
    given: frozenset[str] = frozenset()


def look(config: LookConfig) -> None:
    """Masked share, hidden bases and staircase of a pretraining."""
    began = time.monotonic()
    try:
        content = json.loads((config.run / "config.json").read_text(encoding="utf-8"))
        text = (config.run / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{config.run} cannot be read ({error}); is it the folder of a finished run?") from error
    options = content.get("options", content)
    masking, steps = masking_of(options), int(options["steps"])
    numbers = realised(lines) | staircase(lines, masking, k=options["k"])
    if options["windows"] == "full":
        numbers["masked_share_closed"] = 100 * closed_share(masking, steps=steps, tokens=options["tokens"])
    write_record(
        config.out / "result.json",
        Record(
            experiment="randommask-look",
            arm=options["method"],
            seed=config.seed,
            numbers=numbers,
            units=dict.fromkeys(numbers, "nats")
            | {"masked_share_training": "%", "masked_share_closed": "%", "hidden_bases_training": "bases"},
            versions={name: metadata.version(name) for name in ("randommask", "scarce-common-utils")},
            seconds=time.monotonic() - began,
        ),
    )
    print("  ".join(f"{name} {value:.3f}" for name, value in numbers.items() if value is not None))


def masking_of(options: dict[str, Any]) -> Masking:
    """The masking that a run's options name."""
    widths, milestones = (
        None if options[name] is None else tuple(int(part) for part in options[name].split(","))
        for name in ("widths", "milestones")
    )
    schedule = MaskSchedule(k=options["k"], widths=widths, milestones=milestones, total_steps=options["steps"])
    masking = METHODS[options["method"]](schedule)
    return masking if options["probability"] is None else masking._replace(probability=options["probability"])


def realised(lines: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Masked share in percent and hidden bases a masked token, over all lines of a log (each of as many steps)."""
    shares = [line["masked_share"] for line in lines]
    hidden = math.fsum(line["masked_share"] * line["hidden_bases"] for line in lines)
    return {
        "masked_share_training": 100 * math.fsum(shares) / len(shares),
        "hidden_bases_training": hidden / max(math.fsum(shares), 1e-12),
    }


def closed_share(masking: Masking, *, steps: int, tokens: int) -> float:
    """Expected masked share of a run of full windows."""
    schedule = masking.schedule
    phases = phases_of(masking)
    ends = [*(first for _, first in phases[1:]), steps]
    total = 0.0
    for (width, first), end in zip(phases, ends, strict=True):
        drawn = schedule.draw_from(first) if isinstance(schedule, MaskSchedule) else width
        total += (end - first) * masked_share(drawn, probability_at(masking, width), tokens=tokens)
    return total / steps


def staircase(lines: Sequence[dict[str, Any]], masking: Masking, *, k: int) -> dict[str, float | None]:
    """`jump_8` and `floor_jump_8` for each phase but the first that the log resolves: of the loss, and of the floor in a long row."""
    numbers: dict[str, float | None] = {}
    phases = phases_of(masking)
    if isinstance(masking.schedule, MaskSchedule) and masking.schedule.uniform:
        return numbers  # the closed form of the floor is for one width
    every = lines[0]["step"] + 1
    for (before, _), (width, first) in pairwise(phases):
        left = [line["loss"] for line in lines if line["step"] < first][-_LINES:]
        right = [line["loss"] for line in lines if line["step"] - every + 1 >= first][:_LINES]
        if len(left) == len(right) == _LINES:
            numbers[f"jump_{width}"] = math.fsum(right) / _LINES - math.fsum(left) / _LINES
            floors = [loss_floor(one, probability_at(masking, one), k=k) for one in (width, before)]
            numbers[f"floor_jump_{width}"] = floors[0] - floors[1]
    return numbers


def phases_of(masking: Masking) -> tuple[Phase, ...]:
    """Phases of the schedule; one alone where the width is fixed."""
    schedule = masking.schedule
    return schedule.phases() if isinstance(schedule, MaskSchedule) else (Phase(schedule, 0),)


def probability_at(masking: Masking, width: int) -> float:
    """Chance of a token to be a centre at a width."""
    if masking.share is not None:
        return min(1.0, masking.share / width)
    assert masking.probability is not None
    return masking.probability


def main(words: Sequence[str]) -> int:
    """Exit code of the command line."""
    return run_commands("look", "0.1.0", {"look": Command(look, LookConfig)}, ["look", *words])
