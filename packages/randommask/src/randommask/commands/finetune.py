"""`randommask finetune TRAIN`: from a table of labelled sequences to a scored classifier, from the library's parts alone."""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch

from randommask.data.splits import repeated, split_by_sequence
from randommask.data.tables import Table, read_table
from randommask.sample import SPLICE_JUNCTIONS, sample_path
from scarce_common_utils.checkpoints import checkpoint_step, newest_checkpoint
from scarce_common_utils.command_line import Operands, Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.options import RunOptions, choose_device
from scarce_common_utils.resumption import begin, check_split, closing_lines, record_of, threads
from scarce_common_utils.run_folder import RunFolder, to_stderr

if TYPE_CHECKING:
    from randommask.training.classification import Score
    from randommask.training.finetuning import Tuned

# Names that DNABERT-2's train.py and DNABERT's run_finetune.py have for our options, for the error of an unknown option.
FINETUNE_HINTS = {
    "model_name_or_path": "--model",
    "kmer": "--k",
    "num_train_epochs": "--epochs",
    "max_steps": "--steps",
    "per_device_train_batch_size": "--batch-size",
    "per_gpu_train_batch_size": "--batch-size",
    "lr": "--learning-rate",
    "hidden_dropout_prob": "--dropout",
    "output_dir": "--out",
    "data_path": "TRAIN, without a flag, with --dev and --test",
    "method": "--model (the folder of a run of `randommask pretrain --method ...`)",
}
_SHARES = (0.8, 0.1, 0.1)
_ONLY_SCRATCH = ("size", "start", "k")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunOptions):
    """Options of `randommask finetune`."""

    train: Annotated[
        str | None, Operands("TRAIN", "CSV or TSV of labelled sequences; by default the UCI splice junctions, built in")
    ] = None
    dev: Annotated[
        Path | None, Option("Table to choose the epoch on; by default a tenth of TRAIN by distinct sequence")
    ] = None
    test: Annotated[Path | None, Option("Table to score on; by default a tenth of TRAIN by distinct sequence")] = None
    sequence_column: Annotated[str, Option("Name of the column of letters")] = "sequence"
    label_column: Annotated[str, Option("Name of the column of labels")] = "label"
    model: Annotated[
        Path | None, Option("Folder of a pretrained model, such as RUN/model; by default from scratch")
    ] = None
    size: Annotated[Literal["tiny", "small", "medium", "base"], Option("Size from scratch")] = "tiny"
    start: Annotated[
        Literal["usual", "structured"],
        Option("Initial weights from scratch; give a rival the start of the model it is compared with"),
    ] = "usual"
    k: Annotated[int, Option("Bases a k-mer from scratch", at_least=1, at_most=8)] = 6
    epochs: Annotated[int, Option("Passes over TRAIN", at_least=1)] = 6
    steps: Annotated[int | None, Option("Optimizer steps, in place of --epochs", at_least=1)] = None
    batch_size: Annotated[int, Option("Sequences a step", at_least=1)] = 32
    learning_rate: Annotated[
        float | None, Option("At its peak; by default 1e-3 up to 64 wide, 3e-4 up to 256, 3e-5", above=0.0, at_most=1.0)
    ] = None
    warm_up: Annotated[float, Option("Share of the steps with a rising learning rate", at_least=0.0, below=1.0)] = 0.1
    weight_decay: Annotated[float, Option("Of AdamW, on matrices", at_least=0.0)] = 0.01
    dropout: Annotated[float, Option("On states and classifier", at_least=0.0, below=1.0)] = 0.1
    regressions: Annotated[bool, Option("Also fit the two regressions that a model has to beat")] = True
    workers: Annotated[int, Option("Loading processes; none changes a number", at_least=0)] = 0
    threads: Annotated[
        int | None, Option("Of torch on a CPU; by default 1 for models up to 64 wide, else torch's choice", at_least=1)
    ] = None

    def __post_init__(self) -> None:
        """Refuse options that do not fit together."""
        if self.resume is None:
            for name in _ONLY_SCRATCH:
                if name in self.given and self.model is not None:
                    raise UserError(
                        f"--{name} is for training from scratch, and --model brings its own. Leave one of them out."
                    )
            if "epochs" in self.given and "steps" in self.given:
                raise UserError(f"--epochs is {self.epochs} and --steps is {self.steps}. Give one of them.")


