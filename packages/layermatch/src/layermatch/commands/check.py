"""`layermatch check DATA`: what is in the data, and what `layermatch train` with these options would cost here; nothing is written.

The cost is that of a few real steps and evaluations of the run's own job, on some of its images. Time to decode images is
measured apart: a run does it once at its start, or, of images left on disk, beside the steps.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from layermatch.commands.criterion import unlabelled_ratio
from layermatch.commands.job import Job, build_job, draw_labelled
from layermatch.commands.launch import find_place
from layermatch.commands.notices import FEW_TEST_IMAGES
from layermatch.commands.options import CheckConfig
from layermatch.training.step import train_step
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
from scarce_common_utils.images import count_by_class, data_name
from scarce_common_utils.resumption import threads


def check(config: CheckConfig) -> dict[str, Any]:
    """Look at images before a run: counts, classes, sizes, unreadable files, repeats, and what the run will cost here."""
    looked = look_at_images(config, seed=config.seed, unlabelled=True, in_memory=config.in_memory)
    labelled = draw_labelled(config, looked.training)
    print("\n".join(look_in_words(looked, data=data_name(config.data))))
    counts = counts_of(looked, labelled)
    names = looked.training.class_names
    print("\n" + table(["class", *counts], class_rows(counts, names)))
    without = int((looked.training.labels < 0).sum())
    print(f"labels used: {len(labelled):,}; training images without a known label: {without:,}")
    print("Every training image counts as unlabelled besides.")
    print("\n" + "\n".join(faults_in_words(looked)))
    job = some_job(config, looked, labelled)
    with threads(job.config.threads):
        step, evaluation = measured(job)
    numbers = cost_of(job, looked, step=step, evaluation=evaluation)
    print("\n" + cost_in_words(job, numbers))
    told = advice(looked, skip=config.skip_unreadable, few=FEW_TEST_IMAGES)
    if looked.unreadable and not config.skip_unreadable:
        told[0] += ", or give --skip-unreadable"
    if told:
        print(f"\nBefore you run:\n{advice_in_words(told)}")
    classes = {name: {key: column[number] for key, column in counts.items()} for number, name in enumerate(names)}
    return look_as_json(looked) | {"classes": classes, "labels_used": len(labelled), "cost": numbers, "advice": told}


def counts_of(looked: Looked, labelled: Tensor) -> dict[str, list[int]]:
    """Column -> a number for each class: training images whose label is known, labels used, test images."""
    classes = len(looked.training.class_names)
    return {
        "training": count_by_class(looked.training.labels, classes),
        "labels used": count_by_class(looked.training.labels[labelled], classes),
        "test": count_by_class(looked.test.labels, classes),
    }


def some_job(config: CheckConfig, looked: Looked, labelled: Tensor) -> Job:
    """The run's job on some of its images, at least one label of each class among them.

    Raises:
        UserError: as `build_job`.
    """
    known = first_of_each(looked.training.labels, labelled)
    unknown = (looked.training.labels < 0).nonzero().flatten()[:1]
    least = config.batch_size * unlabelled_ratio(config)
    training = some_in_memory(looked.training, looked, least=least, wanted=torch.cat([known, unknown]))
    test = some_in_memory(looked.test, looked, least=1, wanted=torch.zeros(0, dtype=torch.int64))
    one = None if config.labels_per_class is None else 1
    trial = replace(config, labels_per_class=one)
    return build_job(trial, find_place(trial), data=(training, test, []))


def measured(job: Job) -> tuple[Cost, Cost]:
    """Cost of a training step, and of an evaluation of the job's test images."""

    def step(number: int) -> None:
        train_step(
            job.state,
            job.batches(number),
            views=job.views,
            learning_rate=job.plan.learning_rate,
            autocast=job.autocast(),
            micro_batches=job.plan.micro_batches,
        )

    taken = measure(step, device=job.place.device)
    return taken, measure(lambda number: job.evaluation(), device=job.place.device, most=3)


def cost_of(job: Job, looked: Looked, *, step: Cost, evaluation: Cost) -> dict[str, Any]:
    """Seconds and bytes of the whole run, as JSON values."""
    plan, images = job.plan, len(looked.training) + len(looked.test)
    ratio = job.config.unlabelled_ratio if job.state.criterion.needs_unlabelled else 0
    assert ratio is not None
    read_of_step = 0.0 if looked.in_memory else looked.seconds * job.config.batch_size * (1 + ratio)
    evaluations = -(-plan.steps // plan.evaluate_every)
    of_evaluation = evaluation.seconds * len(looked.test) / max(len(job.test), 1)
    first = looked.seconds * images if looked.in_memory else 0.0
    beside = looked.memory if looked.in_memory and job.place.device.type == "cpu" else 0
    return {
        "device": job.place.device.type,
        "threads": torch.get_num_threads() if job.config.threads is None else job.config.threads,
        "steps": plan.steps,
        "steps_measured": step.steps,
        "seconds_a_step": step.seconds,
        "seconds_of_decoding_a_step": read_of_step,
        "evaluations": evaluations,
        "seconds_an_evaluation": of_evaluation,
        "seconds_of_decoding_at_the_start": first,
        "seconds": first + plan.steps * max(step.seconds, read_of_step) + evaluations * of_evaluation,
        "bytes": None if step.memory is None else step.memory + beside,
    }


def cost_in_words(job: Job, numbers: dict[str, Any]) -> str:
    """What the run will cost, at most 80 columns."""
    config, steps = job.config, numbers["steps"]
    shape = "x".join(map(str, reversed(job.training.shape[1:])))
    lines = [
        f"cost of train --method {config.method} --model {config.model} at {shape},",
        f"measured here on {numbers['steps_measured']} steps ({numbers['device']}, threads: {numbers['threads']}):",
        f"  a step     {time_in_words(numbers['seconds_a_step'])}, of {config.batch_size} labelled images",
        f"  the run    about {time_in_words(numbers['seconds'])}: {steps:,} steps, {numbers['evaluations']} evaluations of "
        f"{time_in_words(numbers['seconds_an_evaluation'])}",
    ]
    if numbers["seconds_of_decoding_a_step"]:
        lines.append(
            f"  decoding   {time_in_words(numbers['seconds_of_decoding_a_step'])} a step, beside it: images stay on disk"
        )
    if numbers["seconds_of_decoding_at_the_start"] > 1:
        lines.append(f"  decoding   {time_in_words(numbers['seconds_of_decoding_at_the_start'])} once, at the start")
    return "\n".join([*lines, f"  memory     about {memory_in_words(numbers['bytes'])} at its largest"])
