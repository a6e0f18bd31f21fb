"""What a run shows at its end: figures from its metrics, and the numbers of its record.

Letters   N images, C channels, H W pixels, K classes.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scarce_common_utils.figures import figure, line_figure

LAST_EVALUATIONS = 4
CHARACTERS_AN_INCH = 11  # of a title, at its size of 10 points
LONGEST_NAME = 25  # characters of a class's name beside an axis
Lines = Sequence[dict[str, Any]]


def final_numbers(lines: Lines) -> dict[str, float | None]:
    """Numbers of a finished run: `accuracy` is the mean of the last four evaluations, `best_accuracy` the largest.

    Mask rate and accuracy of the pseudo-labels are means over the last fifth of the readings.
    """
    accuracies = [line["accuracy"] for line in lines if line.get("accuracy") is not None]
    readings = [line for line in lines if line.get("loss") is not None]
    late = readings[-max(1, len(readings) // 5) :]
    numbers: dict[str, float | None] = {
        "accuracy": _mean(accuracies[-LAST_EVALUATIONS:]),
        "last_accuracy": accuracies[-1] if accuracies else None,
        "best_accuracy": max(accuracies, default=None),
    }
    for name in ("mask_rate", "pseudo_label_accuracy", "pseudo_label_accuracy_all", "classifier_norm"):
        numbers[name] = _mean([line[name] for line in late if line.get(name) is not None])
    left_out = [line["steps_left_out"] for line in lines if line.get("steps_left_out") is not None]
    if left_out:
        numbers["steps_left_out"] = left_out[-1]
    return numbers


def draw_figures(
    folder: Path, lines: Lines, *, title: str, confusion: Tensor, class_names: Sequence[str]
) -> list[Path]:
    """Write the figures of a run as PNG and return their paths.

    Args:
        folder: the run's `figures`.
        lines: of metrics.jsonl.
        title: what ran on what, with the seed; it opens each caption.
        confusion: Int64[K K] of the final averaged model, rows true classes.
        class_names: K names.
    """
    steps, accuracies = _series(lines, "accuracy")
    mask_steps, rates = _series(lines, "mask_rate")
    pseudo = {"right, of those used": "pseudo_label_accuracy", "right, of all": "pseudo_label_accuracy_all"}
    shares = _several(lines, pseudo) | {"used, of all": (mask_steps, [100.0 * rate for rate in rates])}
    losses = {"total": "loss", "labelled": "labelled_loss", "unlabelled": "unlabelled_loss"}
    norms = _several(lines, {"classifier": "classifier_norm"})
    error = {"averaged model": (steps, [100.0 - accuracy for accuracy in accuracies])}
    drawn = [
        ("test_error.png", error, "test error, %", "test error"),
        ("losses.png", _several(lines, losses), "loss, nats", "training losses"),
        ("classifier_norm.png", norms, "mean norm of the classifier's rows", "classifier norm"),
    ]
    if mask_steps:
        drawn.append(("pseudo_labels.png", shares, "% of unlabelled images", "pseudo-labels used, and right"))
    made = [
        line_figure(
            folder / name,
            series,
            x_label="optimizer step",
            y_label=y_label,
            caption=folded(f"{title}: {what}", inches=6),
        )
        for name, series, y_label, what in drawn
    ]
    if any("used_of_class_0" in line for line in lines):
        made.append(
            draw_class_counts(folder / "pseudo_labels_by_class.png", lines, title=title, class_names=class_names)
        )
    return [*made, draw_confusion(folder / "confusion.png", confusion, title=title, class_names=class_names)]


def draw_class_counts(path: Path, lines: Lines, *, title: str, class_names: Sequence[str]) -> Path:
    """How many pseudo-labels of each class were used between readings: a row for each class, time to the right."""
    readings = [line for line in lines if line.get("used_of_class_0") is not None]
    counts = torch.tensor([[line[f"used_of_class_{k}"] for line in readings] for k in range(len(class_names))])
    size = (7.0, min(2.2 + 0.22 * len(class_names), 12.0))
    names = [shortened(name) for name in class_names]
    caption = folded(f"{title}: pseudo-labels used of each class, between readings", inches=4.6)
    with figure(path, x_label="optimizer step", y_label="class", caption=caption, size=size) as axes:
        steps = [0, *(line["step"] + 1 for line in readings)]
        mesh = axes.pcolormesh(steps, range(len(class_names) + 1), counts.numpy(), cmap="viridis", vmin=0)
        axes.figure.colorbar(mesh, ax=axes, label="pseudo-labels")
        if len(class_names) <= 40:
            axes.set_yticks([number + 0.5 for number in range(len(class_names))], names)
        axes.invert_yaxis()
        axes.grid(visible=False)
    return path


def draw_confusion(path: Path, confusion: Tensor, *, title: str, class_names: Sequence[str]) -> Path:
    """Confusion matrix in percent of each true class, with numbers where there are at most 20 classes."""
    share = 100.0 * confusion.double() / confusion.sum(1, keepdim=True)  # not a number where a class has no image
    classes = len(class_names)
    side = min(4.5 + 0.3 * classes, 12.0)
    names = [shortened(name) for name in class_names]
    beside = max(map(len, names)) / CHARACTERS_AN_INCH  # the names of the rows, left of the figure's title
    caption = folded(f"{title}: confusion of the averaged model, % of each class", inches=side - 0.4 - beside)
    with figure(
        path,
        x_label="predicted class",
        y_label="true class",
        caption=caption,
        size=(side + 0.6, side),
    ) as axes:
        axes.set_facecolor("#eeeeee")  # behind the rows of such classes
        axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=100, aspect="equal")
        axes.grid(visible=False)
        if classes <= 40:
            upright = max(map(len, names)) <= 2
            axes.set_xticks(range(classes), names, rotation=0 if upright else 45, ha="center" if upright else "right")
            axes.set_yticks(range(classes), names)
        if classes <= 20:
            for row, values in enumerate(share.tolist()):
                for column, value in enumerate(values):
                    if value >= 0.5:
                        colour = "white" if value > 55 else "black"
                        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    return path


def draw_views(path: Path, rows: Mapping[str, Tensor], *, title: str) -> Path:
    """A page with a row for each entry of `rows`, name -> UInt8[N C H W], all of one shape."""
    count, channels, height, width = next(iter(rows.values())).shape
    gap = max(1, width // 8)
    page = torch.full((len(rows) * (height + gap), count * (width + gap), channels), 255, dtype=torch.uint8)
    for row, pictures in enumerate(rows.values()):
        for column, picture in enumerate(pictures):
            top, left = row * (height + gap), column * (width + gap)
            page[top : top + height, left : left + width] = picture.permute(1, 2, 0)
    size = (1.5 + 0.75 * count, 3.2)
    caption = folded(f"{title}: views of one step", inches=size[0] - 1.2)
    with figure(path, x_label="", y_label="", caption=caption, size=size) as axes:
        axes.imshow(page.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_yticks([row * (height + gap) + height / 2 for row in range(len(rows))], list(rows))
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    return path


def folded(caption: str, *, inches: float) -> str:
    """A figure's title in lines that fit a width, words that are longer than a line cut at hyphens or anywhere."""
    return "\n".join(textwrap.wrap(caption, max(20, int(inches * CHARACTERS_AN_INCH))))


def shortened(name: str) -> str:
    """A class's name as an axis has room for."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _several(lines: Lines, names: dict[str, str]) -> dict[str, tuple[list[float], list[float]]]:
    found = {label: _series(lines, name) for label, name in names.items()}
    return {label: series for label, series in found.items() if series[0]}


def _series(lines: Lines, name: str) -> tuple[list[float], list[float]]:
    kept = [(line["step"] + 1, line[name]) for line in lines if line.get(name) is not None]
    return [float(step) for step, _ in kept], [float(value) for _, value in kept]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
