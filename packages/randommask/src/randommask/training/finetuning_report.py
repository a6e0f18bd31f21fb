"""What is told of a fine-tuned model: its numbers, the printed lines, figures and the model card."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from randommask.data.labelled import Labelled
from randommask.training.classification import Score, matthews
from randommask.training.finetuning import Encoded, Tuned, headline
from randommask.training.papers import RANDOM_MASK
from randommask.training.regression import Fit
from scarce_common_utils.figures import COLOURS, figure, table
from scarce_common_utils.intervals import bootstrap_confusion, fisher
from scarce_common_utils.model_card import Card, Classes, Metric, card_text

_BRIGHT = 0.179  # relative luminance above which black is easier to read than white (WCAG contrast, equal for both)


REGRESSIONS = {
    "positional": "regression, letters by position",
    "kmer": "regression, 4-mer counts",
}


class Fresh(NamedTuple):
    """Headline numbers over those `rows` of the test set that repeat no other row; None where they are fewer than two."""

    last: float | None
    chosen: float | None
    rows: int


class Outcome(NamedTuple):
    """What training gave: test scores of the last weights and of those of the lowest dev loss; floors by name; without repeats."""

    tuned: Tuned
    last: Score | Fit
    chosen: Score | Fit
    floors: dict[str, float]
    fresh: Fresh

    @property
    def metric(self) -> str:
        """Name of the headline number."""
        return "mcc" if isinstance(self.last, Score) else "pearson"


def numbers_of(outcome: Outcome, *, split: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers of the run's record."""
    metric, last, chosen = outcome.metric, outcome.last, outcome.chosen
    numbers: dict[str, float | None] = {
        f"{metric}_last": headline(last),
        f"{metric}_chosen": headline(chosen),
        "chosen_epoch": outcome.tuned.epoch,
        f"{metric}_last_deduplicated": outcome.fresh.last,
        f"{metric}_chosen_deduplicated": outcome.fresh.chosen,
        "test_rows": split["counts"]["test"],
        "test_rows_repeated": split["counts"]["test"] - outcome.fresh.rows,
        "test_rows_also_in_train": split["repeated"]["test rows also in train"],
    }
    if isinstance(last, Fit) and isinstance(chosen, Fit):
        numbers |= {"spearman_last": last.spearman, "spearman_chosen": chosen.spearman}
        numbers |= {"mean_square_last": last.loss, "mean_square_chosen": chosen.loss}
    return numbers | {f"{metric}_{name}_regression": value for name, value in outcome.floors.items()}


def rows_in_words(data: Labelled, sides: Mapping[str, Encoded], *, k: int) -> str:
    """Rows of each side, and what is odd about them: too short, longer than the model, on two sides."""
    counts = ", ".join(f"{count} {name}" for name, count in data.split["counts"].items())
    lines = [f"rows: {counts}"]
    if data.names:
        classes = Counter(data.test.targets.tolist())
        lines[0] += (
            f"; test classes: {', '.join(f'{name} {classes[number]}' for number, name in enumerate(data.names))}"
        )
    for name, side in (("train", data.train), ("dev", data.dev), ("test", data.test)):
        short = sum(len(sequence) < k for sequence in side.sequences)
        if short:
            lines.append(f"{short} {name} rows have fewer than {k} bases: the model sees nothing of them")
        if sides[name].cut:
            most = max(map(len, sides[name].pieces))
            lines.append(
                f"{sides[name].cut} {name} rows have more than {sides[name].specials.most} tokens: cut into even pieces "
                f"(up to {most}), their logits averaged"
            )
    return "\n".join(lines + [f"{count} {text}" for text, count in data.split["repeated"].items() if count])


def scores_in_words(outcome: Outcome) -> str:
    """The printed table: the whole test set, beside it its rows without repeats, and the regressions."""
    kind = "logistic " if outcome.metric == "mcc" else "ridge "
    rows = [
        ["last epoch", score_cell(outcome.last), _cell(outcome.fresh.last)],
        [f"epoch {outcome.tuned.epoch}, lowest dev loss", score_cell(outcome.chosen), _cell(outcome.fresh.chosen)],
        *(
            [kind + text, f"{outcome.floors[name]:.3f}", ""]
            for name, text in REGRESSIONS.items()
            if name in outcome.floors
        ),
    ]
    heading = "MCC" if outcome.metric == "mcc" else "Pearson r"
    lines = [
        table(["whole test set", heading, "without repeats"], rows),
        f"without repeats: {outcome.fresh.rows} test rows, each sequence once, that stand neither in train nor in dev",
        "The model kept is that of the lowest dev loss.",
    ]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def score_cell(score: Score | Fit) -> str:
    """The printed number; 0 is explained where it comes of a constant prediction, for which MCC is undefined."""
    constant = isinstance(score, Score) and int((score.confusion.sum(0) > 0).sum()) == 1
    return f"{headline(score):.3f}" + (", predicts one class only" if constant else "")


