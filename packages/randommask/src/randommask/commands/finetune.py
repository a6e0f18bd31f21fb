"""`randommask finetune TRAIN`: from a table of labelled sequences to a scored classifier, from the library's parts alone."""

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch

from randommask.commands.launch import begin_together, in_all_processes, last_checkpoint, open_run
from randommask.data.labelled import Labelled, read_labelled
from randommask.sample import SPLICE_JUNCTIONS, sample_path
from randommask.training.processes import Processes, share_of_batch
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Operands, Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.manners import Result
from scarce_common_utils.model_card import settings_of
from scarce_common_utils.options import ModelOptions, RunOptions, choose_device
from scarce_common_utils.resumption import check_split, closing_lines, delivered, record_of, threads
from scarce_common_utils.run_folder import RunFolder

if TYPE_CHECKING:
    from randommask.training.classification import Score
    from randommask.training.finetuning import Encoded, Scale
    from randommask.training.finetuning_report import Outcome
    from randommask.training.regression import Fit

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
class FinetuneConfig(RunOptions, ModelOptions):
    """Options of `randommask finetune`."""

    train: Annotated[
        str | None,
        Operands("TRAIN", "CSV, TSV or parquet of labelled sequences; by default the UCI splice junctions, built in"),
    ] = None
    dev: Annotated[
        Path | None, Option("Table to choose the epoch on; by default a tenth of TRAIN by distinct sequence")
    ] = None
    test: Annotated[Path | None, Option("Table to score on; by default a tenth of TRAIN by distinct sequence")] = None
    sequence_column: Annotated[str, Option("Name of the column of letters")] = "sequence"
    label_column: Annotated[str, Option("Name of the column of labels")] = "label"
    task: Annotated[
        Literal["classes", "regression"], Option("What the labels are: names of classes, or a number a row")
    ] = "classes"
    model: Annotated[
        Path | None,
        Option(
            "Folder of a pretrained model, such as RUN/model, DNABERT's or another encoder's; by default from scratch"
        ),
    ] = None
    overlap: Annotated[
        bool | None, Option("k-mers at every base, or side by side; by default as --model says, else at every base")
    ] = None
    trust_remote_code: Annotated[bool, Option("Run the code that the folder of --model brings along")] = False
    size: Annotated[Literal["tiny", "small", "medium", "base"], Option("Size from scratch")] = "tiny"
    start: Annotated[
        Literal["usual", "structured"],
        Option("Initial weights from scratch; give a rival the start of the model it is compared with"),
    ] = "usual"
    k: Annotated[int, Option("Bases a k-mer from scratch", at_least=1, at_most=8)] = 6
    epochs: Annotated[int, Option("Passes over TRAIN", at_least=1)] = 6
    steps: Annotated[int | None, Option("Optimizer steps, in place of --epochs", at_least=1)] = None
    batch_size: Annotated[int, Option("Sequences a step, of all devices together", at_least=1)] = 32
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
        if not self.unsettled:
            for name in _ONLY_SCRATCH:
                if name in self.given and self.model is not None:
                    raise UserError(
                        f"--{name} is for training from scratch, and --model brings its own. Leave one of them out."
                    )
            if "epochs" in self.given and "steps" in self.given:
                raise UserError(f"--epochs is {self.epochs} and --steps is {self.steps}. Give one of them.")


class Job(NamedTuple):
    """Everything that a run needs, built before its folder is made."""

    config: FinetuneConfig
    device: torch.device
    data: Labelled
    sides: "dict[str, Encoded]"
    scale: "Scale | None"
    model: Any
    tokenizer: Any


def finetune(config: FinetuneConfig) -> Result:
    """Train a classifier of DNA sequences, from a pretrained model or from scratch, and score it on the whole test set."""
    return in_all_processes(lambda: _finetune(config))


