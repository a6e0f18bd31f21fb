"""One arm at one seed: its phases, its loop, its checkpoints, its record.

What is ours: the EMA, BatchNorm's statistics in it, lives inside every replica and is averaged with it (IMWA's `average=`), with
the optimizer's state; pseudo-labels are each replica's own. The EMA stands beside the model in every record: of a single run
it is the plain EMA, of IMWA "EMA + IMWA".
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imwa import IMWA, recompute_batch_norm
from layermatch.methods import fixmatch
from reproduce.imwa.detection.teacher import MeanTeacher
from reproduce.imwa.semi_supervised.balanced import TwoHeads, labelled_rates
from reproduce.imwa.semi_supervised.evaluation import Judge, accuracy, probabilities, tail_accuracy
from reproduce.imwa.semi_supervised.training import Pool, Settings, decay_weights, step_loss, views_of
from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from scarce_common_utils.errors import UserError
from scarce_common_utils.progress import Progress
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.records import Record
from scarce_common_utils.run_folder import to_stderr
from scarce_common_utils.streams import stream, stream_seed

LOG_EVERY = 20
STEPS_FOR_NORMS = 20  # whose views BatchNorm statistics are measured over
UNITS = {"cpu_seconds": "s", "steps": "steps", **dict.fromkeys(("first_gain", "mean_gain", "last_gain"), "points")}


class Arm(NamedTuple):
    """A way of spending steps.

    Attributes:
        averaged: M replicas.
        iterated: in E episodes.
        longer: M T steps.
        larger: batch M B.
        shared: one run to T / 10, then the replicas.
        note: for the table.
    """

    averaged: bool = False
    iterated: bool = False
    longer: bool = False
    larger: bool = False
    shared: bool = False
    note: str = ""


ARMS: dict[str, Arm] = {
    "single": Arm(note="one run of T steps"),
    "single-mt": Arm(longer=True, note="one run of M T steps"),
    "batch-mb": Arm(larger=True, note="batch M B, T steps"),
    "mwa": Arm(averaged=True, note="M replicas, averaged once at the end"),
    "mwa-shared": Arm(averaged=True, shared=True, note="one run to T / 10, then as mwa"),
    "imwa": Arm(averaged=True, iterated=True, note="M replicas, averaged in E episodes"),
}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What all arms share.

    Attributes:
        settings: of a single run.
        method: `abc` or `fixmatch`.
        replicas: M.
        episodes: E.
        decay: of the EMA; None is a memory of a tenth of the run.
        optimizer_state: IMWA's policy.
    """

    settings: Settings
    method: str
    replicas: int
    episodes: int
    decay: float | None
    optimizer_state: str

    def of(self, arm: Arm) -> Settings:
        """The settings of an arm."""
        settings = self.settings
        longer, larger = self.replicas if arm.longer else 1, self.replicas if arm.larger else 1
        return replace(settings, steps=settings.steps * longer, batch_size=settings.batch_size * larger)

    def cost(self, arm: Arm) -> float:
        """Gradient evaluations of an image, in units of a single run's."""
        if arm.shared:
            shared = shared_steps(self.settings.steps) / self.settings.steps
            return shared + (1.0 - shared) * self.replicas
        return float(self.replicas if arm.averaged or arm.longer or arm.larger else 1)