def draw_finetuning(folder: Path, *, title: str, outcome: Outcome, labels: Sequence[str]) -> list[Path]:
    """Dev scores by epoch, and a classifier's confusion matrix of the last epoch on the test set; returns the PNG's paths.

    Args:
        folder: the run's `figures`.
        title: command, data, model and seed; it opens each caption.
        outcome: of the training.
        labels: K names; none for a regression.
    """
    names = ("loss, nats a row", "MCC") if isinstance(outcome.last, Score) else ("mean square", "Pearson r")
    paths = [_draw_dev(folder / "dev.png", outcome.tuned.history, title=title, names=names)]
    if isinstance(outcome.last, Score):
        paths.append(_draw_confusion(folder / "confusion.png", outcome.last.confusion, title=title, labels=labels))
    return paths


class About(NamedTuple):
    """What a classifier's card says beside its scores: what it began as, in words; its data; K `labels`, none for a regression."""

    model: str
    data: str
    labels: Sequence[str]
    split: Mapping[str, Any]
    classes: Classes | None
    settings: Mapping[str, Any]
    seed: int
    seconds: float
    device: str
    licence: str | None


def class_table(data: Labelled, confusion: Tensor) -> Classes:
    """Rows of each class on each side, and how many test rows are right, from a confusion matrix Int64[K K]."""
    counts = [Counter(side.targets.tolist()) for side in (data.train, data.dev, data.test)]
    rows = [
        [
            number,
            name,
            *(side[number] for side in counts),
            100.0 * int(confusion[number, number]) / max(1, int(confusion[number].sum())),
        ]
        for number, name in enumerate(data.names)
    ]
    return Classes(("class", "label", "train rows", "dev rows", "test rows", "right %"), rows)


def classifier_card(about: About, outcome: Outcome, *, numbers: Mapping[str, float | None]) -> str:
    """README.md of a saved classifier or regression: what it began as, its classes and rows, what was measured, how to load it.

    Args:
        about: what the scores do not say.
        outcome: of the training; the written weights are those of its chosen epoch.
        numbers: of the run's record.
    """
    metric, counts = outcome.metric, about.split["counts"]
    card = Card(
        title=f"{'Classifier' if about.labels else 'Regression'} of DNA sequences, {about.model}",
        facts={
            "data": f"{about.data}; rows: {', '.join(f'{count:,} {name}' for name, count in counts.items())}",
            "test rows also in train": str(numbers["test_rows_also_in_train"]),
            "began as": about.model,
            "weights": f"of epoch {numbers['chosen_epoch']}, which had the lowest dev loss",
            "seed": str(about.seed),
        },
        reading=(
            "Fine-tuning is DNABERT's and DNABERT-2's: a linear layer on the pooled state, all weights trained, the epoch of lowest dev "
            "loss kept. The division, the pooling of pieces of long rows and small models' learning rates are ours. RandomMask:"
        ),
        metrics=[_metric(outcome, about=about, rows=counts["test"])],
        classes=about.classes,
        settings=about.settings,
        task="text-classification",
        library="transformers",
        tags=["randommask", "dna", "biology"],
        data_name=about.data,
        paper=RANDOM_MASK,
        seconds=about.seconds,
        device=about.device,
        licence=about.licence,
    )
    shown = "model.config.id2label[int(logits.argmax())]" if about.labels else "float(logits)"
    code = f"""
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained(".").eval()  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)  # the folder carries the tokenizer's code
with torch.no_grad():
    logits = model(**tokenizer(["GATTACAGATTACA"], return_tensors="pt")).logits
print({shown})
"""
    kind = "logistic " if about.labels else "ridge "
    floors = "".join(
        f"\n| {kind}{text} | {numbers[key]:.3f} |"
        for name, text in REGRESSIONS.items()
        if (key := f"{metric}_{name}_regression") in numbers
    )
    notes = f"""| whole test set | {"MCC" if about.labels else "Pearson r"} |
|---|---|
| this folder (epoch {numbers["chosen_epoch"]}) | {numbers[f"{metric}_chosen"]:.3f} |
| the same, without {numbers["test_rows_repeated"]} rows that repeat others | {_cell(numbers[f"{metric}_chosen_deduplicated"])} |
| after the last epoch | {numbers[f"{metric}_last"]:.3f} |{floors}"""
    if not about.labels:
        notes += "\n\nThe one output is a number in the units of the labels."
    return card_text(card, code, notes=notes)


def _metric(outcome: Outcome, *, about: About, rows: int) -> Metric:
    """The headline number of the written weights with its interval."""
    chosen, on = outcome.chosen, f"{rows} test rows"
    if isinstance(chosen, Score):
        interval = bootstrap_confusion(chosen.confusion, matthews, seed=about.seed)
        return Metric("Matthews correlation", "matthews_correlation", chosen.mcc, interval, "", on)
    return Metric("Pearson correlation", "pearsonr", chosen.pearson, fisher(chosen.pearson, rows), "", on)


def _draw_dev(path: Path, history: Sequence[tuple[float, float, float]], *, title: str, names: tuple[str, str]) -> Path:
    from matplotlib.ticker import MaxNLocator

    epochs = [epoch for epoch, _, _ in history]
    with figure(path, x_label="", y_label=names[0], caption=f"{title}: dev set", size=(7.0, 5.2)) as axes:
        grid = axes.figure.add_gridspec(2, 1)
        axes.set_subplotspec(grid[0])
        below = axes.figure.add_subplot(grid[1], sharex=axes)
        below.spines[["top", "right"]].set_visible(False)
        below.grid(axis="y", color="#dddddd", linewidth=0.7)
        below.set_axisbelow(True)
        below.set(xlabel="epoch", ylabel=names[1])
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
