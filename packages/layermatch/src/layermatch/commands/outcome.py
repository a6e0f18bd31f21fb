"""What a finished run of `layermatch train` leaves: figures, the averaged model with its card, the record, a short table."""

from collections.abc import Collection

import torch

from layermatch.commands.job import Job
from layermatch.commands.network import recipe
from layermatch.commands.notices import images
from layermatch.training.evaluation import Evaluation
from layermatch.training.report import LAST_EVALUATIONS, draw_figures, draw_views, final_numbers
from scarce_common_utils.figures import table
from scarce_common_utils.images import count_by_class
from scarce_common_utils.intervals import Interval, wilson
from scarce_common_utils.model_card import Card, Classes, Metric, Paper, settings_of
from scarce_common_utils.model_folder import ModelCard, write_model
from scarce_common_utils.resumption import closing_lines, record_of
from scarce_common_utils.run_folder import RunFolder

UNITS = {
    "accuracy": "%",
    "last_accuracy": "%",
    "best_accuracy": "%",
    "mask_rate": "share of the unlabelled images",
    "pseudo_label_accuracy": "% of those used",
    "pseudo_label_accuracy_all": "% of all",
    "classifier_norm": "mean row norm",
}


def finish(run: RunFolder, job: Job, *, seconds: float) -> None:
    """Write the figures, the averaged model and, when all else is there, the record in result.json.

    Args:
        run: where to.
        job: at its last step.
        seconds: that the run took, over all sittings.
    """
    lines = run.metrics()
    numbers = final_numbers(lines)
    if job.config.skip_unreadable:
        numbers["images_left_out"] = len(job.unreadable)
    final = job.evaluation()
    title = f"{job.config.method}, {job.data_name}, seed {job.config.seed}"
    draw_figures(run.figures, lines, title=title, confusion=final.confusion, class_names=job.training.class_names)
    draw_views(run.figures / "views.png", job.example_views(), title=title)
    card = model_card(job, final, mean=numbers["accuracy"], written=run.given, seconds=seconds)
    write_model(run, job.averaged.whole_state_dict(), card)
    record = record_of(
        run,
        experiment=f"layermatch-{job.data_name}",
        arm=job.config.method,
        seed=job.config.seed,
        numbers=numbers,
        units=UNITS,
        seconds=seconds,
        device=job.place.device,
    )
    run.write_result(record)


PAPER = Paper(
    "LayerMatch: Do Pseudo-labels Benefit All Layers?",
    "Liang, Chaoqi and Yang, Guanglei and Qiao, Lifeng and Huang, Zitong and Yan, Hongliang and Wei, Yunchao and Zuo, Wangmeng",
    2024,
    "2406.14207",
    "liang2024layermatch",
)


def model_card(
    job: Job, final: Evaluation, *, mean: float | None, written: Collection[str], seconds: float
) -> ModelCard:
    """What the written model's card says.

    Args:
        job: at its last step.
        final: of the written model.
        mean: accuracy over the last evaluations, in percent.
        written: options that the person wrote.
        seconds: that the run took.
    """
    config, count = job.config, len(job.test)
    builder, build = recipe(config.model)
    height, width = job.training.shape[-2:]
    tested = f"{final.accuracy:.2f} % of {count} images, computed in {config.precision}"
    right = wilson(int(final.confusion.trace()), count)
    card = Card(
        title=f"{config.model}, trained by layermatch on {job.data_name}",
        facts={
            "data": f"{job.data_name}, {len(job.training)} training images, {len(job.split['labelled'])} labels used",
            "method": f"{config.method}; these are the moving average's weights (momentum {config.ema_momentum:.6g})",
            "steps": str(job.plan.steps),
            "seed": str(config.seed),
            "test accuracy": tested
            if mean is None
            else f"{tested}; mean of the last {LAST_EVALUATIONS} evaluations {mean:.2f} %",
        },
        reading=reading(job),
        metrics=[
            Metric(
                "accuracy",
                "accuracy",
                final.accuracy,
                Interval(100 * right.low, 100 * right.high, right.method),
                "%",
                f"{count} test images",
            )
        ],
        classes=class_table(job, final),
        settings=settings_of(config, written),
        task="image-classification",
        library="pytorch",
        tags=["layermatch", "semi-supervised-learning", config.method],
        data_name=(config.data or "") if (config.data or "").startswith("hf:") else job.data_name,
        paper=PAPER,
        seconds=seconds,
        device=job.place.device.type,
        licence=config.licence,
    )
    return ModelCard(
        model=config.model,
        class_names=job.training.class_names,
        channels=job.views.channels,
        image_size=(height, width),
        mean=job.normalisation.mean,
        deviation=job.normalisation.deviation,
        card=card,
        builder=builder,
        build=build,
    )


def reading(job: Job) -> str:
    """What of the method is published and what is ours."""
    if job.config.method != "layermatch":
        return (
            f"`{job.config.method}` as its own paper and published code have it, `--variant {job.config.variant}` where they differ; "
            "networks, schedule and views are FixMatch's and USB's. The package is named for LayerMatch:"
        )
    return (
        "Two strategies, Grad-ReLU and Avg-Clustering, stand in LayerMatch's abstract, all that could be read of it. The equation of "
        f"Grad-ReLU (`--grad-relu {job.config.grad_relu}`) and what is averaged into the centres (`--avg-clustering "
        f"{job.config.avg_clustering}`, momentum {job.config.momentum if job.config.momentum is not None else 'none'}) are readings of "
        "ours, not known to be the paper's; threshold, views, schedule and networks are FixMatch's and USB's."
    )


def class_table(job: Job, final: Evaluation) -> Classes:
    """Of each class: training images with a label, labels used, test images, and how many of those are right."""
    names = job.training.class_names
    known = count_by_class(job.training.labels, len(names))
    used = count_by_class(job.training.labels[torch.tensor(job.split["labelled"])], len(names))
    rows = [
        [name, known[number], used[number], sum(counts), 100.0 * counts[number] / sum(counts) if sum(counts) else None]
        for number, (name, counts) in enumerate(zip(names, final.confusion.tolist(), strict=True))
    ]
    return Classes(("class", "training images with a label", "labels used", "test images", "right %"), rows)


def print_summary(run: RunFolder, job: Job) -> None:
    """The short table at the end, what it says, and where everything lies."""
    numbers = run.read_json("result.json")["numbers"]
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
    if numbers.get("steps_left_out"):
        print(f"left out: {numbers['steps_left_out']:.0f} steps whose loss was not finite.")
    if job.unreadable:
        print(f"left out: {images(len(job.unreadable))} that cannot be read; split.json names them.")
    figures = sorted(run.figures.glob("*.png"))
    print(closing_lines(run, seed=job.config.seed, figures=figures, model=True))
