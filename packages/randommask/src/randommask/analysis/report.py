"""What is told of a look inside: figures, the short tables, and observations.json.

Letters   L layers, H heads, K k-mers.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from randommask.alphabet import BASES
from randommask.analysis.attention import MEASURES
from randommask.analysis.embeddings import Flat, Purity, bases_at, telling_place
from randommask.analysis.staircase import Line, PhaseLoss
from scarce_common_utils.figures import COLOURS, figure, label_right, table

_GREY: Final = "#777777"
_PANELS: Final = 4  # checkpoints whose embeddings are drawn
_NAMES: Final = {
    "entropy": "entropy / ln T",
    "top1": "top-1 mass",
    "cls": "mass on [CLS]",
    "sep": "mass on [SEP]",
    "near": "mass nearby",
}
NO_COMPARISON: Final = "Losses of different widths are not compared: each stands beside the floor of its own width."


class FixedLoss(NamedTuple):
    """Held-out loss at one fixed `width`, with its `floor` and `ceiling`, in nats a masked token."""

    width: int
    loss: float
    floor: float
    ceiling: float | None


class Look(NamedTuple):
    """One checkpoint looked into: after `step` steps, in the phase of `width`; None for what could not be looked at."""

    step: int
    width: int
    purity: Purity
    attention: dict[str, Tensor]  # measure -> Float64[L H]
    held_out: list[FixedLoss]


class Levels(NamedTuple):
    """What the numbers are held against: `chance` for the neighbours, `uniform` attention by measure."""

    chance: Purity
    uniform: dict[str, float]


def phase_rows(phases: Sequence[PhaseLoss]) -> str:
    """Printed table of the staircase."""
    rows = [
        [
            phase.width,
            f"{phase.first}-{phase.stop - 1}",
            *(_fixed(number, 2) for number in (phase.floor, phase.opening, phase.closing, phase.excess)),
            _signed(phase.jump),
            _signed(phase.floor_jump),
        ]
        for phase in phases
    ]
    heading = ["width", "steps", "floor", "opening", "closing", "excess", "jump", "floor's jump"]
    return "training loss by phase, nats a masked token\n" + _aligned(heading, rows) + "\n" + _wrap(NO_COMPARISON)


def look_rows(looks: Sequence[Look], levels: Levels) -> str:
    """Printed table of the checkpoints, closed by the levels that chance, uniform attention and a perfect model give."""
    widths = [row.width for row in looks[0].held_out]
    rows = [
        [
            str(look.step),
            str(look.width),
            *(_fixed(100 * number, 1) for number in look.purity[:2]),
            *(_fixed(row.loss, 2) for row in look.held_out),
            *(_fixed(float(look.attention[name].mean()), 3) for name in ("entropy", "top1")),
            _fixed(float((look.attention["cls"] + look.attention["sep"]).mean()), 3),
        ]
        for look in looks
    ]
    uniform = levels.uniform
    ceilings = [row.ceiling for row in looks[-1].held_out]
    if None not in ceilings:
        rows.append(["ceiling", "", "", "", *(_fixed(ceiling, 2) for ceiling in ceilings), "", "", ""])
    rows.append(
        [
            "level",
            "",
            *(_fixed(100 * number, 1) for number in levels.chance[:2]),
            *(_fixed(row.floor, 2) for row in looks[-1].held_out),
            _fixed(uniform["entropy"], 3),
            _fixed(uniform["top1"], 3),
            _fixed(uniform["cls"] + uniform["sep"], 3),
        ]
    )
    heading = [
        "step",
        "width",
        "purity %",
        "shift %",
        *(f"loss {width}" for width in widths),
        "entropy",
        "top-1",
        "specials",
    ]
    note = (
        "purity, shift: k-mers whose nearest neighbour by cosine differs in one base, or is moved by one; loss: held out, at a fixed "
        "width, nats; entropy, top-1, specials: mean over layers and heads, mass on [CLS] and [SEP] together. ceiling: the loss of k-mer "
        "frequencies alone. level: a random neighbour; the floor of the loss; uniform attention."
    )
    return "checkpoints\n" + _aligned(heading, rows) + "\n" + _wrap(note)


def attention_rows(look: Look, levels: Levels) -> str:
    """Printed table of one checkpoint's attention by layer: means over the heads, with the range of the first two."""
    rows = []
    for layer in range(look.attention["entropy"].shape[0]):
        heads = [look.attention[name][layer] for name in MEASURES]
        rows.append([str(layer + 1), *map(_range, heads[:2]), *(f"{float(one.mean()):.3f}" for one in heads[2:])])
    uniform = [levels.uniform[name] for name in MEASURES]
    rows.append(["uniform", *(f"{level:.2f}" for level in uniform[:2]), *(f"{level:.3f}" for level in uniform[2:])])
    heading = ["layer", "entropy (heads)", "top-1 (heads)", "[CLS]", "[SEP]", "nearby"]
    note = "entropy over ln T; the rest are shares of a query's attention. All heads are in observations.json."
    return f"attention after {look.step} steps\n{_aligned(heading, rows)}\n{_wrap(note)}"


