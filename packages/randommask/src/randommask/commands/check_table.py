"""What `randommask check TABLE` says: rows, labels, lengths, letters and repeats of labelled sequences, and the cost of fine-tuning."""

import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from randommask.commands.finetune import FinetuneConfig, Job, build_job
from randommask.commands.words import wrapped
from randommask.data.labelled import Labelled, Side, read_labelled
from randommask.data.repeats import Repeats, differing_labels, repeats_by_side
from scarce_common_utils.costs import Cost, measure, memory_in_words, time_in_words
from scarce_common_utils.figures import table
from scarce_common_utils.resumption import threads

if TYPE_CHECKING:
    from randommask.training.finetuning import Encoded

SOME = 256  # rows that are measured on, and at least a batch
MOST_LABELS = 20  # of a table


def check_table(config: FinetuneConfig) -> dict[str, Any]:
    """Print what is in the table, and return it as JSON values.

    Raises:
        UserError: as `randommask finetune`, before it would train.
    """
    from randommask.training.quiet import quiet_transformers

    assert config.train is not None
    data = read_labelled(
        Path(config.train),
        dev=config.dev,
        test=config.test,
        task=config.task,
        columns=(config.sequence_column, config.label_column),
        seed=config.seed,
    )
    sides = {"train": data.train, "dev": data.dev, "test": data.test}
    repeats = repeats_by_side({name: side.sequences for name, side in sides.items()})
    conflicts = differing_labels(
        [row for side in sides.values() for row in side.sequences],
        [label for side in sides.values() for label in side.targets.tolist()],
    )
    letters = letters_of([row for side in sides.values() for row in side.sequences])
    print("\n".join(rows_in_words(config, data)))
    print(f"{letters_in_words(letters)}\n\n" + "\n".join(repeats_in_words(repeats, conflicts)))
    with quiet_transformers():
        job = build_job(config, some_of(data, least=config.batch_size))
        with threads(job.config.threads):
            numbers = cost_of(job, data)
    k = getattr(job.tokenizer, "k", 1)
    longest = {"too_short": sum(len(row) < k for side in sides.values() for row in side.sequences), "k": k}
    print("\n" + cost_in_words(job, numbers))
    told = advice(repeats, conflicts, longest, data)
    if told:
        print("\nBefore you run:\n" + "\n".join(wrapped(f"* {sentence}.") for sentence in told))
    return {
        "kind": "table",
        "rows": data.split["counts"],
        "labels": labels_of(data),
        "letters": letters,
        "repeats": {name: some._asdict() for name, some in repeats.items()},
        "sequences_with_several_labels": conflicts,
        "rows_too_short": longest["too_short"],
        "cost": numbers,
        "advice": told,
    }


def labels_of(data: Labelled) -> dict[str, dict[str, int]]:
    """Label -> rows of each side; none of a regression."""
    sides = {"train": data.train, "dev": data.dev, "test": data.test}
    counts = {name: Counter(side.targets.tolist()) for name, side in sides.items()}
    return {label: {name: counts[name][number] for name in sides} for number, label in enumerate(data.names)}


def rows_in_words(config: FinetuneConfig, data: Labelled) -> list[str]:
    """Rows and labels."""
    counts = data.split["counts"]
    cut = [name for name in ("dev", "test") if getattr(config, name) is None]
    total = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    lines = [f"{Path(config.train or '').name}: rows {total}"]
    if cut:
        lines.append(f"{' and '.join(cut)}: a tenth of the file each, divided by distinct sequence")
    labels = labels_of(data)
    if labels:
        ranked = sorted(labels, key=lambda name: -labels[name]["train"]) if len(labels) > MOST_LABELS else list(labels)
        rows = [[name, *labels[name].values()] for name in ranked[:MOST_LABELS]]
        lines += ["", table(["label", "train", "dev", "test"], rows)]
        lines += [f"and {len(labels) - MOST_LABELS:,} rarer labels"] if len(labels) > MOST_LABELS else []
    else:
        targets = data.train.targets
        lines.append(
            f"labels: numbers from {float(targets.min()):.4g} to {float(targets.max()):.4g}, mean {float(targets.mean()):.4g}"
        )
    return lines


def letters_of(rows: list[str]) -> dict[str, Any]:
    """Lengths, and letters that are no base, over all rows."""
    lengths = [len(row) for row in rows]
    known = [len(row) - sum(map(row.count, "ACGTU")) for row in rows]
    return {
        "shortest": min(lengths),
        "median": statistics.median(lengths),
        "longest": max(lengths),
        "letters": sum(lengths),
        "no_base": sum(known),
        "rows_with_no_base": sum(map(bool, known)),
    }


