"""Figures of a run of replicas: gains, lines over the steps, groups of classes, the loss between replicas.

Solid is the average as it is, dashed or hollow the same with BatchNorm measured anew.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from scarce_common_utils.figures import COLOURS, figure, label_right

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
NEAR = 0.055  # of the axes' height: names of lines that end nearer than this would pile up beside them
FEW_POINTS = 30  # of a line, up to which each is marked
MOST_EPISODES = 4  # of a figure of barriers; of more the first, the last and those evenly between


def draw_gains(path: Path, gains: Series, *, caption: str) -> Path:
    """Gains of averages in points over the step at which they were taken, around a thin line at no gain.

    Args:
        path: the PNG.
        gains: name -> (global steps, gains); the first solid, a second one dashed.
        caption: above the figure.
    """
    x_label, y_label = "global step at which the average was taken", "gain, points of test accuracy"
    with figure(path, x_label=x_label, y_label=y_label, caption=caption) as axes:
        axes.axhline(0.0, color="#888888", linewidth=0.8, zorder=1)
        gains = {name: line for name, line in gains.items() if line[0]}
        for number, (name, (steps, values)) in enumerate(gains.items()):
            look = {"linestyle": "--", "markerfacecolor": "white"} if number else {}
            marker, colour = "o" if len(steps) <= FEW_POINTS else None, COLOURS[number]
            axes.plot(
                steps, values, color=colour, linewidth=1.6, marker=marker, markersize=4, zorder=2, label=name, **look
            )
        if max(len(steps) for steps, _ in gains.values()) == 1:
            axes.set_xlim(left=0)
        _name(axes, [("no gain", 0.0, "#666666")], gains)
    return path


def draw_lines(path: Path, series: Series, *, y_label: str, caption: str) -> Path:
    """Lines over the global step, named at their right ends, or in a legend where these lie too near to each other."""
    with figure(path, x_label="global step", y_label=y_label, caption=caption) as axes:
        for number, (name, (x, y)) in enumerate(series.items()):
            colour, marker = COLOURS[number % len(COLOURS)], "o" if len(x) <= FEW_POINTS else None
            axes.plot(x, y, color=colour, linewidth=1.6, marker=marker, markersize=3, label=name)
        _name(axes, [], series)
    return path


def draw_groups(path: Path, groups: Mapping[str, tuple[Sequence[int], float | None]], *, caption: str) -> Path:
    """A bar a group of classes with its number of classes; a group without classes says so in its place.

    Args:
        path: the PNG.
        groups: name -> (its classes, accuracy in percent or None).
        caption: above the figure.
    """
    x_label = "classes by their number of training images, or by rank"
    with figure(path, x_label=x_label, y_label="test accuracy, %", caption=caption) as axes:
        for place, (_, value) in enumerate(groups.values()):
            axes.bar(place, value or 0.0, width=0.7, color=COLOURS[0 if place < 3 else 1])
            text = "none" if value is None else f"{value:.1f}"
            axes.annotate(text, (place, value or 0.0), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        names = [
            f"{name.replace(' (', chr(10) + '(')}\n{_classes(len(members))}" for name, (members, _) in groups.items()
        ]
        axes.set_xticks(range(len(groups)), [name.replace(" third", "\nthird") for name in names], fontsize=9)
        axes.set_ylim(0, 105)
    return path


def draw_barriers(path: Path, segments: Mapping[int, Series], *, caption: str) -> Path:
    """Loss along the segments between neighbouring replicas, a colour an episode.

    Args:
        path: the PNG.
        segments: episode -> name -> (points t from 0 to 1, mean loss over pairs); the first name solid, a second one dashed.
        caption: above the figure.
    """
    episodes = sorted(segments)
    if len(episodes) > MOST_EPISODES:
        last = len(episodes) - 1
        episodes = [episodes[round(number * last / (MOST_EPISODES - 1))] for number in range(MOST_EPISODES)]
    x_label, y_label = "place between two replicas (0 and 1: the replicas, 0.5: their mean)", "training loss, nats"
    with figure(path, x_label=x_label, y_label=y_label, caption=caption) as axes:
        for number, episode in enumerate(episodes):
            for dashed, (name, (points, losses)) in enumerate(segments[episode].items()):
                look = {"linestyle": "--", "markerfacecolor": "white"} if dashed else {}
                label = f"episode {episode}" if not dashed else f"  {name}"
                axes.plot(
                    points, losses, color=COLOURS[number], linewidth=1.6, marker="o", markersize=3, label=label, **look
                )
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return path


def _name(axes: Any, more: Sequence[tuple[str, float, str]], series: Series) -> None:
    """Name lines at their right ends, in the order of drawing; in a legend where the ends would pile up."""
    ends = [(float(height), name, colour) for name, height, colour in more]
    ends += [(y[-1], name, COLOURS[number % len(COLOURS)]) for number, (name, (_, y)) in enumerate(series.items()) if y]
    low, high = axes.get_ylim()
    heights = sorted(height for height, _, _ in ends)
    if any(after - before < NEAR * (high - low) for before, after in pairwise(heights)):
        axes.legend(frameon=False, fontsize=9, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        label_right(axes, ends)


def _classes(count: int) -> str:
    return f"{count} class" if count == 1 else f"{count} classes"
