"""Figures and the model card of a fine-tuned classifier."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scarce_common_utils.figures import COLOURS, figure

_BRIGHT = 0.179  # relative luminance above which black is easier to read than white (WCAG contrast, equal for both)


def draw_finetuning(
    folder: Path,
    *,
    title: str,
    history: Sequence[tuple[float, float, float]],
    confusion: Tensor,
    labels: Sequence[str],
) -> list[Path]:
    """Dev scores by epoch, and the test set's confusion matrix of the last epoch; returns the PNG's paths.

    Args:
        folder: the run's `figures`.
        title: command, data, model and seed; it opens each caption.
        history: (epoch, dev loss in nats, dev MCC) of each epoch.
        confusion: Int64[K K], rows true classes.
        labels: K names.
    """
    return [
        _draw_dev(folder / "dev.png", history, title=title),
        _draw_confusion(folder / "confusion.png", confusion, title=title, labels=labels),
    ]


def classifier_card(
    *,
    model: str,
    data: str,
    labels: Sequence[str],
    counts: Mapping[str, int],
    numbers: Mapping[str, float | None],
    seed: int,
) -> str:
    """README.md of a saved classifier: what it began as, its classes and rows, what was measured, how to load it.

    Args:
        model: what it began as, in words.
        data: name of the training table.
        labels: K names in the order of the classes.
        counts: rows by side.
        numbers: of the run's record.
        seed: of the run.
    """
    classes = "\n".join(f"| {number} | {label} |" for number, label in enumerate(labels))
    rows = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    names = {"positional": "logistic regression, letters by position", "kmer": "logistic regression, 4-mer counts"}
    floors = "".join(
        f"| {text} | {numbers[key]:.3f} |\n"
        for name, text in names.items()
        if (key := f"mcc_{name}_regression") in numbers
    )
    return f"""# Classifier of DNA sequences, {model}

Made by `randommask finetune`, seed {seed}. Data: {data}; rows: {rows}. {numbers["test_rows_also_in_train"]} of the test rows also stand
in the training rows. The weights in this folder are those of epoch {numbers["chosen_epoch"]}, which had the lowest dev loss.

| whole test set | MCC |
|---|---|
| this folder (epoch {numbers["chosen_epoch"]}) | {numbers["mcc_chosen"]:.3f} |
| after the last epoch | {numbers["mcc_last"]:.3f} |
{floors}
One seed says little.

| class | label |
|---|---|
{classes}

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("this folder").eval()
tokenizer = AutoTokenizer.from_pretrained("this folder", trust_remote_code=True)  # the folder carries the tokenizer's code
with torch.no_grad():
    logits = model(**tokenizer(["GATTACAGATTACA"], return_tensors="pt")).logits
print(model.config.id2label[int(logits.argmax())])
```
"""


def _draw_dev(path: Path, history: Sequence[tuple[float, float, float]], *, title: str) -> Path:
    from matplotlib.ticker import MaxNLocator

    epochs = [epoch for epoch, _, _ in history]
    with figure(path, x_label="", y_label="loss, nats a row", caption=f"{title}: dev set", size=(7.0, 5.2)) as axes:
        grid = axes.figure.add_gridspec(2, 1)
        axes.set_subplotspec(grid[0])
        below = axes.figure.add_subplot(grid[1], sharex=axes)
        below.spines[["top", "right"]].set_visible(False)
        below.grid(axis="y", color="#dddddd", linewidth=0.7)
        below.set_axisbelow(True)
        below.set(xlabel="epoch", ylabel="MCC")
        axes.plot(epochs, [loss for _, loss, _ in history], color=COLOURS[0], marker="o", markersize=4)
        below.plot(epochs, [mcc for _, _, mcc in history], color=COLOURS[1], marker="o", markersize=4)
        axes.set_ylim(bottom=0)
        below.set_ylim(min([0.0, *(mcc for _, _, mcc in history)]) - 0.02, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelbottom=False)
    return path


def _draw_confusion(path: Path, confusion: Tensor, *, title: str, labels: Sequence[str]) -> Path:
    with figure(
        path,
        x_label="predicted class",
        y_label="true class",
        caption=f"{title}:\ntest rows after the last epoch",
        size=(5.4, 5.2),
    ) as axes:
        shares = confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
        cells = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        if len(labels) <= 12:
            axes.set_xticks(range(len(labels)), labels)
            axes.set_yticks(range(len(labels)), labels)
            for true, row in enumerate(confusion.tolist()):
                for found, count in enumerate(row):
                    ink = "black" if luminance(cells.to_rgba(float(shares[true, found]))) > _BRIGHT else "white"
                    axes.text(found, true, str(count), ha="center", va="center", color=ink)
    return path


def luminance(colour: Sequence[Any]) -> float:
    """Relative luminance (0 black to 1 white) of a colour of sRGB parts between 0 and 1 (WCAG 2.1)."""
    parts = [float(part) for part in colour[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
