"""One table of a GUE run: ours over seeds, deduplicated beside plain, the floors, and the published scores.

Scores are x 100: MCC, of Covid macro F1. A reduced task has no published column beside it.
"""

from collections.abc import Mapping, Sequence

from randommask.data.gue import TASKS
from randommask.data.gue_baselines import FOOTNOTE, MODELS, published_scores
from scarce_common_utils.figures import table
from scarce_common_utils.records import Record, summary

SHOWN = ("D6", "NTm", "DB2")  # in the terminal; the file has all


def gue_rows(
    records: Sequence[Record], titles: Mapping[str, str], *, arm: str, models: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table.

    Args:
        records: of the run, experiment `gue-<task>`, arms `arm` and `kmer-regression`.
        titles: task -> its name in the table; `(reduced)` behind it takes the published columns away.
        arm: ours.
        models: published columns.
    """
    published = published_scores()
    rows = []
    for task, title in titles.items():
        mine = [record for record in records if record.experiment == experiment_of(task)]
        ours = summary(mine, arm=arm, number="score")
        apart = summary(mine, arm=arm, number="score_deduplicated")
        first = next(record.numbers for record in mine if record.arm == arm)
        floor = next((record.numbers["score"] for record in mine if record.arm == "kmer-regression"), None)
        spread = "" if ours.deviation is None else f" ± {100 * ours.deviation:.2f}"
        beside = [f"{published[task][model]:.2f}" if title == task else "-" for model in models]
        repeated = f"{first['test_rows_repeated']:.0f} of {first['test_rows']:.0f}"
        rows.append(
            [
                title + (" F1" if TASKS[task].metric == "f1" else ""),
                f"{100 * ours.mean:.2f}{spread} ({ours.seeds})",
                f"{100 * apart.mean:.2f}",
                repeated,
                "-" if floor is None else f"{100 * floor:.2f}",
                *beside,
            ]
        )
    return ["task", "ours (seeds)", "without repeats", "repeats", "4-mers", *models], rows


def gue_text(records: Sequence[Record], titles: Mapping[str, str], *, arm: str) -> str:
    """The table for a terminal, and what has to be known to read it."""
    heading, rows = gue_rows(records, titles, arm=arm, models=SHOWN)
    return table(heading, rows) + "\n" + "\n".join(notes(titles))


def gue_markdown(records: Sequence[Record], titles: Mapping[str, str], *, arm: str, model: str) -> str:
    """The whole table as Markdown."""
    heading, rows = gue_rows(records, titles, arm=arm, models=MODELS)
    lines = [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]
    return f"# GUE, {model}\n\n" + "\n".join(lines) + "\n\n" + "\n".join(f"* {note}" for note in notes(titles)) + "\n"


def notes(titles: Mapping[str, str]) -> list[str]:
    """Sentences under the table."""
    found = [
        "MCC x 100 over the whole test set, of Covid macro F1 x 100.",
        "Ours: mean ± deviation over seeds of the checkpoint of lowest dev loss.",
        "repeats: test rows that stand in train or dev, or earlier in test; 4-mers: logistic regression on their counts.",
        "Published: DNABERT-2's paper, one seed each; D6 DNABERT 6-mer, NTm Nucleotide Transformer 2500M multi-species, DB2 DNABERT-2.",
    ]
    if any(title != task for task, title in titles.items()):
        found.append(
            "Reduced tasks have no train file: trained on 80 % of dev, chosen on the rest. Their scores compare with nothing published."
        )
    if any(task.startswith("EMP/") for task in titles):
        found.append(FOOTNOTE)
    return found


def experiment_of(task: str) -> str:
    """Name of a task's records."""
    return f"gue-{task.replace('/', '-')}"
