"""The card of the model that `imwa train` writes: what it is, what it was trained on, what it reaches."""

from imwa.commands.job import Job, plan_of
from imwa.commands.network import recipe
from scarce_common_utils.model_folder import ModelCard


def model_card(job: Job, *, accuracy: float) -> ModelCard:
    """What the written model's card says; the accuracy is in percent, with BatchNorm statistics as they were averaged."""
    config, steps = job.config, job.schedule.steps
    replicas, episodes = plan_of(config)
    method = "one plain run" if replicas == 1 else f"{replicas} replicas averaged {episodes} times"
    builder, build = recipe(config.model, cosine=config.loss == "ldam")
    height, width = job.training.shape[1:]
    mean, deviation = (constant.flatten().tolist() for constant in job.constants)
    retraining = {}
    if config.retrain_steps is not None:
        retraining["classifier"] = f"trained anew for {config.retrain_steps} steps on classes in equal shares"
    return ModelCard(
        title=f"{config.model}, trained by imwa on {job.data_name}",
        model=config.model,
        class_names=job.training.class_names,
        channels=job.channels,
        image_size=(height, width),
        mean=tuple(mean),
        deviation=tuple(deviation),
        facts={
            "data": f"{job.data_name}, {len(job.training)} training images",
            "method": f"{config.method}: {method}",
            "loss": config.loss + (", re-weighted from 80 % of the run on" if config.reweighting == "deferred" else ""),
            "steps": f"{steps} global, {job.cost} in all",
            **retraining,
            "seed": str(config.seed),
            "test accuracy": f"{accuracy:.2f} % of {len(job.test)} images, computed in {config.precision}",
        },
        builder=builder,
        build=build,
    )