def _finetune(config: FinetuneConfig) -> Result:
    began = time.monotonic()
    from randommask.training.quiet import quiet_transformers

    run, config, processes = begin_together(config, command="finetune", may_change=("device", "workers"))
    with quiet_transformers():
        job = build_job(config)
        run = open_run(run, processes, make=lambda: _made(job.config))
        with run, threads(job.config.threads):
            processes.by_main(lambda: check_split(run, split_of(job.data), place=config.train or "the sample"))
            _fit(run, job, processes, began=began)
            return delivered(run, push_to_hub=config.push_to_hub) if processes.main else None


def _made(config: FinetuneConfig) -> RunFolder:
    begun = "scratch" if config.model is None else "pretrained"
    return RunFolder.create(
        config.out,
        default_name=f"randommask-finetune-{begun}-seed-{config.seed}",
        package="randommask",
        command="finetune",
        config=plain_config(config),
        given=config.written,
    )


def split_of(data: Labelled) -> dict[str, Any]:
    """What split.json holds: which rows went where, and digests of the letters and labels on each side."""
    sides = {"train": data.train, "dev": data.dev, "test": data.test}
    digests = {
        name: hashlib.sha256(repr((data.names, list(side.sequences), side.targets.tolist())).encode()).hexdigest()
        for name, side in sides.items()
    }
    return {"sha256": digests} | data.split


def build_job(config: FinetuneConfig, data: Labelled | None = None) -> Job:
    """Read the tables (but for `data`, which were read already), divide them, make the model; write nothing.

    Raises:
        UserError: anything wrong with files, device, labels, or the model's folder.
    """
    from randommask.training.encoders import pretrained_classifier, scratch_classifier
    from randommask.training.finetuning import Encoded, Scale

    device = choose_device(config.device)
    if device.type == "cuda" and device.index not in (None, 0):
        raise UserError(
            f"--device is {config.device!r}, but the Trainer takes the first visible one. Set CUDA_VISIBLE_DEVICES={device.index} "
            "and use --device cuda."
        )
    share_of_batch(config.batch_size)
    data = data or read_labelled(
        sample_path(SPLICE_JUNCTIONS) if config.train is None else Path(config.train),
        dev=config.dev,
        test=config.test,
        task=config.task,
        columns=(config.sequence_column, config.label_column),
        seed=config.seed,
        source_name=None if config.train else "The sample",
    )
    if config.model is not None:
        model, tokenizer = pretrained_classifier(
            config.model,
            labels=data.names,
            dropout=config.dropout,
            seed=config.seed,
            overlap=config.overlap,
            trust_remote_code=config.trust_remote_code,
        )
    else:
        model, tokenizer = scratch_classifier(
            config.size, k=config.k, start=config.start, labels=data.names, dropout=config.dropout, seed=config.seed
        )
        tokenizer.overlap = tokenizer.init_kwargs["overlap"] = config.overlap is not False
    if hasattr(tokenizer, "k"):
        _refuse_too_short(config, data, k=tokenizer.k)
    rows = {"train": data.train, "dev": data.dev, "test": data.test}
    sides = {name: Encoded(side.sequences, side.targets, tokenizer, config=model.config) for name, side in rows.items()}
    targets = data.train.targets
    scale = None if data.names else Scale(float(targets.mean()), float(targets.std()))
    width = model.config.hidden_size
    config = dataclasses.replace(
        config,
        learning_rate=config.learning_rate or (1e-3 if width <= 64 else 3e-4 if width <= 256 else 3e-5),
        threads=config.threads or (1 if width <= 64 else None),
    )
    return Job(config, device, data, sides, scale, model, tokenizer)


def _refuse_too_short(config: FinetuneConfig, data: Labelled, *, k: int) -> None:
    """Refuse a file none of whose sequences holds a k-mer: the model would see [CLS] and [SEP] alone."""
    longest: dict[str, int] = {}
    for name, rows in (("train", data.train), ("dev", data.dev), ("test", data.test)):
        place = str({"dev": config.dev, "test": config.test}.get(name) or config.train or "The sample")
        longest[place] = max([longest.get(place, 0), *map(len, rows.sequences)])
    for place, bases in longest.items():
        if bases < k:
            raise UserError(
                f"{place}: all sequences have fewer than {k} bases (the longest has {bases}), so none holds a {k}-mer. Give longer "
                "sequences, or a model of smaller k."
            )