def observations(
    *,
    run: Mapping[str, Any],
    phases: Sequence[PhaseLoss],
    looks: Sequence[Look],
    levels: Levels,
    missing: Sequence[str],
) -> dict[str, Any]:
    """Content of observations.json.

    Args:
        run: what was looked at: method, size, seed, data and so on.
        phases: the staircase.
        looks: the checkpoints.
        levels: what the numbers are held against.
        missing: sentences on what could not be looked at.
    """
    return {
        "run": dict(run),
        "note": NO_COMPARISON,
        "phases": [phase._asdict() for phase in phases],
        "levels": {"neighbours": levels.chance._asdict(), "uniform_attention": levels.uniform},
        "checkpoints": [
            {
                "step": look.step,
                "width": look.width,
                "neighbours": look.purity._asdict(),
                "held_out": [row._asdict() for row in look.held_out],
                "attention_by_layer_and_head": {name: values.tolist() for name, values in look.attention.items()},
            }
            for look in looks
        ],
        "missing": list(missing),
    }


def draw_staircase(
    path: Path, *, lines: Sequence[Line], phases: Sequence[PhaseLoss], looks: Sequence[Look], title: str
) -> Path:
    """Training loss over the floors of its phases; below, the held-out loss at the fixed widths, which may be compared."""
    end = phases[-1].stop
    with figure(
        path, x_label="", y_label="training loss,\nnats a masked token", caption=title, size=(8.6, 6.4)
    ) as axes:
        below = _second_row(axes)
        axes.plot([line.stop for line in lines], [line.loss for line in lines], color=COLOURS[0], linewidth=1.2)
        edges = [*(phase.first for phase in phases), end]
        axes.stairs([phase.floor for phase in phases], edges, color=COLOURS[1], linewidth=1.6, baseline=None)
        top = max([line.loss for line in lines] + [phase.floor for phase in phases])
        axes.set_ylim(0, 1.12 * top)
        for phase in phases:
            axes.text(
                (phase.first + phase.stop) / 2, 1.07 * top, f"w={phase.width}", ha="center", fontsize=8, color=_GREY
            )
            for one in (axes, below):
                one.axvline(phase.first, color="#cccccc", linewidth=0.8, zorder=0)
        ends = [(lines[-1].loss, "training loss", COLOURS[0])] if lines else []
        label_right(axes, [*ends, (phases[-1].floor, "floor of each width", COLOURS[1])])
        axes.text(0.01, 0.03, NO_COMPARISON, transform=axes.transAxes, fontsize=8, color=_GREY)
        _draw_fixed(below, looks)
        for one in (axes, below):
            one.set_xlim(-0.01 * end, 1.01 * end)
        axes.tick_params(labelbottom=False)
    return path


