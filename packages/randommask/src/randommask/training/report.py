"""Figures and the model card of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from randommask.training.evaluation import MaskedLoss
from randommask.training.pretraining import Expected
from scarce_common_utils.figures import COLOURS, figure, label_right
from scarce_common_utils.run_folder import RunFolder


def draw_pretraining(
    run: RunFolder, *, rows: Sequence[MaskedLoss], expected: Sequence[Expected], method: str, seed: int
) -> list[Path]:
    """Loss with the staircase of floors, and the masked share beside its closed form; returns the PNG's paths."""
    lines = run.metrics()
    steps = [line["step"] + 1 for line in lines]
    end = max(steps, default=1)
    edges = [phase.step for phase in expected] + [end]
    loss_path, share_path = run.figures / "loss.png", run.figures / "masked_share.png"
    with figure(
        loss_path,
        x_label="optimizer step",
        y_label="nats a masked token",
        caption=f"Masked-language loss, {method}, seed {seed} (one seed). Losses of different widths do not compare.",
    ) as axes:
        axes.plot(steps, [line["loss"] for line in lines], color=COLOURS[0], linewidth=1.4)
        floors = [phase.floor for phase in expected]
        axes.stairs(floors, edges, color=COLOURS[1], linewidth=1.4, baseline=None)
        ends = [(lines[-1]["loss"], "training", COLOURS[0])] if lines else []
        ends.append((floors[-1], "floor", COLOURS[1]))
        if rows and rows[0].ceiling is not None:
            axes.axhline(rows[0].ceiling, color=COLOURS[7], linewidth=1, linestyle="--")
            ends.append((rows[0].ceiling, "ceiling", COLOURS[7]))
        for number, row in enumerate(rows):
            axes.plot([end], [row.loss], "o", color=COLOURS[2 + number], markersize=5)
            ends.append((row.loss, f"held out, {row.width}", COLOURS[2 + number]))
        axes.set_ylim(bottom=0)
        _name_phases(axes, expected, end)
        label_right(axes, ends)
    with figure(
        share_path,
        x_label="optimizer step",
        y_label="masked tokens, %",
        caption=f"Share of the tokens that are masked, {method}, seed {seed} (one seed)",
    ) as axes:
        shares = [100 * line["masked_share"] for line in lines]
        axes.plot(steps, shares, color=COLOURS[0], linewidth=1.2)
        closed = [100 * phase.closed_share for phase in expected]
        axes.stairs(closed, edges, color=COLOURS[1], linewidth=1.4, baseline=None)
        axes.set_ylim(bottom=0)
        _name_phases(axes, expected, end)
        label_right(
            axes, [*([(shares[-1], "realised", COLOURS[0])] if shares else []), (closed[-1], "closed form", COLOURS[1])]
        )
    return [loss_path, share_path]


def _name_phases(axes: Any, expected: Sequence[Expected], end: int) -> None:
    """Write each phase's width at the foot of its stretch."""
    stops = [*(phase.step for phase in expected[1:]), end]
    for phase, stop in zip(expected, stops, strict=True):
        if stop - phase.step < 0.04 * end:
            continue
        axes.text((phase.step + stop) / 2, 0.02, f"width {phase.width}", transform=axes.get_xaxis_transform(), ha="center",
                  fontsize=8, color="#555555")  # fmt: skip


def model_card(*, config: Mapping[str, Any], content_hash: str, rows: Sequence[MaskedLoss]) -> str:
    """README.md of a saved model: what it is, what it was trained on and how, what was measured, how to load it."""
    losses = "\n".join(
        f"| {row.width} | {row.loss:.3f} | {row.floor:.3f} | {'-' if row.ceiling is None else f'{row.ceiling:.3f}'} |"
        for row in rows
    )
    widths = config["widths"] or "fixed"
    return f"""# BERT over DNA {config["k"]}-mers, pretrained with `{config["method"]}` masking

Made by `randommask pretrain`. {config["size"]} size, {config["start"]} start, {config["steps"]} steps of
{config["batch_size"]} x {config["accumulation"]} windows, seed {config["seed"]}. Mask widths: {widths} (milestones in a run of
480,000 steps: {config["milestones"] or "none"}; the schedule is randommask's reading, not a published table).
DNA: content hash `{content_hash}`. Vocabulary: DNABERT's order of ids.

| mask width | held-out loss, nats | floor | ceiling |
|---|---|---|---|
{losses}

One seed. Losses of different widths do not compare.

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("this folder")
tokenizer = AutoTokenizer.from_pretrained("this folder", trust_remote_code=True)  # the folder carries the tokenizer's code
```
"""
