"""What a finished run of `layermatch train` leaves: figures, the averaged model with its card, the record, a short table."""

from layermatch.commands.job import Job
from layermatch.commands.network import recipe
from layermatch.commands.notices import images
from layermatch.training.report import LAST_EVALUATIONS, draw_figures, draw_views, final_numbers
from scarce_common_utils.figures import table
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
    card = model_card(job, accuracy=final.accuracy, mean=numbers["accuracy"])
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


def model_card(job: Job, *, accuracy: float, mean: float | None) -> ModelCard:
    """What the written model's card says; `accuracy` is the model's own, `mean` that of the last evaluations, in percent."""
    config = job.config
    builder, build = recipe(config.model)
    height, width = job.training.shape[-2:]
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
