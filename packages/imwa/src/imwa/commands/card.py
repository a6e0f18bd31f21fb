"""The card of the model that `imwa train` writes: what it is, what it was trained on, what it reaches."""

from collections.abc import Collection

from imwa.commands.job import Job, plan_of
from imwa.commands.network import recipe
from imwa.training.evaluation import Evaluation
from scarce_common_utils.images import count_by_class
from scarce_common_utils.intervals import Interval, wilson
from scarce_common_utils.model_card import Card, Classes, Metric, Paper, settings_of
from scarce_common_utils.model_folder import ModelCard

PAPER = Paper(
    "IMWA: Iterative Model Weight Averaging Benefits Class-Imbalanced Learning Tasks",
    "Huang, Zitong and Chen, Ze and Dong, Bowen and Liang, Chaoqi and Zhou, Erjin and Zuo, Wangmeng",
    2024,
    "2404.16331",
    "huang2024imwa",
)


def model_card(job: Job, written: Evaluation, *, written_by_person: Collection[str], seconds: float) -> ModelCard:
    """What the written model's card says.

    Args:
        job: at its last step.
        written: evaluation of the written model, with BatchNorm statistics as they were averaged.
        written_by_person: options that the person wrote.
        seconds: that this sitting took.
    """
    config = job.config
    builder, build = recipe(config.model, cosine=config.loss == "ldam")
    height, width = job.training.shape[1:]
    mean, deviation = (constant.flatten().tolist() for constant in job.constants)
    count = len(job.test)
    share = wilson(round(written.accuracy * count / 100), count)
    interval = Interval(100 * share.low, 100 * share.high, share.method)
    card = Card(
        title=f"{config.model}, trained by imwa on {job.data_name}",
        facts=facts(job, accuracy=written.accuracy),
        reading=reading(job),
        metrics=[Metric("accuracy", "accuracy", written.accuracy, interval, "%", f"{count} test images")],
        classes=class_table(job, written),
        settings=settings_of(config, written_by_person),
        task="image-classification",
        library="pytorch",
        tags=["imwa", "weight-averaging", "long-tailed-learning"],
        data_name=(config.data or "") if (config.data or "").startswith("hf:") else job.data_name,
        paper=PAPER,
        seconds=seconds,
        device=job.device.type,
        licence=config.licence,
    )
    return ModelCard(
        model=config.model,
        class_names=job.training.class_names,
        channels=job.channels,
        image_size=(height, width),
        mean=tuple(mean),
        deviation=tuple(deviation),
        card=card,
        builder=builder,
        build=build,
    )


def facts(job: Job, *, accuracy: float) -> dict[str, str]:
    """Lines of the card's first table."""
    config, steps = job.config, job.schedule.steps
    replicas, episodes = plan_of(config)
    method = "one plain run" if replicas == 1 else f"{replicas} replicas averaged {episodes} times"
    retraining = {}
    if config.retrain_steps is not None:
        retraining["classifier"] = f"trained anew for {config.retrain_steps} steps on classes in equal shares"
    return {
        "data": f"{job.data_name}, {len(job.training)} training images",
        "method": f"{config.method}: {method}",
        "loss": config.loss + (", re-weighted from 80 % of the run on" if config.reweighting == "deferred" else ""),
        "steps": f"{steps} global, {job.cost} in all",
        **retraining,
        "seed": str(config.seed),
        "test accuracy": f"{accuracy:.2f} % of {len(job.test)} images, computed in {config.precision}",
    }


def reading(job: Job) -> str:
    """What of the method is published and what is ours."""
    config = job.config
    if plan_of(config)[0] == 1:
        return "One plain run: a control beside IMWA, nothing of it is averaged."
    return (
        "Replicas from one start, averaged again and again, stand in IMWA's abstract. What becomes of the optimizer's state when an "
        f"episode ends (`--optimizer-state {config.optimizer_state}`), of BatchNorm's variances (`--batch-norm {config.batch_norm}`), "
        "of generators, counters and episodes of unequal length are readings of ours."
    )


def class_table(job: Job, written: Evaluation) -> Classes:
    """Of each class: training images, test images, and how many of those are right."""
    names = job.training.class_names
    tested = count_by_class(job.test.labels, len(names))
    rows = [list(row) for row in zip(names, job.counts, tested, written.by_class, strict=True)]
    return Classes(("class", "training images", "test images", "right %"), rows)
