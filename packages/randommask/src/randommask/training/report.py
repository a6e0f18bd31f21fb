"""Figures and the model card of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from randommask.training.evaluation import MaskedLoss
from randommask.training.papers import RANDOM_MASK
from randommask.training.pretraining import Expected
from scarce_common_utils.figures import COLOURS, figure
from scarce_common_utils.intervals import bootstrap_ratio
from scarce_common_utils.model_card import Card, Metric, card_text
from scarce_common_utils.provenance import last_name
from scarce_common_utils.run_folder import RunFolder

_SIZE: Final = (8.0, 4.2)  # inches
_MARKERS: Final = (
    ("o", "\u25cf"),
    ("D", "\u25c6"),
    ("s", "\u25a0"),
    ("^", "\u25b2"),
)  # matplotlib's name, and its character


def draw_pretraining(
    run: RunFolder, *, rows: Sequence[MaskedLoss], expected: Sequence[Expected], title: str
) -> list[Path]:
    """Loss with the staircase of floors, and the masked share beside its closed form; returns the PNG's paths.

    Args:
        run: its metrics are drawn, into its figures.
        rows: evaluation at the fixed widths.
        expected: floor and share of each phase.
        title: command, method, size and seed; it opens each caption.
    """
    lines = run.metrics()
    steps = [line["step"] + 1 for line in lines]
    end = max(steps, default=1)
    edges = [phase.step for phase in expected] + [end]
    loss_path, share_path = run.figures / "loss.png", run.figures / "masked_share.png"
    with figure(
        loss_path, x_label="optimizer step", y_label="loss, nats a masked token", caption=f"{title}: loss", size=_SIZE
    ) as axes:
        axes.plot(steps, [line["loss"] for line in lines], color=COLOURS[0], linewidth=1.4)
        floors = [phase.floor for phase in expected]
        axes.stairs(floors, edges, color=COLOURS[1], linewidth=1.4, baseline=None)
        ends = [(lines[-1]["loss"], "training", COLOURS[0])] if lines else []
        ends.append((floors[-1], "floor", COLOURS[1]))
        if rows and rows[0].ceiling is not None:
            axes.axhline(rows[0].ceiling, color=COLOURS[7], linewidth=1, linestyle="--")
            ends.append((rows[0].ceiling, "ceiling: k-mer frequencies", COLOURS[7]))
        for number, row in enumerate(rows):
            marker, glyph = _MARKERS[number % len(_MARKERS)]
            # Side by side beyond the last step: the two losses are often so near that one would hide the other.
            place, colour = end * (1.02 + 0.03 * number), COLOURS[2 + number]
            axes.plot([place], [row.loss], marker, color=colour, markersize=6, linestyle="none")
            ends.append((row.loss, f"{glyph} held out, width {row.width}: {row.loss:.2f}", colour))
        axes.set_ylim(bottom=0, top=1.1 * axes.get_ylim()[1])
        axes.set_xlim(-0.02 * end, end * 1.08)
        _name_phases(axes, expected, end)
        _label_right(axes, ends)
    with figure(
        share_path,
        x_label="optimizer step",
        y_label="masked tokens, %",
        caption=f"{title}: share of masked tokens",
        size=_SIZE,
    ) as axes:
        shares = [100 * line["masked_share"] for line in lines]
        axes.plot(steps, shares, color=COLOURS[0], linewidth=1.2)
        closed = [100 * phase.closed_share for phase in expected]
        axes.stairs(closed, edges, color=COLOURS[1], linewidth=1.4, baseline=None)
        axes.set_ylim(bottom=0)
        _name_phases(axes, expected, end)
        _label_right(
            axes, [*([(shares[-1], "realised", COLOURS[0])] if shares else []), (closed[-1], "closed form", COLOURS[1])]
        )
    return [loss_path, share_path]


def _label_right(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names beside the right edge, each joined by a thin line to its height where others pushed it away."""
    low, high = axes.get_ylim()
    heights = [(height - low) / (high - low) for height, _, _ in ends]
    for (_, name, colour), height, place in zip(ends, heights, spread(heights, gap=0.055), strict=True):
        axes.plot([1.0, 1.025], [height, place], color=colour, linewidth=0.7, transform=axes.transAxes, clip_on=False)
        axes.text(1.03, place, name, color=colour, fontsize=9, va="center", transform=axes.transAxes)


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Places at least `gap` apart, in the order of the heights: groups that overlap are spread about their own mean.

    Example:
        >>> spread([0.5, 0.1, 0.5], gap=0.2)
        [0.4, 0.1, 0.6]
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    groups: list[list[int]] = []

    def middle(group: list[int]) -> float:
        return sum(heights[index] for index in group) / len(group)

    for index in order:
        groups.append([index])
        while len(groups) > 1:
            lower, upper = groups[-2:]
            if middle(upper) - middle(lower) >= gap * (len(lower) + len(upper)) / 2 - 1e-9:
                break
            groups[-2:] = [lower + upper]
    placed = [0.0] * len(heights)
    for group in groups:
        for rank, index in enumerate(group):
            placed[index] = middle(group) + gap * (rank - (len(group) - 1) / 2)
    return placed


