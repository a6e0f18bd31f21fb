"""What the records of a reproduction say: a table, paired differences and an interval figure for each experiment."""

from collections.abc import Sequence
from pathlib import Path

from reproduce.protocol import Experiment, Number
from reproduce.runner import Reproduction
from scarce_common_utils.figures import interval_figure, table
from scarce_common_utils.records import Difference, Record, paired_difference, summary


def rows(reproduction: Reproduction, experiment: Experiment, records: Sequence[Record]) -> list[list[str]]:
    """Table rows: arm, each number as mean ± deviation over seeds, cost, seconds; then the reference rows."""
    own = [record for record in records if record.experiment == experiment.name]
    numbers = shown_numbers(reproduction, experiment, own)
    found = []
    for name in experiment.arms:
        if not any(record.arm == name for record in own):
            continue
        cells = [_cell(own, name, number) for number in numbers]
        found.append([name, *cells, f"{reproduction.arms_module.ARMS[name].cost:g}", f"{_seconds(own, name):.0f}"])
    for reference in getattr(reproduction.arms_module, "REFERENCES", ()):
        shown = next((number for number in numbers if number.label == reference.column), None)
        values = [record.numbers.get(reference.number) for record in own]
        known = [value for value in values if value is not None]
        if shown is not None and known:
            text = f"{sum(known) / len(known):.{shown.decimals}f}"
            found.append([reference.row, *(text if number is shown else "" for number in numbers), "", ""])
    return found


def columns(reproduction: Reproduction, experiment: Experiment, records: Sequence[Record]) -> list[str]:
    """Headings that fit `rows`."""
    own = [record for record in records if record.experiment == experiment.name]
    numbers = shown_numbers(reproduction, experiment, own)
    return ["arm", *(f"{number.label} {number.unit}".strip() for number in numbers), "cost", "s"]


def shown_numbers(reproduction: Reproduction, experiment: Experiment, own: Sequence[Record]) -> list[Number]:
    """The numbers that some arm has measured, of those that the experiment wants shown."""
    wanted = [number for number in reproduction.numbers if not experiment.numbers or number.name in experiment.numbers]
    return [number for number in wanted if any(_has(own, arm, number) for arm in experiment.arms)]


def report(reproduction: Reproduction, records: Sequence[Record]) -> str:
    """For each experiment the table, and the paired differences from its baseline where there are several seeds; the closing."""
    parts = [f"{reproduction.package}, scale {reproduction.scale_name}. {reproduction.scale.note}".strip()]
    for experiment in reproduction.experiments:
        own = [record for record in records if record.experiment == experiment.name]
        wanted = len(experiment.arms) * len(experiment.seeds)
        if not own:
            parts.append(f"\n{experiment.name}: no record of {wanted}. {experiment.note}")
            continue
        count = len({record.seed for record in own})
        seeds = f"{count} seed{'s' if count > 1 else ''}" + (
            "" if len(own) == wanted else f", {len(own)} of {wanted} runs"
        )
        parts.append(f"\n{experiment.name}, {seeds}. {experiment.note}")
        parts.append(table(columns(reproduction, experiment, own), rows(reproduction, experiment, own)))
        parts += _differences(reproduction, experiment, own)
    closing = getattr(reproduction.arms_module, "closing", None)
    if closing is not None:
        parts.append(closing(reproduction.experiments, records))
    return "\n".join(part for part in parts if part)


def draw(reproduction: Reproduction, records: Sequence[Record], folder: Path) -> list[Path]:
    """One interval figure for each experiment with several seeds: differences of the first number from the baseline."""
    made = []
    for experiment in reproduction.experiments:
        own = [record for record in records if record.experiment == experiment.name]
        baseline = reproduction.baseline(experiment)
        numbers = shown_numbers(reproduction, experiment, own)
        if not numbers:
            continue
        found = _paired(reproduction, experiment, own, numbers[0])
        intervals = {f"{arm}, n = {len(d.seeds)}": (d.mean, d.half_width) for arm, d in found.items() if d.half_width}
        if intervals:
            number = numbers[0]
            made.append(
                interval_figure(
                    folder / f"{experiment.name}.png",
                    intervals,
                    x_label=f"{number.label}, difference from {baseline}, {'points' if number.unit == '%' else number.unit}".rstrip(
                        ", "
                    ),
                    caption=f"{reproduction.package}, {experiment.name}: paired over n seeds, 95 % intervals",
                )
            )
    return made


def _differences(reproduction: Reproduction, experiment: Experiment, own: Sequence[Record]) -> list[str]:
    baseline = reproduction.baseline(experiment)
    if len({record.seed for record in own}) == 1:
        return ["One seed: these rows show that the method runs; they are no claim that one arm is better."]
    numbers = shown_numbers(reproduction, experiment, own)
    found = [_paired(reproduction, experiment, own, number) for number in numbers]
    lines = []
    for arm in experiment.arms:
        differences = [column.get(arm) for column in found]
        first = next((difference for difference in differences if difference is not None), None)
        if first is not None:
            cells = [
                "" if d is None else _difference(d, number) for d, number in zip(differences, numbers, strict=True)
            ]
            lines.append([arm, str(len(first.seeds)), *cells])
    if not lines:
        return []
    heading = f"Paired differences from {baseline}, mean ± half-width of the 95 % interval over n seeds:"
    return [heading, table(["arm", "n", *(number.label for number in numbers)], lines)]


def _difference(difference: Difference, number: Number) -> str:
    """`+1.2 ± 0.4`, or `+1.2 (no interval)` of one seed; one decimal more than the number itself is shown with."""
    mean = f"{difference.mean:+.{number.decimals + 1}f}"
    width = difference.half_width
    return f"{mean} (no interval)" if width is None else f"{mean} ± {width:.{number.decimals + 1}f}"


def _paired(
    reproduction: Reproduction, experiment: Experiment, own: Sequence[Record], number: Number
) -> dict[str, Difference]:
    """Difference from the baseline of each arm that shares a seed with it."""
    baseline = reproduction.baseline(experiment)
    found = {}
    for arm in experiment.arms:
        if arm != baseline and _seeds(own, arm, number) & _seeds(own, baseline, number):
            found[arm] = paired_difference(own, arm=arm, baseline=baseline, number=number.name)
    return found


def _seeds(own: Sequence[Record], arm: str, number: Number) -> set[int]:
    return {record.seed for record in own if record.arm == arm and record.numbers.get(number.name) is not None}


def _has(own: Sequence[Record], arm: str, number: Number) -> bool:
    return bool(_seeds(own, arm, number))


def _seconds(own: Sequence[Record], arm: str) -> float:
    """Mean over the arm's records of the processor's seconds, or of the wall's in records that lack them."""
    values = [record.numbers.get("cpu_seconds") or record.seconds for record in own if record.arm == arm]
    return sum(values) / max(len(values), 1)


def _cell(own: Sequence[Record], name: str, number: Number) -> str:
    if not _has(own, name, number):
        return ""
    mean, deviation, _ = summary(own, arm=name, number=number.name)
    text = f"{mean:.{number.decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:.{number.decimals}f}"