class Side(NamedTuple):
    """Rows of one side: sequences, and classes Int64[N]."""

    sequences: list[str]
    classes: torch.Tensor


class Job(NamedTuple):
    """Everything that a run needs, built before its folder is made."""

    config: FinetuneConfig
    device: torch.device
    labels: list[str]
    train: Side
    dev: Side
    test: Side
    model: Any
    tokenizer: Any
    split: dict[str, Any]


def finetune(config: FinetuneConfig) -> None:
    """Train a classifier of DNA sequences, from a pretrained model or from scratch, and score it on the whole test set."""
    began = time.monotonic()
    from randommask.training.quiet import quiet_transformers

    run, config = begin(config, package="randommask", command="finetune", may_change=("device", "workers"))
    with quiet_transformers():
        job = build_job(config)
        if run is None:
            run = RunFolder.create(
                config.out,
                default_name=f"randommask-finetune-{'scratch' if config.model is None else 'pretrained'}-seed-{config.seed}",
                package="randommask",
                command="finetune",
                config=plain_config(job.config),
            )
        check_split(run, job.split, place=config.train or "the sample")
        with threads(job.config.threads):
            _fit(run, job, began=began)


def build_job(config: FinetuneConfig) -> Job:
    """Read the tables, divide them, make the model; write nothing.

    Raises:
        UserError: anything wrong with files, device, labels, or the model's folder.
    """
    from randommask.training.finetuning import pretrained_classifier, scratch_classifier

    device = choose_device(config.device)
    if device.type == "cuda" and device.index not in (None, 0):
        raise UserError(
            f"--device is {config.device!r}, but the Trainer takes the first visible one. Set CUDA_VISIBLE_DEVICES={device.index} "
            "and use --device cuda."
        )
    tables, split = _divided(config)
    labels = _label_names(tables["train"].labels)
    sides = {name: _side(name, table, labels) for name, table in tables.items()}
    if config.model is not None:
        model, tokenizer = pretrained_classifier(config.model, labels=labels, dropout=config.dropout, seed=config.seed)
    else:
        model, tokenizer = scratch_classifier(
            config.size, k=config.k, start=config.start, labels=labels, dropout=config.dropout, seed=config.seed
        )
    _refuse_too_long(tables, tokenizer)
    _refuse_too_short(config, tables, k=tokenizer.k)
    width = model.config.hidden_size
    config = dataclasses.replace(
        config,
        learning_rate=config.learning_rate or (1e-3 if width <= 64 else 3e-4 if width <= 256 else 3e-5),
        threads=config.threads or (1 if width <= 64 else None),
    )
    return Job(config, device, labels, sides["train"], sides["dev"], sides["test"], model, tokenizer, split)


def _divided(config: FinetuneConfig) -> tuple[dict[str, Table], dict[str, Any]]:
    """Rows of the three sides, and what split.json says of them."""

    def read(path: Path) -> Table:
        return read_table(path, sequence_column=config.sequence_column, label_column=config.label_column)

    source = read(sample_path(SPLICE_JUNCTIONS) if config.train is None else Path(config.train))
    given = {name: read(path) for name, path in (("dev", config.dev), ("test", config.test)) if path is not None}
    cut = [name for name in ("dev", "test") if name not in given]
    sides = [list(range(len(source.labels)))]
    if cut:
        shares = (1 - 0.1 * len(cut), *[0.1] * len(cut))
        try:
            sides = split_by_sequence(source.sequences, shares=shares, seed=config.seed)
        except ValueError as error:
            raise UserError(f"{config.train or 'The sample'}: {error}") from error
    rows = dict(zip(("train", *cut), sides, strict=True))
    tables = {
        name: Table([source.sequences[row] for row in chosen], [source.labels[row] for row in chosen])
        for name, chosen in rows.items()
    } | given
    counts = {name: len(table.labels) for name, table in tables.items()}
    also = {
        f"{late} rows also in {early}": repeated(tables[late].sequences, tables[early].sequences)
        for late, early in (("dev", "train"), ("test", "train"), ("test", "dev"))
    }
    return tables, {"rows": rows, "counts": counts, "repeated": also}


