"""`randommask gue --data GUE`: the tasks of GUE with the published recipe of each, several seeds, one table beside published scores."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch

from randommask.commands.finetune import split_of
from randommask.commands.launch import begin_together, in_all_processes, open_run
from randommask.data.gue import BATCH, LEARNING_RATE, GueData, choose_tasks, read_task
from scarce_common_utils.command_line import Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.manners import Result
from scarce_common_utils.options import RunOptions, choose_device
from scarce_common_utils.provenance import data_digest_of, versions
from scarce_common_utils.records import Record, read_records, record_path, write_record
from scarce_common_utils.resumption import threads
from scarce_common_utils.run_folder import RunFolder, to_stderr

if TYPE_CHECKING:
    from randommask.training.processes import Processes

GUE_HINTS = {
    "model_name_or_path": "--model",
    "data_path": "--data",
    "kmer": "--k",
    "lr": "--learning-rate",
    "per_device_train_batch_size": "--batch-size (of all devices together)",
    "max_steps": "--steps",
    "output_dir": "--out",
}


@dataclass(frozen=True, kw_only=True)
class GueConfig(RunOptions):
    """Options of `randommask gue`."""

    data: Annotated[Path | None, Option("Folder of GUE, with EMP, prom, tf, mouse, splice and virus in it")] = None
    tasks: Annotated[
        str | None, Option("Tasks to run, such as prom_core_tata,mouse/2; by default all that have files")
    ] = None
    reduced: Annotated[
        bool, Option("Also tasks without a train file, trained on dev and named reduced in every table")
    ] = False
    seeds: Annotated[int, Option("Runs of each task, from --seed on", at_least=1)] = 3
    model: Annotated[
        Path | None,
        Option("Folder of a pretrained model: RUN/model, DNABERT's or another encoder's; by default from scratch"),
    ] = None
    size: Annotated[Literal["tiny", "small", "medium", "base"], Option("Size from scratch")] = "tiny"
    start: Annotated[Literal["usual", "structured"], Option("Initial weights from scratch")] = "usual"
    k: Annotated[int, Option("Bases a k-mer from scratch", at_least=1, at_most=8)] = 6
    overlap: Annotated[bool | None, Option("k-mers at every base, or side by side; by default as --model says")] = None
    trust_remote_code: Annotated[bool, Option("Run the code that the folder of --model brings along")] = False
    learning_rate: Annotated[
        float, Option("At its peak; the published one is 3e-5, small models need more", above=0.0, at_most=1.0)
    ] = LEARNING_RATE
    batch_size: Annotated[int, Option("Sequences a step, of all devices together", at_least=1)] = BATCH
    steps: Annotated[int | None, Option("Optimizer steps of every task, in place of its recipe", at_least=1)] = None
    dropout: Annotated[float, Option("On states and classifier", at_least=0.0, below=1.0)] = 0.1
    regressions: Annotated[bool, Option("Also the logistic regression on 4-mers, the floor")] = True
    workers: Annotated[int, Option("Loading processes; none changes a number", at_least=0)] = 0
    threads: Annotated[int | None, Option("Of torch on a CPU", at_least=1)] = None

    def __post_init__(self) -> None:
        """Refuse options that do not fit together."""
        if not self.unsettled:
            if self.data is None:
                raise UserError("--data is missing. Give the folder of GUE, such as --data GUE.")
            for name in ("size", "start", "k"):
                if name in self.given and self.model is not None:
                    raise UserError(
                        f"--{name} is for training from scratch, and --model brings its own. Leave one of them out."
                    )


def gue(config: GueConfig) -> Result:
    """Fine-tune on the tasks of GUE with their published recipes, over several seeds, and print one table."""
    return in_all_processes(lambda: _gue(config))


def _gue(config: GueConfig) -> Result:
    from randommask.training.processes import share_of_batch
    from randommask.training.quiet import quiet_transformers

    run, config, processes = begin_together(
        config,
        command="gue",
        may_change=("device", "workers", "threads", "seeds", "tasks", "reduced"),
    )
    assert config.data is not None
    device = choose_device(config.device)
    share_of_batch(config.batch_size)
    names = [] if config.tasks is None else [name.strip() for name in config.tasks.split(",") if name.strip()]
    chosen, left_out = choose_tasks(config.data, names, reduced=config.reduced)
    with quiet_transformers():
        read = [read_task(config.data, name) for name in chosen]
        _model(config, read[0], seed=config.seed)  # a folder that cannot be used is told before anything is written
        if left_out:
            to_stderr(f"randommask: left out, having no train file: {', '.join(left_out)} (--reduced runs them on dev)")
        arm = "scratch" if config.model is None else "pretrained"
        run = open_run(run, processes, make=lambda: _made(config, arm=arm))
        to_stderr(f"randommask: run folder {run.path}")
        with run, threads(config.threads):
            for data in read:
                _run_task(run, config, data, arm=arm, device=device, processes=processes)
    if not processes.main:
        return None
    _print_table(run, config, read, arm=arm)
    records = [asdict(record) for record in read_records(run.path / "records")]
    return {"run": run.path, "records": records, "table": run.path / "table.md"}


def _made(config: GueConfig, *, arm: str) -> RunFolder:
    return RunFolder.create(
        config.out,
        default_name=f"randommask-gue-{arm}",
        package="randommask",
        command="gue",
        config=plain_config(config),
        given=config.written,
    )


def _print_table(run: RunFolder, config: GueConfig, read: Sequence[GueData], *, arm: str) -> None:
    from randommask.training.gue_report import gue_markdown, gue_text

    records = read_records(run.path / "records")
    titles = {data.task.name: data.title for data in read}
    model = "from scratch, " + config.size if config.model is None else config.model.resolve().name
    (run.path / "table.md").write_text(gue_markdown(records, titles, arm=arm, model=model), encoding="utf-8")
    print("\n" + gue_text(records, titles, arm=arm))
    print(f"Table: {run.path / 'table.md'}\nRun folder: {run.path}")


def _run_task(
    run: RunFolder, config: GueConfig, data: GueData, *, arm: str, device: torch.device, processes: "Processes"
) -> None:
    """Every (arm, seed) of a task that has no record yet; all processes train, the first keeps the record."""
    from randommask.training.gue_report import experiment_of

    folder = run.path / "records"
    done = processes.shared(
        {
            (record.arm, record.seed)
            for record in read_records(folder)
            if record.experiment == experiment_of(data.task.name)
        }
    )
    wanted = [(arm, seed) for seed in range(config.seed, config.seed + config.seeds)]
    if config.regressions and processes.main:
        wanted.append(("kmer-regression", config.seed))
    for name, seed in wanted:
        if (name, seed) in done:
            continue
        began = time.monotonic()
        numbers = _floor(data) if name == "kmer-regression" else _tuned(run, config, data, seed=seed, device=device)
        if not processes.main:
            continue
        record = Record(
            experiment=experiment_of(data.task.name),
            arm=name,
            seed=seed,
            numbers=numbers | {"test_rows": len(data.data.test.sequences), "reduced": float(data.reduced)},
            digest=run.digest,
            command_line=run.line,
            data_digest=data_digest_of(split_of(data.data)),
            versions=versions("randommask"),
            seconds=time.monotonic() - began,
            threads=torch.get_num_threads(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        )
        write_record(record_path(folder, record), record)
        to_stderr(f"randommask: {data.title}, {name}, seed {seed}: {100 * float(numbers['score'] or 0):.2f}")


def _model(config: GueConfig, data: GueData, *, seed: int) -> tuple[Any, Any]:
    from randommask.training.encoders import pretrained_classifier, scratch_classifier

    shared: dict[str, Any] = {"labels": data.data.names, "dropout": config.dropout, "seed": seed}
    if config.model is not None:
        return pretrained_classifier(
            config.model, overlap=config.overlap, trust_remote_code=config.trust_remote_code, **shared
        )
    model, tokenizer = scratch_classifier(config.size, k=config.k, start=config.start, **shared)
    tokenizer.overlap = config.overlap is not False
    return model, tokenizer


def _tuned(
    run: RunFolder, config: GueConfig, data: GueData, *, seed: int, device: torch.device
) -> dict[str, float | None]:
    """Train one seed and score the checkpoint of the lowest dev loss once on the test set."""
    from randommask.training import finetuning
    from randommask.training.pretraining import Placement

    model, tokenizer = _model(config, data, seed=seed)
    rows = data.data
    train, dev, test = (
        finetuning.Encoded(side.sequences, side.targets, tokenizer, config=model.config)
        for side in (rows.train, rows.dev, rows.test)
    )
    task = data.task
    placement = Placement(device, config.precision, config.workers)
    tuned = finetuning.finetune(
        model,
        train,
        dev,
        tuning=finetuning.Tuning(
            task.epochs,
            config.steps or task.steps,
            config.batch_size,
            config.learning_rate,
            warm_up_steps=task.warm_up,
            evaluate_every=task.evaluate_every,
        ),
        placement=placement,
        log=lambda step, **numbers: None,
        checkpoints=run.path / "checkpoints",
        seed=seed,
    )
    last = finetuning.logits_of(model, test, autocast=placement.autocast)
    model.load_state_dict(tuned.chosen)
    chosen = finetuning.logits_of(model, test, autocast=placement.autocast)
    return _scores(chosen.argmax(1), data) | {
        "score_last": _scores(last.argmax(1), data)["score"],
        "chosen_evaluation": tuned.epoch,
        "rows_cut": test.cut,
    }


def _floor(data: GueData) -> dict[str, float | None]:
    from randommask.training.kmer_regression import Rows, floor_predictions

    sides = (data.data.train, data.data.dev, data.data.test)
    predicted = floor_predictions(*(Rows(side.sequences, side.targets) for side in sides), positional=False)
    return _scores(predicted["kmer"], data)


def _scores(predicted: torch.Tensor, data: GueData) -> dict[str, float | None]:
    """The task's metric over the whole test set, and over its rows that stand nowhere else."""
    from randommask.training.classification import confusion_matrix, macro_f1, matthews

    targets, classes = data.data.test.targets, len(data.data.names)
    metric = macro_f1 if data.task.metric == "f1" else matthews
    fresh = torch.tensor(data.data.fresh, dtype=torch.int64)
    return {
        "score": metric(confusion_matrix(predicted, targets, classes=classes)),
        "score_deduplicated": metric(confusion_matrix(predicted[fresh], targets[fresh], classes=classes)),
        "test_rows_repeated": len(targets) - len(fresh),
    }