def _fit(run: RunFolder, job: Job, processes: Processes, *, began: float) -> None:
    """Train from the newest checkpoint, or from the start, to the end; the first process scores, saves, draws, prints."""
    from randommask.training import finetuning
    from randommask.training.finetuning_report import Fresh, Outcome
    from randommask.training.kmer_regression import Rows, regression_floors
    from randommask.training.pretraining import Placement

    config, data = job.config, job.data
    assert config.learning_rate is not None
    checkpoint = last_checkpoint(run, processes)
    placement = Placement(job.device, config.precision, config.workers)
    tuned = finetuning.finetune(
        job.model,
        job.sides["train"],
        job.sides["dev"],
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
        scale=job.scale,
        resume_from=checkpoint,
    )
    if not processes.main:
        return
    last = _tested(job, autocast=placement.autocast)
    job.model.load_state_dict(tuned.chosen)
    chosen = _tested(job, autocast=placement.autocast)
    if job.scale is not None:
        finetuning.unscale(job.model, job.scale)
    job.model.save_pretrained(run.model)
    job.tokenizer.save_pretrained(run.model)
    floors = (
        regression_floors(*(Rows(side.sequences, side.targets) for side in (data.train, data.dev, data.test)))
        if config.regressions
        else {}
    )
    fresh = Fresh(last.fresh, chosen.fresh, len(data.fresh))
    outcome = Outcome(tuned, last.whole, chosen.whole, floors, fresh)
    _report(run, job, outcome=outcome, seconds=time.monotonic() - began)


class _Tested(NamedTuple):
    """Score over the whole test set, and the headline number over its rows without repeats, None where they are fewer than two."""

    whole: "Score | Fit"
    fresh: float | None


def _tested(job: Job, *, autocast: torch.dtype | None) -> _Tested:
    """Score of the model as it stands."""
    from randommask.training.finetuning import headline, logits_of, scored

    labels = job.sides["test"].labels
    logits = logits_of(job.model, job.sides["test"], autocast=autocast)
    fresh = torch.tensor(job.data.fresh, dtype=torch.int64)
    apart = headline(scored(logits[fresh], labels[fresh], scale=job.scale)) if len(fresh) > 1 else None
    return _Tested(scored(logits, labels, scale=job.scale), apart)


def _report(run: RunFolder, job: Job, *, outcome: "Outcome", seconds: float) -> None:
    """Record, figures and the printed table."""
    from randommask.training.finetuning_report import (
        About,
        class_table,
        classifier_card,
        draw_finetuning,
        numbers_of,
        rows_in_words,
        scores_in_words,
    )

    config, split = job.config, job.data.split
    numbers = numbers_of(outcome, split=split)
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
        outcome=outcome,
        labels=job.data.names,
    )
    confusion = getattr(outcome.chosen, "confusion", None)
    about = About(
        model=model,
        data=data,
        labels=job.data.names,
        split=split,
        classes=None if confusion is None else class_table(job.data, confusion),
        settings=settings_of(config, run.given, operand="train"),
        seed=config.seed,
        seconds=seconds,
        device=job.device.type,
        licence=config.licence,
    )
    write_atomically(run.model / "README.md", classifier_card(about, outcome, numbers=numbers).encode())
    begun = config.model or f"from scratch, {config.size}, {config.start} start, k = {config.k}"
    print(f"\n{begun}, seed {config.seed}")
    print(rows_in_words(job.data, job.sides, k=getattr(job.tokenizer, "k", 1)))
    print("\n" + scores_in_words(outcome))
    print(closing_lines(run, seed=config.seed, figures=figures, model=True))


def _names(config: FinetuneConfig) -> tuple[str, str]:
    """Data and model in words, for figures and the model card: no folder of this machine."""
    data = "splice junctions" if config.train is None else Path(config.train).name
    if config.model is None:
        return data, f"{config.size} from scratch"
    folder = config.model.resolve()
    return data, f"pretrained {folder.parent.name if folder.name == 'model' else folder.name}"