def _name_phases(axes: Any, expected: Sequence[Expected], end: int) -> None:
    """Write each phase's width at the foot of its stretch."""
    stops = [*(phase.step for phase in expected[1:]), end]
    for phase, stop in zip(expected, stops, strict=True):
        if stop - phase.step < 0.04 * end:
            continue
        axes.text((phase.step + stop) / 2, 0.02, f"width {phase.width}", transform=axes.get_xaxis_transform(), ha="center",
                  fontsize=8, color="#555555")  # fmt: skip


def model_card(
    *,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    content_hash: str,
    held_out: str,
    rows: Sequence[MaskedLoss],
    seconds: float,
    device: str,
) -> str:
    """README.md of a saved model: what it is, what it was trained on and how, what was measured, how to load it.

    Args:
        config: options of the run, as plain JSON values.
        settings: those that are not at their defaults.
        content_hash: of the DNA.
        held_out: which of it was held out, in words.
        rows: evaluation at the fixed widths.
        seconds: that the run took.
        device: on which.
    """
    names = ", ".join(last_name(name) for name in config["genome"]) or "1 Mb of human chromosome 22, built in"
    card = Card(
        title=f"BERT over DNA {config['k']}-mers, pretrained with `{config['method']}` masking",
        facts={
            "data": (config["dataset"] and last_name(config["dataset"])) or names,
            "content hash": f"`{content_hash}`",
            "held out": held_out,
            "method": f"{config['method']}; mask widths {config['widths'] or 'fixed'}",
            "size": f"{config['size']}, {config['start']} start",
            "steps": f"{config['steps']} of {config['batch_size']} x {config['accumulation']} windows",
            "seed": str(config["seed"]),
            "vocabulary": "DNABERT's order of ids",
        },
        reading=(
            "A window of masked k-mers that grows in five phases is the paper's, restated in its reviews; DNABERT's code has width k, "
            "0.025 centres a token and 80/10/10. The widths, the milestones (of a run of 480,000 steps: "
            f"{config['milestones'] or 'none'}) and one width inside a phase are readings of ours, not a published table."
        ),
        metrics=[
            Metric(
                f"masked-language loss at width {row.width}",
                "loss",
                row.loss,
                bootstrap_ratio(row.parts, seed=config["seed"]),
                "nats",
                f"{row.masked:,} masked tokens of held-out DNA",
            )
            for row in rows
        ],
        classes=None,
        settings=settings,
        task="fill-mask",
        library="transformers",
        tags=["randommask", "dna", "biology"],
        data_name="dna",
        paper=RANDOM_MASK,
        seconds=seconds,
        device=device,
        licence=config["licence"],
    )
    levels = "\n".join(
        f"| {row.width} | {row.loss:.3f} | {row.floor:.3f} | {'-' if row.ceiling is None else f'{row.ceiling:.3f}'} |"
        for row in rows
    )
    notes = f"""| mask width | held-out loss, nats | floor | ceiling |
|---|---|---|---|
{levels}

Losses of different widths do not compare. floor: of a perfect model on random bases; ceiling: of k-mer frequencies alone."""
    code = """
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained(".")  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)  # the folder carries the tokenizer's code
"""
    return card_text(card, code, notes=notes)
