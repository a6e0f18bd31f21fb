"""Line, bar and interval figures of one look, written atomically as PNG, and short aligned tables.

matplotlib is imported within the functions; colours are those of Okabe and Ito, which colour-blind people can tell apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.provenance import stamp_lines

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@contextmanager
def figure(
    path: Path, *, x_label: str, y_label: str, caption: str, size: tuple[float, float] = (7.0, 4.2)
) -> Iterator[Any]:
    """Context that yields matplotlib axes in the common style and writes the PNG at its end.

    Args:
        path: the PNG; its folder is made.
        x_label: with its unit.
        y_label: with its unit.
        caption: one sentence above the figure: what is shown, how many seeds.
        size: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=size, dpi=130, layout="constrained"))
    axes = canvas.figure.add_subplot()
    axes.set_prop_cycle(color=COLOURS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(caption, loc="left", fontsize=10, wrap=True)
    yield axes
    content = BytesIO()
    canvas.print_png(content, metadata=stamp_lines())  # text chunks of the PNG: command line, data, versions
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def line_figure(path: Path, series: Series, *, x_label: str, y_label: str, caption: str) -> Path:
    """Lines `name -> (x values, y values)`, each named at its right end; points are drawn where they are few."""
    with figure(path, x_label=x_label, y_label=y_label, caption=caption) as axes:
        ends: list[tuple[float, str, str]] = []
        for number, (name, (x, y)) in enumerate(series.items()):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o" if len(x) <= 30 else None, markersize=3)
            if len(y):
                ends.append((float(y[-1]), name, colour))
        label_right(axes, ends)
    return path


def label_right(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names beside the right edge of the axes at the heights of their lines, moved apart where they would overlap.

    Args:
        axes: matplotlib axes whose data are drawn.
        ends: (height in data units, name, colour).
    """
    low, high = axes.get_ylim()
    gap = 0.055
    heights = [(height - low) / ((high - low) or 1.0) for height, _, _ in ends]
    order = sorted(range(len(ends)), key=heights.__getitem__)
    placed: dict[int, float] = {}
    floor = 0.0
    for index in order:
        placed[index] = floor = max(heights[index], floor)
        floor += gap
    over = max(placed.values(), default=0.0) - 1.0
    for index, (_, name, colour) in enumerate(ends):
        axes.text(
            1.01, placed[index] - max(over, 0.0), name, color=colour, fontsize=9, va="center", transform=axes.transAxes
        )


def bar_figure(
    path: Path,
    bars: Mapping[str, Sequence[float | None]],
    *,
    groups: Sequence[str],
    x_label: str,
    y_label: str,
    caption: str,
) -> Path:
    """Bars `name -> one value a group`, side by side within each group; None leaves its place empty."""
    with figure(path, x_label=x_label, y_label=y_label, caption=caption) as axes:
        width = 0.8 / max(len(bars), 1)
        for number, (name, values) in enumerate(bars.items()):
            places = [group + (number - (len(bars) - 1) / 2) * width for group in range(len(groups))]
            heights = [float("nan") if value is None else value for value in values]
            axes.bar(places, heights, width=width * 0.92, color=COLOURS[number % len(COLOURS)], label=name)
        long = sum(len(group) for group in groups) > 60
        axes.set_xticks(range(len(groups)), groups, rotation=40 if long else 0, ha="right" if long else "center")
        if len(bars) > 1:
            axes.legend(
                frameon=False,
                fontsize=9,
                ncols=min(len(bars), 4),
                loc="upper center",
                bbox_to_anchor=(0.5, -0.22 if long else -0.14),
            )
    return path


def interval_figure(
    path: Path,
    intervals: Mapping[str, tuple[float, float | None]],
    *,
    x_label: str,
    caption: str,
    reference: float = 0.0,
) -> Path:
    """Horizontal intervals `name -> (mean, half width or None)` with a dashed line at `reference`."""
    with figure(path, x_label=x_label, y_label="", caption=caption, size=(7.0, 1.2 + 0.4 * len(intervals))) as axes:
        for number, (mean, half_width) in enumerate(intervals.values()):
            axes.errorbar(mean, -number, xerr=half_width or None, fmt="o", color=COLOURS[0], capsize=3, markersize=5)
        axes.axvline(reference, color="#555555", linewidth=1, linestyle="--")
        axes.set_yticks([-number for number in range(len(intervals))], list(intervals))
        axes.set_ylim(0.5 - len(intervals), 0.5)  # room above the first row and below the last
        axes.grid(axis="y", visible=False)
    return path


def table(columns: Sequence[str], rows: Sequence[Sequence[str | float | int | None]]) -> str:
    """Aligned plain-text table: text to the left, numbers to the right, None as `-`.

    Args:
        columns: headings.
        rows: cells; floats are printed with two decimals, so give strings where another form is wanted.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    numeric = [all(isinstance(row[index], int | float | None) for row in rows) for index in range(len(columns))]
    widths = [max(len(line[index]) for line in [list(columns), *texts]) for index in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), "  ".join("-" * width for width in widths), *(line(row) for row in texts)])


def _cell(cell: str | float | int | None) -> str:
    if cell is None:
        return "-"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