def _label_names(labels: Sequence[str]) -> list[str]:
    """Names of the classes, numbers in the order of numbers."""
    names = sorted(
        set(labels),
        key=lambda name: (not name.lstrip("-").isdigit(), int(name) if name.lstrip("-").isdigit() else 0, name),
    )
    if len(names) < 2:
        raise UserError(f"All training rows have the label {names[0]!r}. A classifier needs at least two labels.")
    if len(names) > 1000:
        raise UserError(
            f"The training rows have {len(names)} different labels, such as {names[0]!r} and {names[1]!r}. Name the column of "
            "classes by --label-column; regression is not offered."
        )
    return names


def _side(name: str, rows: Table, labels: Sequence[str]) -> Side:
    numbers = {label: number for number, label in enumerate(labels)}
    unknown = next((label for label in rows.labels if label not in numbers), None)
    if unknown is not None:
        raise UserError(
            f"The {name} rows have the label {unknown!r}, which no training row has (those have {', '.join(labels[:6])}). "
            "Take these rows out, or add some to the training table."
        )
    return Side(rows.sequences, torch.tensor([numbers[label] for label in rows.labels]))


def _refuse_too_long(tables: dict[str, Table], tokenizer: Any) -> None:
    most = tokenizer.model_max_length - 2 + tokenizer.k - 1
    for name, rows in tables.items():
        longest = max(rows.sequences, key=len)
        if len(longest) > most:
            raise UserError(
                f"A {name} sequence has {len(longest)} bases, but this model reads at most {most}. Cut the sequences, or pretrain with "
                f"--tokens {len(longest) - tokenizer.k + 1}."
            )


def _refuse_too_short(config: FinetuneConfig, tables: dict[str, Table], *, k: int) -> None:
    """Refuse a file none of whose sequences holds a k-mer: the model would see [CLS] and [SEP] alone."""
    longest: dict[str, int] = {}
    for name, rows in tables.items():
        place = str({"dev": config.dev, "test": config.test}.get(name) or config.train or "The sample")
        longest[place] = max([longest.get(place, 0), *map(len, rows.sequences)])
    for place, bases in longest.items():
        if bases < k:
            raise UserError(
                f"{place}: all sequences have fewer than {k} bases (the longest has {bases}), so none holds a {k}-mer. Give longer "
                "sequences, or a model of smaller k."
            )


def _fit(run: RunFolder, job: Job, *, began: float) -> None:
    """Train from the newest checkpoint, or from the start, to the end; score, save, draw, print."""
    from randommask.training import finetuning
    from randommask.training.kmer_regression import Rows, regression_floors
    from randommask.training.pretraining import Placement

    config = job.config
    assert config.learning_rate is not None
    sides = [finetuning.Encoded(side.sequences, side.classes, job.tokenizer) for side in (job.train, job.dev, job.test)]
    checkpoint = newest_checkpoint(run.checkpoints, to_stderr)
    run.cut_metrics(0 if checkpoint is None else checkpoint_step(checkpoint))
    placement = Placement(job.device, config.precision, config.workers)
    tuned = finetuning.finetune(
        job.model,
        sides[0],
        sides[1],
        tuning=finetuning.Tuning(
            config.epochs,
            config.steps,
            config.batch_size,
            config.learning_rate,
            warm_up_share=config.warm_up,
            weight_decay=config.weight_decay,
        ),
        placement=placement,
        log=run.log,
        checkpoints=run.checkpoints,
        seed=config.seed,
        resume_from=checkpoint,
    )
    last = finetuning.predict(job.model, sides[2], autocast=placement.autocast)
    job.model.load_state_dict(tuned.chosen)
    chosen = finetuning.predict(job.model, sides[2], autocast=placement.autocast)
    job.model.save_pretrained(run.model)
    job.tokenizer.save_pretrained(run.model)
    floors = (
        regression_floors(*(Rows(side.sequences, side.classes) for side in (job.train, job.dev, job.test)))
        if config.regressions
        else {}
    )
    numbers: dict[str, float | None] = {
        "mcc_last": last.mcc,
        "mcc_chosen": chosen.mcc,
        "chosen_epoch": tuned.epoch,
        "test_rows": len(job.test.sequences),
        "test_rows_also_in_train": job.split["repeated"]["test rows also in train"],
    } | {f"mcc_{name}_regression": value for name, value in floors.items()}
    _report(run, job, numbers=numbers, tuned=tuned, last=last, chosen=chosen, seconds=time.monotonic() - began)


