"""What a run says at its end: numbers, figures, the short table.

Letters   K classes, M replicas, E episodes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imwa.training.evaluation import Evaluation, group_accuracies, groups_by_count, thirds_by_rank
from imwa.training.figures import draw_barriers, draw_gains, draw_groups, draw_lines
from scarce_common_utils.figures import bar_figure, line_figure, table

Lines = Sequence[Mapping[str, Any]]
GROUPS = ("many", "medium", "few", "head", "middle", "tail")
BESIDE = {
    "ema": "moving average %",
    "ema_recomputed": "moving average, BN recomputed %",
    "ensemble": "replicas' ensemble %",
}
MOST_CLASSES_NAMED = 30
COLLAPSE = 10.0  # points of accuracy that an average lies below its replicas, from which on it is warned of


def averages(lines: Lines) -> list[Mapping[str, Any]]:
    """The lines of metrics that speak of an average, one an episode."""
    return [line for line in lines if "average_accuracy" in line]


def numbers_of(evaluation: Evaluation, counts: Sequence[int]) -> dict[str, float | None]:
    """Accuracy over all images, mean over classes and over groups of classes, in percent.

    Args:
        evaluation: of a model.
        counts: training images of each class, K integers.
    """
    known = [value for value in evaluation.by_class if value is not None]
    groups = group_accuracies(evaluation.by_class, {**groups_by_count(counts), **thirds_by_rank(counts)})
    return {
        "accuracy": evaluation.accuracy,
        "class_accuracy": sum(known) / len(known),
        **{name: groups.get(name) for name in GROUPS},
    }


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
    spreads = [line["spread"] for line in means if line.get("spread") is not None]
    last, of_replicas = means[-1], next(line for line in reversed(means) if "gain" in line)
    return {
        **numbers_of(final, counts),
        "accuracy_recomputed": last.get("recomputed_accuracy"),
        "ema": last.get("ema_accuracy"),
        "ema_recomputed": last.get("ema_recomputed_accuracy"),
        "ensemble": last.get("ensemble_accuracy"),
        "replica_accuracy": of_replicas["replica_accuracy"] if replicas > 1 else None,
        "first_gain": gains[0] if replicas > 1 else None,
        "last_gain": gains[-1] if replicas > 1 else None,
        "mean_gain": sum(gains) / len(gains) if replicas > 1 else None,
        "collapses": float(sum(gain < -COLLAPSE for gain in gains)) if replicas > 1 else None,
        "first_spread": 100.0 * spreads[0] if spreads else None,
        "last_spread": 100.0 * spreads[-1] if spreads else None,
        "barrier": _highest(means, "barrier"),
        "barrier_recomputed": _highest(means, "barrier_recomputed"),
        "left_out": float(sum(line.get("left_out", 0) for line in means)) if replicas > 1 else None,
    }


def units() -> dict[str, str]:
    """Unit of each of `final_numbers`."""
    beside = ("ema", "ema_recomputed", "ensemble")
    shares = ("accuracy", "class_accuracy", "accuracy_recomputed", *beside, "replica_accuracy", *GROUPS)
    counted = {"collapses": "averages", "left_out": "replicas"}
    return {
        **dict.fromkeys(shares, "%"),
        **dict.fromkeys(("first_gain", "last_gain", "mean_gain"), "points"),
        **dict.fromkeys(("first_spread", "last_spread"), "% of the weights' norm"),
        **dict.fromkeys(("barrier", "barrier_recomputed"), "nats"),
        **counted,
    }


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
        caption = f"{title}: average minus mean of its {replicas} replicas (their BN as trained)"
        made.append(draw_gains(folder / "gain_by_episode.png", _gains(means), caption=caption))
        if any("segment_loss" in line for line in lines):
            caption = f"{title}: training loss between neighbouring replicas, mean over pairs"
            made.append(draw_barriers(folder / "loss_barrier.png", _segments(lines), caption=caption))
    made.append(_accuracy_figure(folder / "test_accuracy.png", lines, title=title, replicas=replicas))
    made.append(
        _class_figure(folder / "accuracy_by_class.png", final, title=title, class_names=class_names, counts=counts)
    )
    groups = {**groups_by_count(counts), **thirds_by_rank(counts)}
    made.append(
        draw_groups(
            folder / "accuracy_by_group.png",
            {
                _group_name(name): (members, group_accuracies(final.by_class, groups)[name])
                for name, members in groups.items()
            },
            caption=f"{title}: mean accuracy of classes by their training images",
        )
    )
    losses = _by_replica(lines, "loss")
    made.append(draw_lines(folder / "loss.png", losses, y_label="training loss, nats", caption=f"{title}: loss"))
    return made


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
        heads = ["averages", "last replicas %", "first gain", "mean gain", "last gain"]
        spread = numbers.get("last_spread")
        parts.append(table(heads, [gain]) if spread is None else table([*heads, "last spread %"], [[*gain, spread]]))
        if numbers.get("barrier") is not None:
            heights = [numbers["barrier"], numbers.get("barrier_recomputed")]
            parts.append(table(["highest barrier, nats", "BN recomputed, nats"], [heights]))
        parts.append("gain: accuracy of an average minus the mean accuracy of its replicas, in points.")
        if spread is not None:
            parts[-1] += "\nspread: of the replicas around the average, of the weights' norm."
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


def _gains(means: Lines) -> dict[str, tuple[list[float], list[float]]]:
    """Gain of each average over the step at which it was taken, as averaged and with BatchNorm measured anew."""
    known = [line for line in means if line.get("gain") is not None]
    anew = [line for line in known if line.get("recomputed_accuracy") is not None]
    return {
        "as averaged": ([float(line["global_step"] + 1) for line in known], [line["gain"] for line in known]),
        "its BN recomputed": (
            [float(line["global_step"] + 1) for line in anew],
            [line["recomputed_accuracy"] - line["replica_accuracy"] for line in anew],
        ),
    }


def _segments(lines: Lines) -> dict[int, dict[str, tuple[list[float], list[float]]]]:
    """Mean loss over pairs at each point, by episode, as averaged and with BatchNorm measured anew."""
    found: dict[int, dict[str, tuple[list[float], list[float]]]] = {}
    for name, label in (("segment_loss", "as averaged"), ("segment_loss_recomputed", "BN recomputed")):
        losses: dict[int, dict[float, list[float]]] = {}
        for line in lines:
            if line.get(name) is not None:
                losses.setdefault(line["episode"], {}).setdefault(line["point"], []).append(line[name])
        for episode, points in losses.items():
            means = [sum(values) / len(values) for values in points.values()]
            found.setdefault(episode, {})[label] = (list(points), means)
    return found


def _highest(means: Lines, name: str) -> float | None:
    return max((line[name] for line in means if line.get(name) is not None), default=None)
