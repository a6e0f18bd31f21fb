"""What the records of the semi-supervised recipe say: two tables, differences from the arm of the same budget, and cautions."""

from collections.abc import Sequence

from reproduce.imwa.semi_supervised.run import ARMS, Numbers
from scarce_common_utils.figures import table
from scarce_common_utils.records import Record, difference_text, paired_difference, summary

BASELINE = "single-mt"
SHOWN = {"accuracy": "accuracy %", "ema_accuracy": "EMA %", "ema_tail": "EMA, tail %"}
AVERAGED = {
    "replica_accuracy": "replicas %",
    "accuracy": "average %",
    "accuracy_recomputed": "BN recomputed %",
    "ensemble_accuracy": "ensemble %",
    "first_gain": "first gain",
    "last_gain": "last gain",
}


def report(heading: str, records: Sequence[Record], *, numbers: Numbers, arms: Sequence[str]) -> str:
    """Tables of means over seeds, 80 columns where one seed ran.

    Args:
        heading: what was trained on.
        records: one an (arm, seed).
        numbers: of the runs.
        arms: rows, in that order.
    """
    seeds = sorted({record.seed for record in records})
    settings = numbers.settings
    rows = [[arm, *_cells(records, arm, SHOWN), f"{numbers.cost(ARMS[arm]):g}", _seconds(records, arm)] for arm in arms]
    parts = [
        f"{heading}.\nM = {numbers.replicas}, E = {numbers.episodes}, T = {settings.steps}, batch {settings.batch_size} + "
        f"{settings.batch_size * settings.unlabelled_ratio}, seeds {', '.join(map(str, seeds))}.",
        table(["arm", *SHOWN.values(), "cost", "CPU s"], rows),
        "EMA: of single the plain EMA, of imwa EMA + IMWA. Tail: the third of the classes with\nthe fewest labels.",
    ]
    averaged = [arm for arm in arms if ARMS[arm].averaged]
    if averaged:
        rows = [[arm, *_cells(records, arm, AVERAGED)] for arm in averaged]
        parts += [
            table(["averages", *AVERAGED.values()], rows),
            "Replicas: mean of the last episode's; gain: an average minus its replicas, in points.",
        ]
    return "\n".join([*parts, *_differences(records, arms, seeds=seeds), *_cautions(arms, seeds=seeds)])


def _differences(records: Sequence[Record], arms: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
    others = [arm for arm in arms if arm != BASELINE]
    if BASELINE not in arms or len(seeds) < 2 or not others:
        return []
    rows = []
    for arm in others:
        found = [paired_difference(records, arm=arm, baseline=BASELINE, number=n) for n in ("accuracy", "ema_accuracy")]
        rows.append([arm, *(difference_text(difference) for difference in found)])
    return [f"Paired differences from {BASELINE}, 95 % intervals:", table(["arm", "accuracy", "EMA"], rows)]


def _cautions(arms: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
    found = []
    if BASELINE not in arms and any(ARMS[arm].averaged for arm in arms):
        found.append(f"Without the arm {BASELINE} nothing here says whether averaging is worth its steps.")
    if len(seeds) == 1:
        found.append("One seed: these rows show that the recipe runs; they are no claim that one arm is better.")
    return found


def _cells(records: Sequence[Record], arm: str, numbers: dict[str, str]) -> list[str]:
    cells = []
    for number in numbers:
        known = [record for record in records if record.arm == arm and record.numbers.get(number) is not None]
        if not known:
            cells.append("")
            continue
        mean, deviation, _ = summary(known, arm=arm, number=number)
        sign = "+" if number.endswith("gain") else ""
        cells.append(f"{mean:{sign}.1f}" if deviation is None else f"{mean:{sign}.1f} ± {deviation:.1f}")
    return cells


def _seconds(records: Sequence[Record], arm: str) -> str:
    values = [record.numbers["cpu_seconds"] or 0.0 for record in records if record.arm == arm]
    return f"{sum(values) / len(values):.0f}"
