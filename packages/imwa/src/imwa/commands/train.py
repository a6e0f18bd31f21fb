"""`imwa train DATA`: train an image classifier by iterated weight averaging, or one of its controls, and evaluate it."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from imwa import __version__
from imwa.commands.corrections import CorrectionOptions, refuse_corrections
from imwa.commands.diagnosis import build_diagnostics
from imwa.commands.job import Job, build_job, plan_of
from imwa.commands.network import OURS
from imwa.commands.outcome import finish
from imwa.group import ProcessLost
from imwa.replica_sum import HoldsNan
from imwa.training.company import Company, company
from imwa.training.loop import Surroundings
from imwa.training.loop import train as train_loop
from scarce_common_utils.checkpoints import save_checkpoint
from scarce_common_utils.command_line import Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sets import StoredImages
from scarce_common_utils.options import ImageDataOptions, ModelOptions, RunOptions, choose_device
from scarce_common_utils.progress import Progress
from scarce_common_utils.resumption import (
    begin,
    check_split,
    delivered,
    load_newest,
    threads,
)
from scarce_common_utils.run_folder import RunFolder, to_stderr
from scarce_common_utils.signals import stop_requests

# Names that other projects have for our options, for the error of an unknown option.
HINTS = {
    "lr": "--learning-rate",
    "wd": "--weight-decay",
    "arch": "--model",
    "net": "--model",
    "imb_factor": "--imbalance (largest over smallest class: 1 / imb_factor)",
    "imb_ratio": "--imbalance",
    "num_models": "--replicas",
    "num_replicas": "--replicas",
    "num_episodes": "--episodes",
    "epochs": "--steps (optimizer steps of one replica)",
    "total_steps": "--steps",
    "algorithm": "--method",
    "loss_type": "--loss",
    "train_rule": "--reweighting (DRW is deferred)",
    "tro": "--tau",
    "data_root": "--image-root",
}
# What a resumed run may be given otherwise than before: none of it changes a number on a CPU.
MAY_CHANGE = ("device", "download", "data_folder", "checkpoint_every", "in_memory")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ImageDataOptions, CorrectionOptions, ModelOptions):
    """Options of `imwa train`."""

    imbalance: Annotated[
        float | None,
        Option(
            "Make the training images long-tailed: largest over smallest class; by default they stay as they are",
            at_least=1.0,
        ),
    ] = None
    class_order: Annotated[
        Literal["drawn", "labels"],
        Option(
            "Which classes are rare under --imbalance: drawn from the seed, or the last by label (the published CIFAR-LT sets)"
        ),
    ] = "drawn"
    method: Annotated[
        Literal["single", "mwa", "imwa"],
        Option("One plain run; replicas averaged once at the end; replicas averaged in every episode"),
    ] = "imwa"
    replicas: Annotated[
        int, Option("M, models trained from each start (mwa, imwa); the cost is M times a single run", at_least=1)
    ] = 3
    episodes: Annotated[int, Option("E, number of averages (imwa)", at_least=1)] = 10
    steps: Annotated[int, Option("T, optimizer steps of each replica over all episodes", at_least=1)] = 450
    optimizer_state: Annotated[
        Literal["average", "local", "reset"], Option("What becomes of the momentum when an episode ends")
    ] = "average"
    batch_norm: Annotated[
        Literal["average", "pooled"],
        Option("BatchNorm's running variances: averaged, or those of the replicas' mixture"),
    ] = "average"
    on_nan: Annotated[
        Literal["stop", "leave-out"],
        Option("What a replica that diverged does: stop the run, or stay out of the average"),
    ] = "stop"
    deterministic: Annotated[
        bool, Option("With several processes, sum in replica order: the bits of one process, for more traffic")
    ] = False
    loss: Annotated[
        Literal["cross-entropy", "balanced-softmax", "logit-adjustment", "ldam"],
        Option("Trained on; the last three balance rare classes (ldam: small and resnet32, with cosine logits)"),
    ] = "cross-entropy"
    reweighting: Annotated[
        Literal["none", "deferred"],
        Option("deferred: from 80 % of the run on, weigh classes by the effective number of their images (DRW)"),
    ] = "none"
    diagnostics: Annotated[
        bool,
        Option("Measure of every average its replicas' spread and BatchNorm anew, and warn of a collapse (mwa, imwa)"),
    ] = True
    recompute_every: Annotated[
        int | None,
        Option(
            "Averages between two with BatchNorm measured anew; by default a tenth of them, and always the last",
            at_least=1,
            unit="episodes",
        ),
    ] = None
    barrier: Annotated[
        str | None,
        Option("Episodes in which the loss between replicas is measured: all, or numbers from 0 and last, as 0,last"),
    ] = None
    ema_decay: Annotated[
        float | None,
        Option("Evaluate beside the model its moving average, of this decay a step", at_least=0.0, below=1.0),
    ] = None
    ensemble: Annotated[bool, Option("Evaluate the last replicas' prediction ensemble too (mwa, imwa)")] = False
    shared_start: Annotated[
        float,
        Option(
            "A control: this share of the run one replica trains, and all start from there (mwa, imwa)",
            at_least=0.0,
            below=1.0,
        ),
    ] = 0.0
    average_until: Annotated[
        float,
        Option(
            "A control: after this share of the run the average goes on as one run (mwa, imwa)",
            above=0.0,
            at_most=1.0,
        ),
    ] = 1.0
    init_from: Annotated[
        Path | None,
        Option("Start from the weights of this safetensors file, such as a run's model/; the classifier is drawn anew"),
    ] = None
    model: Annotated[str, Option("small (8 layers, for 8x8 to 32x32), resnet32, or a torchvision model's name")] = (
        "small"
    )
    batch_size: Annotated[int, Option("Images a step", at_least=2)] = 64
    learning_rate: Annotated[float, Option("Its largest value", above=0.0)] = 0.1
    schedule: Annotated[
        Literal["cosine", "constant", "steps"],
        Option(
            "Of the learning rate over the global steps: cosine to 0, constant, or CIFAR-LT's warm-up and two drops"
        ),
    ] = "cosine"
    warm_up: Annotated[
        float, Option("Share of the run in which the learning rate rises (cosine, constant)", at_least=0.0, below=1.0)
    ] = 0.0
    momentum: Annotated[float, Option("Of SGD", at_least=0.0, below=1.0)] = 0.9
    weight_decay: Annotated[float, Option("On all parameters", at_least=0.0)] = 5e-4
    in_memory: Annotated[
        bool | None, Option("Decode all images at the start; by default where they take at most 4 GiB")
    ] = None
    threads: Annotated[
        int | None,
        Option(
            "Of torch on a CPU; by default 1 for the small model on images up to 16x16, else torch's choice", at_least=1
        ),
    ] = None
    evaluate_every: Annotated[
        int | None,
        Option(
            "Global steps between evaluations of a replica; by default a tenth of the run", at_least=1, unit="steps"
        ),
    ] = None
    checkpoint_every: Annotated[
        int | None,
        Option(
            "Optimizer steps, over all replicas, between checkpoints; by default a tenth of all",
            at_least=1,
            unit="steps",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse options that the chosen method would not look at."""
        if self.unsettled:
            return
        unused = {
            "single": (
                *("replicas", "episodes", "optimizer_state", "batch_norm", "on_nan", "deterministic"),
                *("ensemble", "shared_start", "average_until", "diagnostics", "recompute_every", "barrier"),
            ),
            "mwa": ("episodes", "optimizer_state", "recompute_every"),
            "imwa": (),
        }
        for name in unused[self.method]:
            if name in self.given:
                flag = "--" + name.replace("_", "-")
                raise UserError(
                    f"{flag} changes nothing with --method {self.method}. Leave it out, or choose --method imwa."
                )
        if self.shared_start >= self.average_until:
            raise UserError(
                f"--shared-start is {self.shared_start:g} and --average-until {self.average_until:g}, so no step is left for "
                "the replicas. Choose a smaller --shared-start."
            )
        if self.warm_up and self.schedule == "steps":
            raise UserError(
                f"--warm-up is {self.warm_up:g}, but --schedule steps has a warm-up of its own. Leave it out."
            )
        if self.loss == "ldam" and self.model not in OURS:
            raise UserError(
                f"--loss ldam needs a classifier of cosines, which {self.model} has not. Choose --model {' or '.join(OURS)}."
            )
        refuse_corrections(self)
        if self.class_order != "drawn" and self.imbalance is None:
            raise UserError(
                f"--class-order is {self.class_order}, but without --imbalance no class is made rare. Give --imbalance."
            )