def _report(
    run: RunFolder,
    job: Job,
    *,
    numbers: dict[str, float | None],
    tuned: "Tuned",
    last: "Score",
    chosen: "Score",
    seconds: float,
) -> None:
    """Record, figures and the printed table."""
    from randommask.training.finetuning_report import classifier_card, draw_finetuning

    config = job.config
    run.write_result(
        record_of(
            run,
            experiment="randommask-finetune",
            arm="scratch" if config.model is None else "pretrained",
            seed=config.seed,
            numbers=numbers,
            units={},
            seconds=seconds,
            device=job.device,
        )
    )
    data, model = _names(config)
    figures = draw_finetuning(
        run.figures,
        title=f"randommask finetune, {data[:40]},\n{model[:44]}, seed {config.seed}",
        history=tuned.history,
        confusion=last.confusion,
        labels=job.labels,
    )
    card = classifier_card(
        model=model, data=data, labels=job.labels, counts=job.split["counts"], numbers=numbers, seed=config.seed
    )
    (run.model / "README.md").write_text(card, encoding="utf-8")
    _print_rows(job)
    _print_scores(numbers, tuned=tuned, last=last, chosen=chosen)
    print(closing_lines(run, seed=config.seed, figures=figures, model=True))


def _print_rows(job: Job) -> None:
    """What it began as, and the rows of each side with what is odd about them."""
    config, k = job.config, job.tokenizer.k
    counts = ", ".join(f"{count} {name}" for name, count in job.split["counts"].items())
    classes = Counter(job.test.classes.tolist())
    print(
        f"\n{config.model or f'from scratch, {config.size}, {config.start} start, k = {config.k}'}, seed {config.seed}"
    )
    print(
        f"rows: {counts}; test classes: {', '.join(f'{name} {classes[number]}' for number, name in enumerate(job.labels))}"
    )
    for name, side in (("train", job.train), ("dev", job.dev), ("test", job.test)):
        short = sum(len(sequence) < k for sequence in side.sequences)
        if short:
            print(f"{short} {name} rows have fewer than {k} bases: the model sees nothing of them")
    for text, count in job.split["repeated"].items():
        if count:
            print(f"{count} {text}")


def _print_scores(numbers: dict[str, float | None], *, tuned: "Tuned", last: "Score", chosen: "Score") -> None:
    """The table of MCC, beside the regressions."""
    rows: list[list[str]] = [
        ["last epoch", score_cell(last)],
        [f"epoch {tuned.epoch}, lowest dev loss", score_cell(chosen)],
    ]
    for name, label in (
        ("positional", "logistic regression, letters by position"),
        ("kmer", "logistic regression, 4-mer counts"),
    ):
        if f"mcc_{name}_regression" in numbers:
            rows.append([label, f"{numbers[f'mcc_{name}_regression']:.3f}"])
    print("\n" + table(["whole test set", "MCC"], rows))
    print("The model kept is that of the lowest dev loss.")


def score_cell(score: "Score") -> str:
    """The printed MCC; 0 is explained where it comes of a constant prediction, for which MCC is undefined."""
    constant = int((score.confusion.sum(0) > 0).sum()) == 1
    return f"{score.mcc:.3f}" + (", predicts one class only" if constant else "")


def _names(config: FinetuneConfig) -> tuple[str, str]:
    """Data and model in words, for figures and the model card: no folder of this machine."""
    data = "splice junctions" if config.train is None else Path(config.train).name
    if config.model is None:
        return data, f"{config.size} from scratch"
    folder = config.model.resolve()
    return data, f"pretrained {folder.parent.name if folder.name == 'model' else folder.name}"
