"""What a run says at its end: numbers, figures, the short table.

Letters   K classes, M replicas, E episodes.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from imwa.training.evaluation import Evaluation, group_accuracies, groups_by_count, thirds_by_rank
from scarce_common_utils.figures import COLOURS, bar_figure, figure, label_right, line_figure, table

Lines = Sequence[Mapping[str, Any]]
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
GROUPS = ("many", "medium", "few", "head", "middle", "tail")
BESIDE = {
    "ema": "moving average %",
    "ema_recomputed": "moving average, BN recomputed %",
    "ensemble": "replicas' ensemble %",
}
MOST_CLASSES_NAMED = 30
NEAR = 0.055  # of the axes' height: names of lines that end nearer than this would pile up beside them


def averages(lines: Lines) -> list[Mapping[str, Any]]:
    """The lines of metrics that speak of an average, one an episode."""
    return [line for line in lines if "average_accuracy" in line]


def final_numbers(lines: Lines, final: Evaluation, *, counts: Sequence[int], replicas: int) -> dict[str, float | None]:
    """Numbers of the record: accuracies of the final model in percent, and the gains over the replicas in points.

    Args:
        lines: of metrics.jsonl.
        final: of the final model, BatchNorm statistics as they were averaged.
        counts: training images of each class, K integers.
        replicas: M; with one there is no average and so no gain.
    """
    means = averages(lines)
    gains = [line["gain"] for line in means if "gain" in line]
    known = [value for value in final.by_class if value is not None]
    groups = group_accuracies(final.by_class, {**groups_by_count(counts), **thirds_by_rank(counts)})
    last, of_replicas = means[-1], next(line for line in reversed(means) if "gain" in line)
    return {
        "accuracy": final.accuracy,
        "class_accuracy": sum(known) / len(known),
        "accuracy_recomputed": last.get("recomputed_accuracy"),
        **{name: groups.get(name) for name in GROUPS},
        "ema": last.get("ema_accuracy"),
        "ema_recomputed": last.get("ema_recomputed_accuracy"),
        "ensemble": last.get("ensemble_accuracy"),
        "replica_accuracy": of_replicas["replica_accuracy"] if replicas > 1 else None,
        "first_gain": gains[0] if replicas > 1 else None,
        "last_gain": gains[-1] if replicas > 1 else None,
        "mean_gain": sum(gains) / len(gains) if replicas > 1 else None,
    }


def units() -> dict[str, str]:
    """Unit of each of `final_numbers`."""
    beside = ("ema", "ema_recomputed", "ensemble")
    shares = ("accuracy", "class_accuracy", "accuracy_recomputed", *beside, "replica_accuracy", *GROUPS)
    return {**dict.fromkeys(shares, "%"), **dict.fromkeys(("first_gain", "last_gain", "mean_gain"), "points")}


def draw_figures(
    folder: Path,
    lines: Lines,
    *,
    final: Evaluation,
    title: str,
    class_names: Sequence[str],
    counts: Sequence[int],
    replicas: int,
) -> list[Path]:
    """Write the figures of a run as PNG and return their paths.

    Args:
        folder: the run's `figures`.
        lines: of metrics.jsonl.
        final: of the final model.
        title: what ran on what, with the seed; it opens each caption.
        class_names: K names.
        counts: training images of each class.
        replicas: M.
    """
    means = averages(lines)
    made = []
    if replicas > 1:
        ends = [float(line["global_step"] + 1) for line in means if "gain" in line]
        made.append(
            draw_gains(
                folder / "gain_by_episode.png",
                ends,
                [line["gain"] for line in means if "gain" in line],
                caption=f"{title}: average minus mean of its {replicas} replicas",
            )
        )
    made.append(_accuracy_figure(folder / "test_accuracy.png", lines, title=title, replicas=replicas))
    made.append(
        _class_figure(folder / "accuracy_by_class.png", final, title=title, class_names=class_names, counts=counts)
    )
    losses = _by_replica(lines, "loss")
    made.append(draw_lines(folder / "loss.png", losses, y_label="training loss, nats", caption=f"{title}: loss"))
    return made


def draw_gains(path: Path, steps: Sequence[float], gains: Sequence[float], *, caption: str) -> Path:
    """The gain of each average in points over the step at which it was taken, above or below a thin line at no gain."""
    x_label, y_label = "global step at which the average was taken", "gain, points of test accuracy"
    with figure(path, x_label=x_label, y_label=y_label, caption=caption) as axes:
        axes.axhline(0.0, color="#888888", linewidth=0.8, zorder=1)
        axes.plot(steps, gains, color=COLOURS[0], linewidth=1.6, marker="o", markersize=3, zorder=2)
        label_right(axes, [(0.0, "no gain", "#666666"), *((gain, "gain", COLOURS[0]) for gain in gains[-1:])])
    return path


def draw_lines(path: Path, series: Series, *, y_label: str, caption: str) -> Path:
    """Lines over the global step, named at their right ends, or in a legend where these lie too near to each other."""
    with figure(path, x_label="global step", y_label=y_label, caption=caption) as axes:
        ends = []
        for number, (name, (x, y)) in enumerate(series.items()):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o" if len(x) <= 30 else None, markersize=3, label=name)
            ends += [(y[-1], name, colour)] if y else []
        low, high = axes.get_ylim()
        heights = sorted(height for height, _, _ in ends)
        if any(after - before < NEAR * (high - low) for before, after in pairwise(heights)):
            axes.legend(frameon=False, fontsize=9, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
        else:
            label_right(axes, ends)
    return path


def summary(
    numbers: Mapping[str, float | None], *, method: str, cost: int, steps: int, averaged: int, counts: Sequence[int]
) -> str:
    """The short table at the end with what its words mean; 80 columns.

    Args:
        numbers: from `final_numbers`.
        method: its name.
        cost: optimizer steps in all.
        steps: global steps.
        averaged: averages taken; 0 for a single run.
        counts: training images of each class.
    """
    groups = {**groups_by_count(counts), **thirds_by_rank(counts)}
    overall = [method, steps, cost, numbers["accuracy"], numbers["accuracy_recomputed"], numbers["class_accuracy"]]
    parts = [table(["method", "steps", "cost", "accuracy %", "BN recomputed %", "mean of classes %"], [overall])]
    beside = {name: numbers[name] for name in BESIDE if numbers.get(name) is not None}
    if beside:
        parts.append(table([BESIDE[name] for name in beside], [list(beside.values())]))
    rows = [[_group_name(name), len(members), _percent(numbers[name])] for name, members in groups.items()]
    parts.append(table(["classes", "how many", "accuracy %"], rows))
    if averaged:
        gain = [
            averaged,
            numbers["replica_accuracy"],
            numbers["first_gain"],
            numbers["mean_gain"],
            numbers["last_gain"],
        ]
        parts.append(table(["averages", "last replicas %", "first gain", "mean gain", "last gain"], [gain]))
        parts.append("gain: accuracy of an average minus the mean accuracy of its replicas, in points.")
    norms = "averaged" if averaged else "as trained"
    parts.append(
        f"cost: optimizer steps in all.\naccuracy: BatchNorm statistics {norms}; BN recomputed: measured anew."
    )
    return "\n\n".join(parts[:-1]) + "\n" + parts[-1]


def _group_name(name: str) -> str:
    return {
        "many": "many (> 100 images)",
        "medium": "medium (20 to 100)",
        "few": "few (< 20)",
        "head": "head third by rank",
        "middle": "middle third",
        "tail": "tail third",
    }[name]


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _accuracy_figure(path: Path, lines: Lines, *, title: str, replicas: int) -> Path:
    series = _by_replica(lines, "accuracy")
    if replicas > 1:
        means = averages(lines)
        series["average"] = (
            [float(line["global_step"] + 1) for line in means],
            [line["average_accuracy"] for line in means],
        )
    return draw_lines(path, series, y_label="test accuracy, %", caption=f"{title}: accuracy in training")


def _class_figure(
    path: Path, final: Evaluation, *, title: str, class_names: Sequence[str], counts: Sequence[int]
) -> Path:
    """Bars by class from the most to the least frequent; of many classes, their groups."""
    caption = f"{title}: accuracy by class, the most frequent first"
    ranked = sorted(range(len(counts)), key=lambda k: (-counts[k], k))
    if len(counts) <= MOST_CLASSES_NAMED:
        groups = [f"{class_names[k]}\n{counts[k]}" for k in ranked]
        bars = {"accuracy": [final.by_class[k] for k in ranked]}
        x_label = "class, and its training images"
        return bar_figure(path, bars, groups=groups, x_label=x_label, y_label="test accuracy, %", caption=caption)
    known = [(rank + 1, final.by_class[k]) for rank, k in enumerate(ranked) if final.by_class[k] is not None]
    points = {"accuracy": ([float(rank) for rank, _ in known], [float(value or 0.0) for _, value in known])}
    x_label = f"class by rank of training images ({counts[ranked[0]]} to {counts[ranked[-1]]})"
    return line_figure(path, points, x_label=x_label, y_label="test accuracy, %", caption=caption)


def _by_replica(lines: Lines, name: str) -> dict[str, tuple[list[float], list[float]]]:
    series: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        if line.get(name) is not None and "replica" in line:
            x, y = series.setdefault(f"replica {line['replica']}", ([], []))
            x.append(float(line["global_step"] + 1))
            y.append(line[name])
    return series if len(series) > 1 else dict(zip(("single run",), series.values(), strict=False))