def train(config: TrainConfig) -> dict[str, Any] | None:
    """Train an image classifier by iterated weight averaging, or one of its controls, and evaluate it by class."""
    try:
        with company(choose_device(config.device)) as together:
            return _train(config, together)
    except ProcessLost as error:
        raise UserError(f"{error} --resume with the run folder goes on from the last finished episode.") from error
    except HoldsNan as error:
        hint = "" if config.on_nan == "leave-out" else " With --on-nan leave-out the run goes on without it."
        raise UserError(f"{error}{hint}") from error


def _train(config: TrainConfig, together: Company) -> dict[str, Any] | None:
    began = time.monotonic()
    run, config = begin(config, package="imwa", command="train", may_change=MAY_CHANGE)
    refuse_company(config, together)
    if run is not None:
        together.checkpoints(run.checkpoints)
    with together.first_goes_first():
        job = build_job(config, together)
    job.state.diagnostics = build_diagnostics(job.config, job, together)
    if together.first:
        tell(config, job)
    if run is None:
        options = plain_config(job.config)

        def create() -> RunFolder:
            return RunFolder.create(
                config.out,
                default_name=job.name,
                package="imwa",
                command="train",
                config=options,
                given=config.written,
            )

        run = together.first_does(create)
    with run, threads(job.config.threads):
        if together.first:
            check_split(run, job.split, place=job.training.place)
        if config.resume is not None:
            resume(run, job, together)
        fit(run, job, together)
        if together.first:
            finish(run, job, seconds=time.monotonic() - began)
        return delivered(run, push_to_hub=config.push_to_hub) if together.first else None