def _draw_fixed(axes: Any, looks: Sequence[Look]) -> None:
    """Held-out loss over the checkpoints, one line a fixed width, its floor dashed."""
    axes.set(xlabel="optimizer steps done", ylabel="held-out loss at a\nfixed width, nats")
    ends: list[tuple[float, str, str]] = []
    for number, row in enumerate(looks[-1].held_out if looks else []):
        colour = COLOURS[2 + number]
        losses = [look.held_out[number].loss for look in looks]
        axes.plot([look.step for look in looks], losses, color=colour, linewidth=1.4, marker="o", markersize=4)
        axes.axhline(row.floor, color=colour, linewidth=1, linestyle="--")
        ends += [(losses[-1], f"width {row.width}", colour), (row.floor, f"floor, width {row.width}", colour)]
    axes.set_ylim(bottom=0)
    label_right(axes, ends)


def draw_purity(path: Path, looks: Sequence[Look], levels: Levels, *, title: str) -> Path:
    """Both purities over the checkpoints, with their chance levels dashed."""
    what = "k-mers whose nearest neighbour\nby cosine is a relative, %"
    with figure(path, x_label="optimizer steps done", y_label=what, caption=title, size=(8.6, 4.2)) as axes:
        ends = []
        for number, name in enumerate(("one base differs", "moved by one base")):
            shares = [100 * look.purity[number] for look in looks]
            axes.plot([look.step for look in looks], shares, color=COLOURS[number], marker="o", markersize=4)
            level = 100 * levels.chance[number]
            axes.axhline(level, color=COLOURS[number], linewidth=1, linestyle="--")
            ends += [(shares[-1], name, COLOURS[number]), (level, f"chance: {level:.2g} %", COLOURS[number])]
        top = max(100 * share for look in looks for share in look.purity[:2])
        axes.set_ylim(-0.03 * max(top, 4), 1.06 * max(top, 4))
        label_right(axes, ends)
    return path


