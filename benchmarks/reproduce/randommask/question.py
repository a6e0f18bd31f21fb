"""The answer below the tables: does widening help because of the order easy to hard, the wide masks, or the larger share?

    order   randommask - constant          same last width and centre probability: from easy to hard (less is masked early on, too)
    share   randommask - constant_share    same widths in the same order: a larger share of masked tokens
    wide    constant - dnabert             wide masks (and their larger share) without any order
    all     randommask - dnabert           all of it together

Losses are held-out, at one fixed width for both sides; lower is better, and the sign is turned so that + is better throughout. MCC is
that after the last epoch. Over tasks: the mean of the tasks in each seed, paired over seeds.
"""

import dataclasses
import math
from collections.abc import Sequence

from reproduce.protocol import Experiment
from scarce_common_utils.figures import table
from scarce_common_utils.records import Difference, Record, paired_difference

PAIRS = (
    ("randommask", "constant", "order"),
    ("randommask", "constant_share", "share"),
    ("constant", "dnabert", "wide"),
    ("randommask", "dnabert", "all"),
)
LOSSES = ("loss_width_6", "loss_width_14")
MCC = "mcc_last"


def closing(experiments: Sequence[Experiment], records: Sequence[Record]) -> str:
    """The table of differences, and the staircase of the widening arms; empty without a pair of several seeds."""
    experiments = [one for one in experiments if "inside" not in one.commands]  # the same models and losses once more
    rows = []
    for names, title in _groups(experiments):
        own = [record for record in records if record.experiment in names]
        for number in (*LOSSES, MCC):
            cells = [_cell(own, names, pair, number) for pair in PAIRS]
            if any(cells):
                rows.append([title, {MCC: "MCC last"}.get(number, number.replace("_width_", " w=")), *cells])
    parts = []
    if rows:
        parts.append(
            "\nOrder easy to hard, wide masks, or larger share? Paired over pretraining seeds; + is better, losses too."
        )
        parts.append("; ".join(f"{what}: {arm} - {rival}" for arm, rival, what in PAIRS) + ".")
        parts.append("* where the 95 % interval leaves out 0, not corrected for how many are looked at.")
        parts.append(table(["", "", *(what for _, _, what in PAIRS)], rows))
    return "\n".join(parts + _staircases(experiments, records))


def _groups(experiments: Sequence[Experiment]) -> list[tuple[tuple[str, ...], str]]:
    """Names of experiments that are looked at together, and what they are called: each alone, then all tasks of a pretraining."""
    groups = [((experiment.name,), experiment.name) for experiment in experiments]
    by_pretraining: dict[tuple[str, ...], list[str]] = {}
    for experiment in experiments:
        compared = {arm for arm, rival, _ in PAIRS} | {rival for _, rival, _ in PAIRS}
        if "finetune" in experiment.commands and compared <= set(experiment.arms):
            by_pretraining.setdefault(experiment.words.get("pretrain", ()), []).append(experiment.name)
    groups += [(tuple(names), f"mean of {len(names)} tasks") for names in by_pretraining.values() if len(names) > 1]
    return groups


def _cell(own: Sequence[Record], names: Sequence[str], pair: tuple[str, str, str], number: str) -> str:
    """`+0.12 ± 0.05 *` of one pair, or nothing: a loss stands in the pretraining's own experiment alone."""
    arm, rival, _ = pair
    if number in LOSSES and any("mcc_last" in record.numbers for record in own):
        return ""
    pooled = [
        record
        for seed in sorted({one.seed for one in own})
        for record in _means(own, names, seed, (arm, rival), number)
    ]
    try:
        found = paired_difference(pooled, arm=arm, baseline=rival, number=number)
    except ValueError:
        return ""
    return _text(found, better=-1 if number in LOSSES else 1)


def _means(own: Sequence[Record], names: Sequence[str], seed: int, arms: tuple[str, str], number: str) -> list[Record]:
    """For each of the two arms one record with the mean over the experiments, where both have all of them."""
    made = []
    for arm in arms:
        chosen = [record for record in own if record.arm == arm and record.seed == seed]
        values = [value for record in chosen if (value := record.numbers.get(number)) is not None]
        if len(values) < len(names):
            return []
        made.append(dataclasses.replace(chosen[0], numbers={number: math.fsum(values) / len(values)}))
    return made


def _text(found: Difference, *, better: int) -> str:
    mean = better * found.mean
    if found.half_width is None:
        return ""  # one seed answers nothing
    return f"{mean:+.3f} ± {found.half_width:.3f}" + (" *" if abs(mean) > found.half_width else "")


def _staircases(experiments: Sequence[Experiment], records: Sequence[Record]) -> list[str]:
    """One line for each arm of a pretraining whose width grows: jumps of the training loss beside those of the floor."""
    lines = []
    for experiment in experiments:
        for arm in experiment.arms:
            own = [r for r in records if r.experiment == experiment.name and r.arm == arm]
            widths = sorted(
                int(name.removeprefix("jump_")) for name in (own[0].numbers if own else {}) if name.startswith("jump_")
            )
            if widths:
                jumps = (
                    f"to {w} {_mean(own, f'jump_{w}'):+.2f} ({_mean(own, f'floor_jump_{w}'):+.2f})" for w in widths
                )
                lines.append(f"{experiment.name}, {arm}: {', '.join(jumps)}")
    heading = "\nStaircase: jump of the training loss where the width grows, nats (in brackets: of the floor); mean over seeds"
    return [heading, *lines] if lines else []


def _mean(own: Sequence[Record], number: str) -> float:
    values = [value for record in own if (value := record.numbers.get(number)) is not None]
    return math.fsum(values) / max(len(values), 1)