def refuse_company(config: TrainConfig, together: Company) -> None:
    """Refuse more processes than the run has replicas.

    Raises:
        UserError: both numbers are named.
    """
    replicas = plan_of(config)[0]
    if replicas < together.size:
        raise UserError(
            f"{together.size} processes were started, but --method {config.method} trains {replicas} "
            f"replica{'s' if replicas > 1 else ''}, and each process needs one. Start {replicas}, or raise --replicas."
        )


def tell(config: TrainConfig, job: Job) -> None:
    """Say what is run otherwise than it was asked for."""
    if config.method == "imwa" and config.episodes > config.steps:
        to_stderr(
            f"imwa: --episodes is {config.episodes}, but the run has {config.steps} steps; it is run with {config.steps}."
        )
    if job.unlabelled:
        one = job.unlabelled == 1
        to_stderr(
            f"imwa: {job.unlabelled} {'image' if one else 'images'} without a label {'is' if one else 'are'} not used"
        )
    if isinstance(job.training, StoredImages):
        (channels, height, width), count = job.training.shape, len(job.training) + len(job.test)
        size = count * channels * height * width / 2**30
        to_stderr(f"imwa: {count} images of {height}x{width} stay on disk; in memory they would take {size:.2g} GiB")


def resume(run: RunFolder, job: Job, together: Company) -> None:
    """Go on from the newest checkpoint that every process has."""
    if together.alone:
        load_newest(run, lambda state: job.state.load_state_dict(state, digest=run.digest))
    else:
        state = together.newest_common(together.checkpoints(run.checkpoints), to_stderr)
        if state is not None:
            try:
                job.state.load_state_dict(state, digest=run.digest)
            except ValueError as error:
                raise UserError(f"A checkpoint in {run.checkpoints} does not fit this run: {error}") from error
    if together.first:
        run.cut_metrics(job.state.done)
        to_stderr(f"imwa: goes on at step {job.state.done} of {job.cost}")


def fit(run: RunFolder, job: Job, together: Company) -> None:
    """Train to the end, with progress, metrics and checkpoints."""
    checkpoints = together.checkpoints(run.checkpoints)

    def save() -> None:
        state = job.state.state_dict(digest=run.digest, version=__version__)
        save_checkpoint(checkpoints, step=job.state.done, state=state)

    total, done = job.state.own_steps, job.state.own_steps_until(job.state.done)
    progress = Progress(total, "steps", label="imwa", start=done) if together.first else nullcontext(Silence())
    with progress as bar, stop_requests() as request:
        around = Surroundings(
            batch=job.batch,
            autocast=job.autocast,
            objective=job.objective(),
            accuracy=lambda model: job.evaluation(model).accuracy,
            log=run.log,
            save=save,
            bar=bar,
            finished=job.finished,
            company=together,
            predict=job.predict,
            stop=lambda: request.signal,
        )
        train_loop(job.state, job.schedule, around=around)


class Silence:
    """Progress of a process that does not speak."""

    def advance(self, count: int = 1, **shown: float) -> None:
        """Say nothing."""
