"""Two ways to use M workers for the same time: real gloo processes, real bytes, a link of a stated bandwidth.

    batch    every step each worker computes the gradient of its own B images; one flat all-reduce; SGD on the mean: batch M x B
    imwa     every worker trains a replica; E averages of everything a run carries, as `IMWA(group=...)` does them

Both take their data, network, rate and schedule from `imwa train digits`. IMWA trains T steps. Batch M x B trains T steps too, and as
many steps as fit into IMWA's time (its cosine stretched to them). A worker's time is its processor's seconds plus the seconds that its
bytes need on the link: on a machine that is shared, the wall's would measure the neighbours.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from imwa import IMWA
from imwa.commands.job import Job, build_job
from imwa.commands.train import TrainConfig
from imwa.training.schedule import learning_rate
from reproduce.imwa.communication.link import Link
from scarce_common_utils.streams import stream


class Raced(NamedTuple):
    """What came of one arm, of the slowest worker: accuracies in percent of the model as it is and with BatchNorm recomputed."""

    arm: str
    steps: int
    reductions: int
    megabytes: float
    compute_seconds: float
    link_seconds: float
    wall_seconds: float
    accuracy: float
    accuracy_recomputed: float

    @property
    def seconds(self) -> float:
        """Of one worker: computing and sending."""
        return self.compute_seconds + self.link_seconds


@dataclass(frozen=True, kw_only=True)
class Race:
    """One race: workers M, steps T, averages E, images a worker and step B, the data's imbalance, seconds a collective takes at least."""

    workers: int
    steps: int
    episodes: int
    batch_size: int
    imbalance: float
    seed: int
    latency: float


def races(setting: Race, *, megabits: Sequence[float], episodes: Sequence[int]) -> list[tuple[float, str, Raced]]:
    """Over each link: batch M x B for T steps; for each E IMWA, and batch M x B for as many steps as fit into IMWA's time."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, args=(folder, setting, list(megabits), list(episodes)), nprocs=setting.workers)
        found: list[tuple[float, str, dict[str, Any]]] = torch.load(Path(folder) / "found.pt")
    return [(bandwidth, name, Raced(**numbers)) for bandwidth, name, numbers in found]


def _worker(rank: int, folder: str, setting: Race, megabits: list[float], episodes: list[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=setting.workers)
    found = []
    for bandwidth in megabits:
        batch = _arm(setting, "batch", rank, bandwidth)
        found.append((bandwidth, "batch", batch._asdict()))
        for count in episodes:
            ours = _arm(replace(setting, episodes=count), "imwa", rank, bandwidth)
            found.append((bandwidth, f"imwa-e{count}", ours._asdict()))
            steps = max(1, round(batch.steps * ours.seconds / batch.seconds))
            same_time = _arm(replace(setting, steps=steps), "batch", rank, bandwidth)
            found.append((bandwidth, f"batch-in-the-time-of-e{count}", same_time._asdict()))
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.monitored_barrier()  # or gloo may abort one of them at its end
    dist.destroy_process_group()


def _arm(setting: Race, arm: str, rank: int, megabits: float) -> Raced:
    """Run one arm; every process returns the same, of the slowest."""
    config = TrainConfig(
        data="digits",
        imbalance=setting.imbalance,
        steps=setting.steps,
        batch_size=setting.batch_size,
        seed=setting.seed,
        method="single",
        model="small",
        threads=1,
        device="cpu",
    )
    job = build_job(config)
    link = Link(bandwidth=megabits * 1e6 / 8, latency=setting.latency)
    dist.barrier()
    began, spent = time.perf_counter(), time.process_time()
    with link.slow():
        reductions = {"batch": _batch, "imwa": _imwa}[arm](job, setting, rank)
    compute, wall = time.process_time() - spent, time.perf_counter() - began
    accuracies = [job.evaluation(job.state.model).accuracy, job.recomputed(job.state.model).accuracy]
    everyone: list[Any] = [None] * setting.workers
    dist.all_gather_object(everyone, (compute, link.seconds, wall, link.sent / 1e6, accuracies))
    compute, waiting, wall, megabytes, _ = max(everyone, key=lambda one: one[0] + one[1])
    return Raced(arm, setting.steps, reductions, megabytes, compute, waiting, wall, *everyone[0][4])


def _imwa(job: Job, setting: Race, rank: int) -> int:
    """IMWA over the group: the loop of a user."""
    model, optimizer = job.state.model, job.state.optimizer
    iterative = IMWA(
        model,
        optimizer,
        replicas=setting.workers,
        episodes=setting.episodes,
        steps=setting.steps,
        seed=setting.seed,
        group=dist.group.WORLD,
    )
    for replica in iterative:
        for step in replica.steps:
            _step(job, setting, replica, step, together=False)
    return iterative.finished_episodes


def _batch(job: Job, setting: Race, rank: int) -> int:
    """Data-parallel SGD: the same start, every worker its own part of the batch, BatchNorm statistics of process 0 at the end."""
    worker = _Worker(rank, stream(setting.seed, "replica", rank))
    for step in range(setting.steps):
        _step(job, setting, worker, step, together=True)
    return setting.steps


@dataclass(frozen=True)
class _Worker:
    """What `Job.batch` reads of a replica."""

    index: int
    generator: torch.Generator


def _step(job: Job, setting: Race, replica: Any, step: int, *, together: bool) -> None:
    model, optimizer = job.state.model, job.state.optimizer
    images, labels = job.batch(replica, step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate("cosine", step, steps=setting.steps, rate=job.config.learning_rate)
    model.train()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    if together:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= setting.workers
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    optimizer.step()
