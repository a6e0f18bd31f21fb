"""`layermatch train DATA`: the whole job on a person's own images, from the library's parts alone."""

import time
from dataclasses import dataclass
from typing import Annotated, Literal

from layermatch import __version__
from layermatch.commands.criterion import refuse_unused
from layermatch.commands.job import Job, build_job
from layermatch.commands.launch import choose_tracker, find_place, leave, open_tracker
from layermatch.commands.notices import notices
from layermatch.commands.outcome import finish, print_summary
from layermatch.commands.sittings import Sittings
from layermatch.training.loop import Outlets
from layermatch.training.loop import train as train_loop
from scarce_common_utils.checkpoints import save_checkpoint
from scarce_common_utils.command_line import Option, plain_config
from scarce_common_utils.options import ImageDataOptions, RunOptions, StreamingOptions
from scarce_common_utils.process_group import leave_together
from scarce_common_utils.progress import Progress
from scarce_common_utils.resumption import begin, check_split, load_newest, threads
from scarce_common_utils.run_folder import RunFolder, to_stderr

# Names that other projects (USB, TorchSSL, FixMatch-pytorch) have for our options, for the error of an unknown option.
HINTS = {
    "p_cutoff": "--threshold",
    "ulb_loss_ratio": "--unlabelled-weight",
    "lambda_u": "--unlabelled-weight",
    "uratio": "--unlabelled-ratio",
    "mu": "--unlabelled-ratio",
    "ema_m": "--ema-momentum",
    "num_labels": "--labels-per-class (a number for each class)",
    "lb_num_labels": "--labels-per-class (a number for each class)",
    "num_train_iter": "--steps",
    "total_steps": "--steps",
    "epoch": "--steps (there are no epochs)",
    "num_eval_iter": "--evaluate-every",
    "num_save_iter": "--checkpoint-every",
    "lr": "--learning-rate",
    "algorithm": "--method",
    "alg": "--method",
    "net": "--model",
    "arch": "--model",
    "img_size": "--image-size",
    "dataset": "DATA, without a flag",
    "data_dir": "DATA, without a flag (--data-folder is where torchvision:NAME keeps its files)",
    "save_dir": "--out",
    "save_name": "--out",
    "load_path": "--resume (a run folder)",
    "gpu": "--device",
    "gpu_id": "--device",
    "amp": "--precision bf16, or fp16",
    "use_amp": "--precision bf16, or fp16",
    "use_tensorboard": "--tracker tensorboard",
    "use_wandb": "--tracker wandb",
    "multiprocessing_distributed": "accelerate launch, or torchrun, before the command",
    "world_size": "accelerate launch, or torchrun, before the command",
    "ent_loss_ratio": "--variant (0.001 is usb's, 0.01 torchssl's)",
    "gradient_accumulation_steps": "--accumulate",
    "no_grad_relu": "--grad-relu off",
}
# What a resumed run may be given otherwise than before: none of it changes a number on a CPU.
MAY_CHANGE = ("device", "download", "data_folder", "tracker", "in_memory", "workers")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ImageDataOptions, StreamingOptions):
    """Options of `layermatch train`."""

    labels_per_class: Annotated[
        int | None, Option("Labels that may be used of each class; all where some images have none", at_least=1)
    ] = None
    method: Annotated[
        Literal["supervised", "pseudolabel", "fixmatch", "flexmatch", "freematch", "softmatch", "layermatch"],
        Option("What the unlabelled images are used for"),
    ] = "layermatch"
    model: Annotated[
        str,
        Option(
            "small (a WideResNet for 8x8 to 64x64), cnn (three layers), wrn-28-2, wrn-28-8, wrn-37-2, or a torchvision name"
        ),
    ] = "small"
    steps: Annotated[int, Option("Optimizer steps", at_least=1)] = 1000
    batch_size: Annotated[int, Option("Labelled images a step", at_least=1)] = 16
    unlabelled_ratio: Annotated[
        int | None, Option("Unlabelled images for each labelled one; by default 7, and 1 for pseudolabel", at_least=1)
    ] = None
    threshold: Annotated[
        float | None,
        Option("Confidence from which a pseudo-label counts; by default 0.95", at_least=0.0, at_most=1.0),
    ] = None
    weighting: Annotated[
        Literal["fixed", "flexmatch", "freematch", "softmatch"],
        Option("Whose rule says how much a pseudo-label counts (layermatch)"),
    ] = "fixed"
    variant: Annotated[
        Literal["usb", "torchssl"], Option("Which published code freematch and softmatch follow where the two differ")
    ] = "usb"
    unlabelled_weight: Annotated[float, Option("Factor of the unlabelled loss", at_least=0.0)] = 1.0
    learning_rate: Annotated[float, Option("At the first step; falls by cosine 7/16 to a fifth", above=0.0)] = 0.05
    weight_decay: Annotated[float, Option("On matrices and kernels, not on norms and biases", at_least=0.0)] = 5e-4
    grad_relu: Annotated[
        Literal["cut", "agreement", "off", "reverse"],
        Option(
            "Which of the pseudo-labels' gradient reaches the classifier (layermatch): none; what agrees with the labelled "
            "images; all; all, and none the features (a control)"
        ),
    ] = "cut"
    avg_clustering: Annotated[
        Literal["classifier", "classifier-strong", "prototypes", "teacher", "temporal", "none"],
        Option("What is averaged into clustering centres (layermatch); which one the paper means is not known to us"),
    ] = "classifier"
    momentum: Annotated[
        float | None,
        Option(
            "Of the averaged centres per step (layermatch); by default a half-life of 1 % of the run, "
            "0.5^(100/steps), where the library's own default is 0.999; of temporal per visit of an image, 0.6",
            at_least=0.0,
            at_most=1.0,
        ),
    ] = None
    corrupt: Annotated[
        str | None,
        Option("For experiments: make a share of the pseudo-labels wrong, as uniform:0.3, pair:0.3 or fresh:0.3"),
    ] = None
    ema_momentum: Annotated[
        float | None,
        Option(
            "Of the evaluated model average per step; by default as --momentum's default", at_least=0.0, at_most=1.0
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(
            "Of torch on a CPU; by default 1 for the small model on images up to 16x16, else torch's choice", at_least=1
        ),
    ] = None
    views: Annotated[
        Literal["usb", "torchssl", "fixmatch-pytorch"], Option("Which published code the strong views follow")
    ] = "usb"
    skip_unreadable: Annotated[
        bool, Option("Leave out images that cannot be read, count and name them, instead of refusing to begin")
    ] = False
    accumulate: Annotated[
        int,
        Option("Equal parts that each process's batch is computed in, one after the other, to save memory", at_least=1),
    ] = 1
    on_nonfinite: Annotated[
        Literal["stop", "count"],
        Option(
            "A loss that is not finite never touches the model; the run stops and says where, or counts it and goes on"
        ),
    ] = "stop"
    compile: Annotated[bool, Option("Compile the network by torch.compile")] = False
    channels_last: Annotated[bool, Option("Lay out images with the channels last, which GPUs like")] = False
    tracker: Annotated[
        Literal["auto", "none", "tensorboard", "trackio", "wandb"],
        Option("Where the metrics go besides metrics.jsonl; auto is TensorBoard where it is installed"),
    ] = "auto"
    evaluate_every: Annotated[int | None, Option("By default a twentieth of the run", at_least=1, unit="steps")] = None
    checkpoint_every: Annotated[int | None, Option("By default a tenth of the run", at_least=1, unit="steps")] = None

    def __post_init__(self) -> None:
        """Refuse options that the chosen method would not look at."""
        if self.resume is None:
            refuse_unused(self)


def train(config: TrainConfig) -> None:
    """Train an image classifier from few labels and many unlabelled images, and evaluate it."""
    began = time.monotonic()
    run, config = begin(config, package="layermatch", command="train", may_change=MAY_CHANGE)
    tracker = choose_tracker(config.tracker)
    place = find_place(config)
    try:
        job = build_job(config, place)
        run = open_run(run, job)
        if config.resume is not None:
            digest = run.digest
            load_newest(run, lambda state: job.state.load_state_dict(state, digest=digest))
        sittings = Sittings(run, began=began)
        if place.processes.main:
            run.cut_metrics(job.state.step)
            open_tracker(place, tracker, folder=run.path, options=run.config)
        if finished(run, job):
            to_stderr(f"layermatch: this run is finished, all {job.plan.steps} steps of it; nothing is done again")
        else:
            with threads(job.config.threads):
                fit(run, job, sittings)
                if place.processes.main:
                    finish(run, job, seconds=sittings.write())
        if place.processes.main:
            print_summary(run, job)
        leave_together()
    finally:
        leave(place)


def open_run(run: RunFolder | None, job: Job) -> RunFolder:
    """The run's folder in every process, made and checked by the main one alone."""
    processes = job.place.processes
    if processes.main:
        if run is None:
            run = RunFolder.create(
                job.config.out,
                default_name=job.name,
                package="layermatch",
                command="train",
                config=plain_config(job.config),
            )
        check_split(run, job.split, place=job.training.place)
        for notice in notices(job):
            to_stderr(f"layermatch: {notice}")
    return processes.shared(run)


def finished(run: RunFolder, job: Job) -> bool:
    """Whether every file of the end is there; result.json is the last one written."""
    done = job.state.step == job.plan.steps and (run.path / "result.json").is_file()
    return job.place.processes.shared(done)


def fit(run: RunFolder, job: Job, sittings: Sittings) -> None:
    """Train to the end, with progress, metrics and checkpoints, which the main process writes."""
    processes = job.place.processes

    def save() -> None:
        state = job.state.state_dict(digest=run.digest, version=__version__)
        if processes.main:
            save_checkpoint(run.checkpoints, step=job.state.step, state=state)
            sittings.write()

    def evaluate() -> float:
        return processes.shared(job.evaluation().accuracy if processes.main else None)

    def log(step: int, **numbers: float) -> None:
        if processes.main:
            run.log(step, **numbers)
            job.place.accelerator.log(numbers, step=step)

    if job.state.step:
        to_stderr(f"layermatch: goes on at step {job.state.step} of {job.plan.steps}")
    with Progress(job.plan.steps, "steps", label="layermatch", start=job.state.step) as bar:
        train_loop(
            job.state,
            job.plan,
            batches=job.batches,
            views=job.views,
            autocast=job.autocast(),
            outlets=Outlets(evaluate=evaluate, log=log, save=save),
            bar=bar,
        )
