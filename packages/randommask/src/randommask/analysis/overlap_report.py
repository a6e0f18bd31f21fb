"""Overlapping against side by side, in pairs over seeds: the numbers, the printed table and the figure.

    difference    mean over seeds of (overlapping - the other arm), with the 95 % interval of Student's t; one seed gives none

Source    `scarce_common_utils.records`, which pairs the runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scarce_common_utils.figures import interval_figure, table
from scarce_common_utils.records import Record, paired_difference, summary

_NAMES: Final = {
    "mcc_last": "MCC, last epoch",
    "mcc_chosen": "MCC, lowest dev loss",
    "pearson_last": "Pearson r, last epoch",
    "pearson_chosen": "Pearson r, lowest dev loss",
}


def comparison(records: Sequence[Record], *, arm: str) -> dict[str, Any]:
    """Mean and deviation of each arm, and the paired difference of `arm` to each other one, as plain JSON values.

    Args:
        records: of `randommask finetune`, one an (arm, seed).
        arm: that the others are held against.
    """
    arms = list(dict.fromkeys(record.arm for record in records))
    numbers = [name for name in _NAMES if name in records[0].numbers]
    return {
        "seeds": sorted({record.seed for record in records}),
        "arm": arm,
        "arms": {one: {name: summary(records, arm=one, number=name)._asdict() for name in numbers} for one in arms},
        "differences_to": {
            other: {
                name: paired_difference(records, arm=arm, baseline=other, number=name)._asdict() for name in numbers
            }
            for other in arms
            if other != arm
        },
    }


def comparison_text(found: Mapping[str, Any]) -> str:
    """The two printed tables."""
    numbers = list(next(iter(found["arms"].values())))
    heading = ["", *(_NAMES[name] for name in numbers)]
    arms = [[arm, *(_mean(values[name]) for name in numbers)] for arm, values in found["arms"].items()]
    differences = [
        [f"{found['arm']} - {other}", *(_difference(values[name]) for name in numbers)]
        for other, values in found["differences_to"].items()
    ]
    count = len(found["seeds"])
    end = (
        f"{count} seeds, paired; the interval is the 95 % one of Student's t."
        if count > 1
        else "One seed gives no interval and supports no claim: take --seeds 3 or more."
    )
    return f"{table(heading, arms)}\n\n{table(['difference', *heading[1:]], differences)}\n{end}"


def draw_comparison(path: Path, found: Mapping[str, Any], *, title: str) -> Path:
    """Intervals of the differences about 0."""
    intervals = {
        f"- {other}:\n{_NAMES[name]}": (value["mean"], value["half_width"])
        for other, values in found["differences_to"].items()
        for name, value in values.items()
    }
    count = len(found["seeds"])
    seeds = f"{count} seeds, 95 % intervals" if count > 1 else "one seed, no interval"
    return interval_figure(
        path, intervals, x_label=f"{found['arm']} - the other, paired by seed", caption=f"{title}\n{seeds}"
    )


def _mean(value: Mapping[str, Any]) -> str:
    return f"{value['mean']:.3f}" + ("" if value["deviation"] is None else f" ± {value['deviation']:.3f}")


def _difference(value: Mapping[str, Any]) -> str:
    return f"{value['mean']:+.3f}" + ("" if value["half_width"] is None else f" ± {value['half_width']:.3f}")
