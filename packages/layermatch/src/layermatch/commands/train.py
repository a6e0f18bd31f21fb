"""`layermatch train DATA`: the whole job on a person's own images, from the library's parts alone."""

import time
from typing import Any

from layermatch import __version__
from layermatch.commands.job import Job, build_job
from layermatch.commands.launch import choose_tracker, find_place, leave, open_tracker
from layermatch.commands.notices import notices
from layermatch.commands.options import TrainConfig
from layermatch.commands.outcome import finish, print_summary
from layermatch.commands.sittings import Sittings
from layermatch.training.loop import Outlets
from layermatch.training.loop import train as train_loop
from scarce_common_utils.checkpoints import save_checkpoint
from scarce_common_utils.command_line import plain_config
from scarce_common_utils.process_group import leave_together
from scarce_common_utils.progress import Progress
from scarce_common_utils.resumption import begin, check_split, delivered, load_newest, threads
from scarce_common_utils.run_folder import RunFolder, to_stderr
from scarce_common_utils.signals import stop_requests

# What a resumed run may be given otherwise than before: none of it changes a number on a CPU.
MAY_CHANGE = ("device", "download", "data_folder", "tracker", "in_memory", "workers")


def train(config: TrainConfig) -> dict[str, Any] | None:
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
        return delivered(run, push_to_hub=config.push_to_hub) if place.processes.main else None
    finally:
        if run is not None:
            run.close()
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
                given=job.config.written,
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
    with (
        Progress(job.plan.steps, "steps", label="layermatch", start=job.state.step) as bar,
        stop_requests() as request,
    ):
        train_loop(
            job.state,
            job.plan,
            batches=job.batches,
            views=job.views,
            autocast=job.autocast(),
            outlets=Outlets(evaluate=evaluate, log=log, save=save, stop=lambda: request.signal),
            bar=bar,
        )
