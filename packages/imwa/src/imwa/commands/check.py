"""`imwa check DATA`: what is in the data, and what `imwa train` with these options would cost here; nothing is written.

The cost is that of a few real steps of one or two replicas, an average and an evaluation of the run's own job, on some of its
images. Time to decode images is measured apart: a run does it once at its start, or, of images left on disk, beside the steps.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from imwa.commands.job import BATCHES_FOR_NORMS, Job, build_job, draw_long_tail, plan_of, plan_stages, resolved
from imwa.commands.train import TrainConfig
from imwa.replica import Replica
from imwa.training.schedule import learning_rate
from imwa.training.stages import cost_of
from imwa.training.step import train_step
from scarce_common_utils.costs import Cost, measure, memory_in_words, time_in_words
from scarce_common_utils.figures import table
from scarce_common_utils.image_check import (
    Looked,
    advice,
    advice_in_words,
    class_rows,
    faults_in_words,
    first_of_each,
    look_as_json,
    look_at_images,
    look_in_words,
    some_in_memory,
)
from scarce_common_utils.image_sets import StoredImages
from scarce_common_utils.images import count_by_class, data_name
from scarce_common_utils.resumption import threads

STEPS = 4  # of each replica that is measured
FORWARD = 1 / 3  # of a step's time
FEW_TEST_IMAGES = 100  # as layermatch: half of them right, the accuracy's 95 % interval is 10 points to either side
RARE = 5  # training images of a class, below which its accuracy is chance


@dataclass(frozen=True, kw_only=True)
class CheckConfig(TrainConfig):
    """Options of `imwa check`: those of the run that it looks ahead at, but for where that writes and goes on."""

    out: Path | None = None
    resume: Path | None = None
    config: Path | None = None
    licence: str | None = None
    push_to_hub: str | None = None


def check(config: CheckConfig) -> dict[str, Any]:
    """Look at images before a run: counts, classes, sizes, unreadable files, repeats, and what the run will cost here."""
    looked = look_at_images(config, seed=config.seed, unlabelled=False, in_memory=config.in_memory)
    places, _ = draw_long_tail(config, looked.training)
    trained = looked.training.take(places)
    print("\n".join(look_in_words(looked, data=data_name(config.data))))
    counts = counts_of(config, looked, trained)
    names = trained.class_names
    print("\n" + table(["class", *counts], class_rows(counts, names)))
    used = count_by_class(trained.labels, len(names))
    print(f"{len(trained):,} training images are used, {max(used):,} to {min(used):,} a class.")
    without = int((looked.training.labels < 0).sum())
    if without:
        print(f"{without:,} training images have no label and are not used.")
    print("\n" + "\n".join(faults_in_words(looked)))
    job = some_job(config, looked, trained)
    whole = resolved(config, side=max(trained.shape[1:]))
    with threads(whole.threads):
        step, evaluation = measured(job)
    numbers = cost_numbers(whole, job, looked, step=step, evaluation=evaluation)
    print("\n" + cost_in_words(whole, looked, numbers))
    told = advice(looked, skip=False, few=FEW_TEST_IMAGES)
    if min(used) < RARE <= max(used):
        rare = sum(count < RARE for count in used)
        told.append(
            f"{rare} of {len(used)} classes have fewer than {RARE} training images: try --loss balanced-softmax, or --tau 1, which "
            "corrects the finished model"
        )
    if told:
        print(f"\nBefore you run:\n{advice_in_words(told)}")
    classes = {name: {key: column[number] for key, column in counts.items()} for number, name in enumerate(names)}
    return look_as_json(looked) | {"classes": classes, "training_used": len(trained), "cost": numbers, "advice": told}


def counts_of(config: CheckConfig, looked: Looked, trained: StoredImages) -> dict[str, list[int]]:
    """Column -> a number for each class: training images, those trained on under --imbalance, test images."""
    classes = len(trained.class_names)
    used = {} if config.imbalance is None else {"trained on": count_by_class(trained.labels, classes)}
    test = count_by_class(looked.test.labels, classes)
    return {"training": count_by_class(looked.training.labels, classes), **used, "test": test}


def some_job(config: CheckConfig, looked: Looked, trained: StoredImages) -> Job:
    """The run's job on some of its images and few steps of at most two replicas, averaged once.

    Raises:
        UserError: as `build_job`.
    """
    wanted = first_of_each(trained.labels, torch.arange(len(trained)))
    training = some_in_memory(trained, looked, least=config.batch_size, wanted=wanted)
    test = some_in_memory(looked.test, looked, least=1, wanted=torch.zeros(0, dtype=torch.int64))
    few = {"steps": STEPS, "replicas": min(config.replicas, 2), "episodes": 1}
    plain = {"imbalance": None, "class_order": "drawn", "shared_start": 0.0, "average_until": 1.0, "barrier": None}
    return build_job(replace(config, **few, **plain), data=(training, test))  # type: ignore[arg-type]  # fields by name


def measured(job: Job) -> tuple[Cost, Cost]:
    """Cost of a training step, with the memory of an average, and of an evaluation of the job's test images."""
    objective, schedule = job.objective(), job.schedule

    def steps() -> Iterator[tuple[Replica, int]]:
        for replica in job.state.iterative:
            for step in replica.steps:
                yield replica, step

    coming = steps()

    def one(number: int) -> None:
        replica, step = next(coming)
        images, labels = job.batch(replica, step)
        rate = learning_rate(schedule.schedule, step, steps=schedule.steps, rate=schedule.rate)
        train_step(
            job.state,
            images,
            labels=labels,
            learning_rate=rate,
            autocast=job.autocast(),
            objective=objective,
            step=step,
        )

    taken = measure(one, device=job.device, most=job.replicas * STEPS)
    deque(coming, maxlen=0)  # to the end, where the average is taken
    evaluation = measure(lambda number: job.evaluation(job.state.model), device=job.device, most=3)
    return taken, evaluation


