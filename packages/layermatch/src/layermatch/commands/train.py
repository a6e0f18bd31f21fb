"""`layermatch train DATA`: the whole job on a person's own images, from the library's parts alone."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from layermatch import __version__
from layermatch.commands.job import Job, build_job
from layermatch.commands.network import recipe
from layermatch.methods import METHODS
from layermatch.training.loop import Outlets
from layermatch.training.loop import train as train_loop
from layermatch.training.report import LAST_EVALUATIONS, draw_figures, draw_views, final_numbers
from scarce_common_utils.checkpoints import save_checkpoint
from scarce_common_utils.command_line import Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.model_folder import ModelCard, write_model
from scarce_common_utils.options import ImageDataOptions, RunOptions
from scarce_common_utils.progress import Progress
from scarce_common_utils.resumption import begin, check_split, closing_lines, load_newest, record_of, threads
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
    "num_train_iter": "--steps",
    "total_steps": "--steps",
    "lr": "--learning-rate",
    "algorithm": "--method",
    "net": "--model",
    "arch": "--model",
}

UNITS = {
    "accuracy": "%",
    "last_accuracy": "%",
    "best_accuracy": "%",
    "mask_rate": "share of the unlabelled images",
    "pseudo_label_accuracy": "% of those used",
    "pseudo_label_accuracy_all": "% of all",
    "classifier_norm": "mean row norm",
}
# Options that not every method looks at; the others refuse them by name.
LOOKED_AT_BY = {
    **dict.fromkeys(("grad_relu", "avg_clustering", "momentum"), ("layermatch",)),
    **dict.fromkeys(("threshold", "unlabelled_ratio", "unlabelled_weight"), ("fixmatch", "layermatch")),
}
# What a resumed run may be given otherwise than before: none of it changes a number on a CPU.
MAY_CHANGE = ("device", "download", "data_folder")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ImageDataOptions):
    """Options of `layermatch train`."""

    labels_per_class: Annotated[
        int | None, Option("Labels that may be used of each class; all where some images have none", at_least=1)
    ] = None
    method: Annotated[
        Literal["supervised", "fixmatch", "layermatch"], Option("What the unlabelled images are used for")
    ] = "layermatch"
    model: Annotated[
        str,
        Option(
            "small (a WideResNet for 8x8 to 64x64), cnn (three layers), wrn-28-2, wrn-28-8, wrn-37-2, or a torchvision name"
        ),
    ] = "small"
    steps: Annotated[int, Option("Optimizer steps", at_least=1)] = 1000
    batch_size: Annotated[int, Option("Labelled images a step", at_least=1)] = 16
    unlabelled_ratio: Annotated[int, Option("Unlabelled images for each labelled one", at_least=1)] = 7
    threshold: Annotated[float, Option("Confidence from which a pseudo-label counts", at_least=0.0, at_most=1.0)] = 0.95
    unlabelled_weight: Annotated[float, Option("Factor of the unlabelled loss", at_least=0.0)] = 1.0
    learning_rate: Annotated[float, Option("At the first step; falls by cosine 7/16 to a fifth", above=0.0)] = 0.05
    weight_decay: Annotated[float, Option("On matrices and kernels, not on norms and biases", at_least=0.0)] = 5e-4
    grad_relu: Annotated[bool, Option("Keep pseudo-labels from the classifier (layermatch)")] = True
    avg_clustering: Annotated[
        Literal["classifier", "none"], Option("What is averaged into clustering centres (layermatch)")
    ] = "classifier"
    momentum: Annotated[
        float | None,
        Option(
            "Of the averaged centres per step (layermatch); by default a half-life of 1 % of the run, "
            "0.5^(100/steps), where the library's own default is 0.999",
            at_least=0.0,
            at_most=1.0,
        ),
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
    evaluate_every: Annotated[int | None, Option("By default a twentieth of the run", at_least=1, unit="steps")] = None
    checkpoint_every: Annotated[int | None, Option("By default a tenth of the run", at_least=1, unit="steps")] = None

    def __post_init__(self) -> None:
        """Refuse options that the chosen method would not look at."""
        for name, methods in LOOKED_AT_BY.items():
            if name in self.given and self.method not in methods and self.resume is None:
                flag = "--no-grad-relu" if name == "grad_relu" else "--" + name.replace("_", "-")
                raise UserError(
                    f"{flag} is an option of --method {' or '.join(methods)} and changes nothing with {self.method}. "
                    "Leave it out."
                )
        assert set(METHODS) >= {self.method}


def train(config: TrainConfig) -> None:
    """Train an image classifier from few labels and many unlabelled images, and evaluate it."""
    began = time.monotonic()
    run, config = begin(config, package="layermatch", command="train", may_change=MAY_CHANGE)
    job = build_job(config)
    if run is None:
        options = plain_config(job.config)
        run = RunFolder.create(config.out, default_name=job.name, package="layermatch", command="train", config=options)
    check_split(run, job.split, place=job.training.place)
    if config.resume is not None:
        digest = run.digest
        load_newest(run, lambda state: job.state.load_state_dict(state, digest=digest))
        run.cut_metrics(job.state.step)
        to_stderr(f"layermatch: goes on at step {job.state.step} of {job.plan.steps}")
    with threads(job.config.threads):
        fit(run, job)
        finish(run, job, seconds=time.monotonic() - began)


def fit(run: RunFolder, job: Job) -> None:
    """Train to the end, with progress, metrics and checkpoints."""

    def save() -> None:
        state = job.state.state_dict(digest=run.digest, version=__version__)
        save_checkpoint(run.checkpoints, step=job.state.step, state=state)

    with Progress(job.plan.steps, "steps", label="layermatch", start=job.state.step) as bar:
        train_loop(
            job.state,
            job.plan,
            batches=job.batches,
            views=job.views,
            autocast=job.autocast(),
            outlets=Outlets(evaluate=lambda: job.evaluation().accuracy, log=run.log, save=save),
            bar=bar,
        )


def finish(run: RunFolder, job: Job, *, seconds: float) -> None:
    """Write figures, the record and the averaged model, and print the table."""
    lines = run.metrics()
    numbers = final_numbers(lines)
    final = job.evaluation()
    title = f"{job.config.method}, {job.data_name}, seed {job.config.seed}"
    figures = draw_figures(
        run.figures, lines, title=title, confusion=final.confusion, class_names=job.training.class_names
    )
    figures.append(draw_views(run.figures / "views.png", job.example_views(), title=title))
    record = record_of(
        run,
        experiment=f"layermatch-{job.data_name}",
        arm=job.config.method,
        seed=job.config.seed,
        numbers=numbers,
        units=UNITS,
        seconds=seconds,
        device=job.device,
    )
    run.write_result(record)
    write_model(
        run, job.averaged.whole_state_dict(), model_card(job, accuracy=final.accuracy, mean=numbers["accuracy"])
    )
    print_summary(run, job, numbers=numbers, figures=figures)


def model_card(job: Job, *, accuracy: float, mean: float | None) -> ModelCard:
    """What the written model's card says; `accuracy` is the model's own, `mean` that of the last evaluations, in percent."""
    config = job.config
    builder, build = recipe(config.model)
    height, width = job.training.images.shape[-2:]
    tested = f"{accuracy:.2f} % of {len(job.test)} images, computed in {config.precision}"
    return ModelCard(
        title=f"{config.model}, trained by layermatch on {job.data_name}",
        model=config.model,
        class_names=job.training.class_names,
        channels=job.views.channels,
        image_size=(height, width),
        mean=job.normalisation.mean,
        deviation=job.normalisation.deviation,
        facts={
            "data": f"{job.data_name}, {len(job.training)} training images, {len(job.split['labelled'])} labels used",
            "method": f"{config.method}; these are the moving average's weights (momentum {config.ema_momentum:.6g})",
            "steps": str(job.plan.steps),
            "seed": str(config.seed),
            "test accuracy": tested
            if mean is None
            else f"{tested}; mean of the last {LAST_EVALUATIONS} evaluations {mean:.2f} %",
        },
        builder=builder,
        build=build,
    )


def print_summary(run: RunFolder, job: Job, *, numbers: dict[str, float | None], figures: list[Path]) -> None:
    """The short table at the end, what it says, and where everything lies."""
    rate = numbers["mask_rate"]
    row = [
        job.config.method,
        len(job.split["labelled"]),
        job.plan.steps,
        numbers["accuracy"],
        numbers["best_accuracy"],
        None if rate is None else 100.0 * rate,
        numbers["pseudo_label_accuracy"],
    ]
    print(table(["method", "labels", "steps", "accuracy %", "best %", "used %", "of these right %"], [row]))
    print(
        f"accuracy: mean of the last {LAST_EVALUATIONS} evaluations of the averaged model\n"
        f"on {len(job.test)} test images; best: the largest of all."
    )
    if rate is not None:
        print("used: unlabelled images above the threshold, in the last fifth.")
    print(closing_lines(run, seed=job.config.seed, figures=figures, model=True))