class Phase(NamedTuple):
    """A part of a run: `replicas` train `steps` steps from step `first` on, in `episodes`; `seed` of the replicas' streams."""

    replicas: int
    episodes: int
    first: int
    steps: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a run stands on: the images it trains and is tested on, `counts` labelled images of each class, `ranks` of the classes."""

    pool: Pool
    test_images: Tensor
    test_labels: Tensor
    counts: Sequence[int]
    ranks: Sequence[int]


def phases(arm: Arm, numbers: Numbers, *, seed: int) -> list[Phase]:
    """In order; only a shared start has two."""
    steps = numbers.of(arm).steps
    replicas = numbers.replicas if arm.averaged else 1
    episodes = numbers.episodes if arm.iterated else 1
    if not arm.shared:
        return [Phase(replicas, episodes, 0, steps, seed)]
    first = shared_steps(steps)
    # The second part's streams are others, or replica 0 would draw the first part's views again.
    return [Phase(1, 1, 0, first, seed), Phase(replicas, 1, first, steps - first, stream_seed(seed, "shared start"))]


def shared_steps(steps: int) -> int:
    """T / 10, at least 1."""
    return max(1, steps // 10)


def run_arm(
    name: str, numbers: Numbers, *, ground: Ground, network: nn.Module, seed: int, folder: Path, shell: Record
) -> Record:
    """Train one arm at one seed, from its newest checkpoint where there is one.

    Args:
        name: of the arm.
        numbers: of the run.
        ground: its images.
        network: images -> logits, freshly drawn; it becomes the model.
        seed: of the run.
        folder: of its checkpoints.
        shell: the record without its numbers.

    Raises:
        UserError: a loss was not finite; the step is named.
    """
    began, spent = time.monotonic(), time.process_time()
    run = _Run(name, numbers, ground=ground, network=network, seed=seed, folder=folder, digest=shell.digest)
    run.train()
    found = run.final_numbers() | {"cpu_seconds": round(time.process_time() - spent, 2)}
    return Record(
        experiment=shell.experiment,
        arm=name,
        seed=seed,
        digest=shell.digest,
        numbers=found,
        units={number: UNITS.get(number, "%") for number in found},
        versions={package: metadata.version(package) for package in ("imwa", "layermatch", "torch")},
        seconds=time.monotonic() - began,
        threads=torch.get_num_threads(),
        device=ground.pool.labels.device.type,
    )


class _Run:
    def __init__(
        self, name: str, numbers: Numbers, *, ground: Ground, network: nn.Module, seed: int, folder: Path, digest: str
    ) -> None:
        arm, device = ARMS[name], ground.pool.labels.device
        self.name, self.numbers, self.ground, self.seed = name, numbers, ground, seed
        self.folder, self.digest, self.settings = folder, digest, numbers.of(arm)
        seed_random_state(stream_seed(seed, "init", "balanced"))
        self.model = TwoHeads(network, balanced=numbers.method == "abc").to(device)
        self.criterion = fixmatch(self.model.classifier, threshold=self.settings.threshold)
        decay = 1.0 - 10.0 / max(self.settings.steps, 20) if numbers.decay is None else numbers.decay
        self.average = MeanTeacher(self.model, decay=decay)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=self.settings.learning_rate)
        self.rates = labelled_rates(ground.counts).to(device)
        self.judge = Judge(ground.test_images, ground.test_labels, ground.pool)
        self.phases = phases(arm, numbers, seed=seed)
        self.total = sum(phase.replicas * phase.steps for phase in self.phases)
        self.done, self.shown = 0, {}

    def train(self) -> None:
        state = self.newest()
        self.done = 0 if state is None else state["done"]
        with Progress(self.total, "steps", label=f"{self.name}, seed {self.seed}", start=self.done) as bar:
            for number, phase in enumerate(self.phases):
                if state is not None and number < state["phase"]:
                    continue
                iterative = self.driver(phase)
                if state is not None and number == state["phase"]:
                    iterative.load_state_dict(state["iterative"])
                    self.judge.load_state_dict(state["judge"])
                for step in self.steps(iterative, phase):
                    self.done += 1
                    if self.done % LOG_EVERY == 0:
                        self.check_finite(step)
                    bar.advance(1, **self.shown)
                    if self.done % max(1, self.total // 10) == 0:
                        self.save(number, iterative)

    def driver(self, phase: Phase) -> IMWA:
        return IMWA(
            self.model,
            self.optimizer,
            replicas=phase.replicas,
            episodes=min(phase.episodes, phase.steps),
            steps=phase.steps,
            seed=phase.seed,
            optimizer_state=self.numbers.optimizer_state,
            average={"ema": self.average},
            after_average=lambda episode, model: self.judge.average(self.model),
        )

    def steps(self, iterative: IMWA, phase: Phase) -> Iterator[int]:
        """Take the phase's steps over all replicas; yields the global step after each."""
        for replica in iterative:
            for own in replica.steps:
                step = phase.first + own
                self.step(step, replica.index, replica.generator)
                yield step
            if phase.replicas > 1:
                self.judge.replica(self.model, last=replica.episode == iterative.plan.episodes - 1)

    def step(self, step: int, replica: int, generator: torch.Generator) -> None:
        self.model.train()
        views = self.views(step, replica, generator)
        loss = step_loss(
            self.model,
            self.criterion,
            views=views,
            rates=self.rates,
            step=step,
            generator=generator,
            settings=self.settings,
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update(self.model)
        decay_weights(self.model, learning_rate=self.settings.learning_rate)
        self.loss = loss.detach()

    def views(self, step: int, replica: int, generator: torch.Generator) -> Any:
        pool, settings = self.ground.pool, self.settings
        return views_of(pool, step=step, seed=self.seed, replica=replica, generator=generator, settings=settings)

    def check_finite(self, step: int) -> None:
        self.shown["loss"] = float(self.loss)
        if not math.isfinite(self.shown["loss"]):
            raise UserError(f"The loss of {self.name} is {self.shown['loss']} at step {step}. Lower --learning-rate.")

    def newest(self) -> dict[str, Any] | None:
        """State of the newest checkpoint of this very configuration."""
        path = newest_checkpoint(self.folder, report=to_stderr)
        state = None if path is None else load_checkpoint(path)
        return state if state is not None and state["digest"] == self.digest else None

    def save(self, phase: int, iterative: IMWA) -> None:
        state = {"digest": self.digest, "done": self.done, "phase": phase, "iterative": iterative.state_dict()}
        save_checkpoint(self.folder, step=self.done, state=state | {"judge": self.judge.state_dict()})

    def final_numbers(self) -> dict[str, float | None]:
        """In percent and points; None where an arm has no such number."""
        judge, labels, ranks, ema = self.judge, self.ground.test_labels, self.ground.ranks, self.average.model
        assert isinstance(ema, TwoHeads)
        live, smooth = judge.seen(self.model), judge.seen(ema)
        plain = probabilities(ema, ema.classifier, images=judge.images, pool=judge.pool)
        gains = judge.gains
        return {
            "accuracy": accuracy(live, labels),
            "tail": tail_accuracy(live, labels, ranks=ranks),
            "accuracy_recomputed": accuracy(judge.seen(self.recomputed()), labels),
            "ema_accuracy": accuracy(smooth, labels),
            "ema_tail": tail_accuracy(smooth, labels, ranks=ranks),
            "ema_fixmatch_accuracy": accuracy(plain, labels),
            "ensemble_accuracy": None if judge.summed is None else accuracy(judge.summed, labels),
            "replica_accuracy": judge.replica_accuracy,
            "first_gain": gains[0] if gains else None,
            "mean_gain": sum(gains) / len(gains) if gains else None,
            "last_gain": gains[-1] if gains else None,
            "steps": float(self.total),
        }

    def recomputed(self) -> TwoHeads:
        """A copy of the model whose BatchNorm statistics are measured over views as training sees them."""
        clone, generator = copy.deepcopy(self.model), stream(self.seed, "batch norm")
        batches = (
            batch
            for step in range(min(STEPS_FOR_NORMS, self.settings.steps))
            for batch in self.views(step, 0, generator)
        )
        recompute_batch_norm(clone, batches)
        return clone