def cost_numbers(config: TrainConfig, job: Job, looked: Looked, *, step: Cost, evaluation: Cost) -> dict[str, Any]:
    """Seconds and bytes of the whole run, as JSON values.

    Args:
        config: resolved, of the whole run.
        job: the one that was measured.
        looked: the data.
        step: cost of a step.
        evaluation: cost of an evaluation of the job's test images.
    """
    assert config.evaluate_every is not None
    replicas, episodes = plan_of(config)
    cost = cost_of(plan_stages(config))
    of_replicas = replicas * max(config.steps // config.evaluate_every, episodes)
    anew = (
        (max(1, episodes // max(1, config.recompute_every or episodes // 10)) if config.diagnostics else 0)
        if replicas > 1
        else 1
    )
    evaluations = of_replicas + (episodes if replicas > 1 else 1) + anew
    of_evaluation = evaluation.seconds * len(looked.test) / max(len(job.test), 1)
    read_of_step = 0.0 if looked.in_memory else looked.seconds * config.batch_size
    first = looked.seconds * (len(looked.training) + len(looked.test)) if looked.in_memory else 0.0
    beside = looked.memory if looked.in_memory and job.device.type == "cpu" else 0
    if config.optimizer_state == "local":
        beside += max(0, replicas - 2) * optimizer_bytes(job.state.optimizer)
    training = cost * max(step.seconds, read_of_step)
    looking = evaluations * of_evaluation + anew * BATCHES_FOR_NORMS * FORWARD * step.seconds
    return {
        "device": job.device.type,
        "threads": config.threads,
        "steps": cost,
        "steps_measured": step.steps,
        "seconds_a_step": step.seconds,
        "seconds_of_decoding_a_step": read_of_step,
        "evaluations": evaluations,
        "seconds_an_evaluation": of_evaluation,
        "seconds_of_decoding_at_the_start": first,
        "seconds": first + training + looking,
        "bytes": None if step.memory is None else step.memory + beside,
    }


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Of its state's tensors."""
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))


def cost_in_words(config: TrainConfig, looked: Looked, numbers: dict[str, Any]) -> str:
    """What the run will cost, at most 80 columns."""
    replicas, episodes = plan_of(config)
    shape = "x".join(map(str, reversed(looked.training.shape[1:])))
    plan = (
        f"{config.steps:,} steps of each of {replicas} replicas, averages: {episodes}" if replicas > 1 else "one model"
    )
    lines = [
        f"cost of train --method {config.method} --model {config.model} at {shape},",
        f"measured here on {numbers['steps_measured']} steps ({numbers['device']}, threads: {numbers['threads']}):",
        f"  a step     {time_in_words(numbers['seconds_a_step'])}, of {config.batch_size} images",
        f"  the run    about {time_in_words(numbers['seconds'])}: {numbers['steps']:,} steps, {numbers['evaluations']} evaluations of "
        f"{time_in_words(numbers['seconds_an_evaluation'])}",
        f"  the plan   {plan}",
    ]
    if numbers["seconds_of_decoding_a_step"]:
        lines.append(
            f"  decoding   {time_in_words(numbers['seconds_of_decoding_a_step'])} a step, beside it: images stay on disk"
        )
    if numbers["seconds_of_decoding_at_the_start"] > 1:
        lines.append(f"  decoding   {time_in_words(numbers['seconds_of_decoding_at_the_start'])} once, at the start")
    return "\n".join([*lines, f"  memory     about {memory_in_words(numbers['bytes'])} at its largest"])