def letters_in_words(letters: dict[str, Any]) -> str:
    """The same as a line."""
    lengths = f"lengths: {letters['shortest']:,} to {letters['longest']:,} letters, median {letters['median']:,.0f}"
    share = 100 * letters["no_base"] / letters["letters"]
    return f"{lengths}; N and the like: {share:.2g} % of them, in {letters['rows_with_no_base']:,} rows"


def repeats_in_words(repeats: dict[str, Repeats], conflicts: int) -> list[str]:
    """A line for each pair of sides."""
    lines = ["repeats: none" if not repeats else "repeats (letter for letter, and as the reverse complement alone):"]
    lines += [f"  {name}: {some.same:,} and {some.other_strand:,} rows" for name, some in repeats.items()]
    return lines + ([f"sequences with several labels: {conflicts:,}"] if conflicts else [])


def some_of(data: Labelled, *, least: int) -> Labelled:
    """Some rows of each side, spread evenly over it."""
    return data._replace(**{name: _some(getattr(data, name), max(SOME, least)) for name in ("train", "dev", "test")})


def _some(side: Side, most: int) -> Side:
    count = min(most, len(side.sequences))
    places = [number * len(side.sequences) // count for number in range(count)]
    return Side([side.sequences[place] for place in places], side.targets[torch.tensor(places)])


def cost_of(job: Job, data: Labelled) -> dict[str, Any]:
    """Seconds and bytes of the whole run, as JSON values; regressions are not among them."""
    from randommask.training.finetuning import Tuning, measure_steps, predict
    from randommask.training.pretraining import Placement

    config, placement = job.config, Placement(job.device, job.config.precision)
    assert config.learning_rate is not None
    tuning = Tuning(config.epochs, config.steps, config.batch_size, config.learning_rate)
    step = measure_steps(
        job.model, job.sides["train"], tuning=tuning, placement=placement, seed=config.seed, scale=job.scale
    )
    dev: Encoded = job.sides["dev"]
    looked: Cost = measure(
        lambda number: predict(job.model, dev, autocast=placement.autocast, scale=job.scale), device=job.device, most=2
    )
    counts = data.split["counts"]
    steps_an_epoch = -(-counts["train"] // config.batch_size)
    steps = config.steps or config.epochs * steps_an_epoch
    epochs = -(-steps // steps_an_epoch)
    scored = epochs * counts["dev"] + 2 * counts["test"]
    return {
        "device": job.device.type,
        "threads": config.threads or torch.get_num_threads(),
        "steps": steps,
        "epochs": epochs,
        "steps_measured": step.steps,
        "seconds_a_step": step.seconds,
        "seconds": steps * step.seconds + scored * looked.seconds / len(dev),
        "bytes": step.memory,
    }


def cost_in_words(job: Job, numbers: dict[str, Any]) -> str:
    """What the run will cost, at most 80 columns."""
    config = job.config
    begun = f"--size {config.size}" if config.model is None else f"--model {config.model.name}"
    return "\n".join(
        [
            f"cost of finetune {begun},",
            f"measured here on {numbers['steps_measured']} steps ({numbers['device']}, threads: {numbers['threads']}):",
            f"  a step     {time_in_words(numbers['seconds_a_step'])}, of {config.batch_size} rows",
            f"  the run    about {time_in_words(numbers['seconds'])}: {numbers['steps']:,} steps, {numbers['epochs']} epochs "
            "(without the regressions)",
            f"  memory     about {memory_in_words(numbers['bytes'])} at its largest",
        ]
    )


def advice(repeats: dict[str, Repeats], conflicts: int, short: dict[str, int], data: Labelled) -> list[str]:
    """What to mend before a run."""
    told = [
        f"{name}: {some.same:,} rows. The score over them is too high; read the one without repeats"
        for name, some in repeats.items()
        if "too" in name and some.same
    ]
    told += [
        f"{name}: {some.other_strand:,} more rows as the other strand. Where strands do not matter, these are repeats too"
        for name, some in repeats.items()
        if "too" in name and some.other_strand
    ]
    if conflicts:
        told.append(
            f"{conflicts:,} sequences stand under several labels: one of them is wrong, or the label is a number (--task regression)"
        )
    if short["too_short"]:
        told.append(f"{short['too_short']:,} rows have fewer than {short['k']} letters: the model sees nothing of them")
    missing = [label for label, counts in labels_of(data).items() if not counts["test"]]
    if missing:
        told.append(f"labels without a test row: {', '.join(missing[:5])}, so that nothing is said of them")
    return told