def panels_of(count: int) -> list[int]:
    """Which of so many checkpoints are drawn: four at most, evenly spread, the first and the last among them.

    Example:
        >>> panels_of(2), panels_of(13)
        ([0, 1], [0, 4, 8, 12])
    """
    panels = min(_PANELS, count)
    return [place * (count - 1) // max(1, panels - 1) for place in range(panels)]


def draw_embeddings(path: Path, chosen: Sequence[tuple[Look, Flat]], *, k: int, title: str) -> Path:
    """All k-mers in a plane, a panel a checkpoint, coloured by the one base that the last panel tells apart most."""
    place = telling_place(chosen[-1][1].places, k=k)
    codes = bases_at(place, k=k)
    with figure(path, x_label="", y_label="", caption="", size=(2.9 * len(chosen) + 1.0, 3.9)) as axes:
        panels = _columns(axes, len(chosen), title=title)
        for one, (look, flat) in zip(panels, chosen, strict=True):
            x, y = flat.places.T.tolist()
            one.scatter(x, y, c=[COLOURS[code] for code in codes.tolist()], s=3, linewidths=0)
            one.set(xticks=[], yticks=[])
            one.set_aspect("equal", adjustable="datalim")
            one.grid(visible=False)
            below = f"after {look.step} steps\npurity {100 * look.purity.purity:.1f} %"
            if flat.explained is not None:
                below += f"\n{100 * sum(flat.explained):.0f} % of the variance"
            one.set_xlabel(below, fontsize=9)
        heading = f"base {place + 1} of {k}"
        for number, (text, colour) in enumerate([(heading, _GREY), *zip(BASES, COLOURS, strict=False)]):
            panels[-1].text(1.04, 0.95 - 0.09 * number, text, color=colour, fontsize=9, transform=panels[-1].transAxes)
    return path


def draw_attention(path: Path, looks: Sequence[Look], levels: Levels, *, title: str) -> Path:
    """Each measure by layer, a dot a head and a line through their means: the newest checkpoint over the start; uniform dashed."""
    newest, oldest = looks[-1], looks[0]
    with figure(path, x_label="", y_label="", caption="", size=(10.4, 3.9)) as axes:
        panels = _columns(axes, len(MEASURES), title=title)
        for one, name in zip(panels, MEASURES, strict=True):
            for look, colour, shift in ((oldest, "#aaaaaa", -0.08), (newest, COLOURS[0], 0.08)):
                values = look.attention[name]
                layers = [layer + 1 for layer in range(values.shape[0])]
                for head in range(values.shape[1]):
                    one.plot(
                        [layer + shift for layer in layers],
                        values[:, head],
                        "o",
                        color=colour,
                        markersize=3.5,
                        alpha=0.6,
                    )
                one.plot(layers, values.mean(1), color=colour, linewidth=1.5)
            one.axhline(levels.uniform[name], color=COLOURS[1], linewidth=1.2, linestyle="--")
            one.set(ylim=(-0.03, 1.05), xlim=(0.5, len(layers) + 0.5), xlabel=f"layer\n{_NAMES[name]}")
            one.set_xticks(layers[:: -(-len(layers) // 6)])
        for place, (text, colour) in enumerate(
            (
                (f"after {newest.step} steps", COLOURS[0]),
                (f"after {oldest.step} steps", "#888888"),
                ("uniform attention", COLOURS[1]),
            )
        ):
            axes.text(0.06, 0.30 - 0.09 * place, text, transform=axes.transAxes, color=colour, fontsize=8.5)
    return path


def draw_attention_over_training(path: Path, looks: Sequence[Look], levels: Levels, *, title: str) -> Path:
    """Entropy and top-1 mass over the checkpoints, a line a layer (mean over its heads); uniform dashed."""
    with figure(path, x_label="", y_label=_NAMES["entropy"], caption=title, size=(8.6, 5.6)) as axes:
        below = _second_row(axes)
        below.set(xlabel="optimizer steps done", ylabel=_NAMES["top1"])
        axes.tick_params(labelbottom=False)
        for one, name in ((axes, "entropy"), (below, "top1")):
            layers = looks[0].attention[name].shape[0]
            ends = []
            for layer in range(layers):
                values = [float(look.attention[name][layer].mean()) for look in looks]
                colour = _shade(layer, layers)
                one.plot([look.step for look in looks], values, color=colour, marker="o", markersize=3.5, linewidth=1.3)
                if layers <= 6 or layer in (0, layers // 2, layers - 1):
                    ends.append((values[-1], f"layer {layer + 1}", colour))
            one.axhline(levels.uniform[name], color=COLOURS[1], linewidth=1.2, linestyle="--")
            ends.append((levels.uniform[name], "uniform attention", COLOURS[1]))
            one.set_ylim(-0.03, 1.05)
            label_right(one, ends)
    return path


def _second_row(axes: Any) -> Any:
    """A second panel below, of the same look and x axis."""
    grid = axes.figure.add_gridspec(2, 1)
    axes.set_subplotspec(grid[0])
    return _alike(axes.figure.add_subplot(grid[1], sharex=axes))


def _columns(axes: Any, count: int, *, title: str) -> list[Any]:
    """Panels side by side, the given axes the first, under one title (as that of the first it would push the others away)."""
    grid = axes.figure.add_gridspec(1, count)
    axes.set_subplotspec(grid[0])
    axes.figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return [axes, *(_alike(axes.figure.add_subplot(grid[place])) for place in range(1, count))]


def _alike(axes: Any) -> Any:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    return axes


def _shade(layer: int, layers: int) -> Any:
    """Colour of a layer: from light to dark blue with its depth."""
    part = layer / max(1, layers - 1)
    return (0.55 - 0.55 * part, 0.78 - 0.5 * part, 0.92 - 0.35 * part)


def _range(heads: Tensor) -> str:
    mean = f"{float(heads.mean()):.2f}"
    return mean if len(heads) == 1 else f"{mean} ({float(heads.min()):.2f}-{float(heads.max()):.2f})"


def _fixed(number: float | None, decimals: int) -> str:
    return "-" if number is None else f"{number:.{decimals}f}"


def _signed(number: float | None) -> str:
    return "-" if number is None else f"{number:+.2f}"


def _aligned(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose cells, texts all of them, stand at the right, as numbers do."""
    cells = [list(heading), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(heading))]
    padded = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    return table(padded[0], padded[1:])


def _wrap(text: str) -> str:
    return textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False)
