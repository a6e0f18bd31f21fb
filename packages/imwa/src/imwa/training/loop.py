"""The training loop around the driver: steps, readings, evaluations, checkpoints, and what each average did.

A line of metrics bears as `step` the number, from 0, of the last optimizer step that it counts, over all replicas in the
order in which they train. Everything that is logged of a step comes before a checkpoint of it; the checkpoint of an
episode's last step is written after its average was evaluated. So a resumed run repeats no line and misses none.

With several processes each trains its own replicas; lines and accuracies come together in process 0 at an episode's end, in
the order in which one process would have written them, and checkpoints are taken at ends of episodes alone. A stage of one
replica is trained by every process alike, from the same random states; process 0's lines are those that count.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from imwa.collapse import EpisodeReport
from imwa.replica import Replica
from imwa.training.company import Company
from imwa.training.objective import Objective, cross_entropy
from imwa.training.schedule import learning_rate
from imwa.training.stages import Stage
from imwa.training.state import TrainingState
from imwa.training.step import train_step
from scarce_common_utils.errors import UserError
from scarce_common_utils.finite import named, not_finite, refuse_not_finite
from scarce_common_utils.random_state import capture_random_state, restore_random_state
from scarce_common_utils.signals import Stopped


class Bar(Protocol):
    """What shows progress: `scarce_common_utils.progress.Progress`."""

    def advance(self, count: int = 1, **shown: float) -> None:
        """Count steps as done."""
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Numbers of a run.

    Attributes:
        steps: T, of each replica over all episodes.
        rate: the learning rate's largest value.
        schedule: its course, one of `schedule.SCHEDULES`.
        log_every: steps between readings of the loss.
        evaluate_every: global steps between evaluations of a replica; its end is always evaluated.
        checkpoint_every: steps, over all replicas, between checkpoints; the end always gets one.
        warm_up: steps over which the learning rate rises.
    """

    steps: int
    rate: float
    schedule: str
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    warm_up: int = 0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the loop calls.

    Attributes:
        batch: (replica, step) -> images and labels on the device.
        autocast: context of the forward pass.
        accuracy: model -> test accuracy in percent.
        log: called as log(step, **numbers).
        save: writes a checkpoint of the state.
        bar: shows progress.
        finished: called on the last average before its checkpoint; its numbers join the average's line.
        company: the processes that train this run.
        objective: logits, labels and the global step to the loss.
        predict: model -> logits of the test images; called where the state has an ensemble.
        stop: the number of the signal that asked this process to stop, None while none did.
    """

    batch: Callable[[Replica, int], tuple[Tensor, Tensor]]
    autocast: Callable[[], AbstractContextManager[Any]]
    accuracy: Callable[[nn.Module], float]
    log: Callable[..., Any]
    save: Callable[[], Any]
    bar: Bar
    finished: Callable[[nn.Module], dict[str, float]]
    company: Company = field(default_factory=Company)
    objective: Objective = cross_entropy
    predict: Callable[[nn.Module], Tensor] | None = None
    stop: Callable[[], int | None] = lambda: None


def train(state: TrainingState, schedule: Schedule, *, around: Surroundings) -> None:
    """Go on from where the state stands to the run's end.

    Raises:
        UserError: a loss was not finite; the steps and the replica are named, and nothing after them is kept. Or what was to be
            kept or averaged was not finite; the tensor is named.
        ProcessLost: another process of the company ended.
        Stopped: a signal asked for it; one process keeps the step that was under way, several the episode.
    """
    loop = _Loop(state, schedule, around)
    first = state.stage
    for number in range(first, len(state.stages)):
        if number > first:  # replica 0 goes on with its random stream, which only its process knows
            random = (state.iterative.generator(0).get_state(), capture_random_state())
            own, everywhere = around.company.first_does(lambda random=random: random)
            state.stage = number
            state.iterative.generator(0).set_state(own)
            if not around.company.first:
                restore_random_state(everywhere)
        state.iterative.after_average = loop.on_average
        for replica in state.iterative:
            before = state.before + state.iterative.plan.border(replica.episode) * state.iterative.plan.replicas
            before += replica.index * (replica.steps.stop - replica.steps.start)
            state.done = before + replica.steps.following - replica.steps.start
            for step in replica.steps:
                loop.step(replica, step)


class _Loop:
    def __init__(self, state: TrainingState, schedule: Schedule, around: Surroundings) -> None:
        self.state, self.schedule, self.around = state, schedule, around
        self.shown: dict[str, float] = {}
        self.pending: list[tuple[int, dict[str, Any]]] = []  # lines of this episode that process 0 has not got yet

    def log(self, step: int, **numbers: Any) -> None:
        if self.around.company.alone:
            self.around.log(step, **numbers)
        else:
            self.pending.append((step, numbers))

    @property
    def stage(self) -> Stage:
        return self.state.stages[self.state.stage][0]

    @property
    def episodes_before(self) -> int:
        return sum(iterative.plan.episodes for _, iterative in self.state.stages[: self.state.stage])

    @property
    def is_looked_at(self) -> bool:
        """Whether averages of this stage are of all the run's replicas, so that they have a gain."""
        return self.stage.replicas == max(stage.replicas for stage, _ in self.state.stages)

    @property
    def is_last_stage(self) -> bool:
        return self.state.stage == len(self.state.stages) - 1

    def step(self, replica: Replica, step: int) -> None:
        """One step of a replica; `step` counts from its stage's start."""
        state, schedule, around = self.state, self.schedule, self.around
        ends = step == replica.steps.stop - 1
        last_of_episode = ends and replica.index == state.iterative.plan.replicas - 1
        step += self.stage.start
        images, labels = around.batch(replica, step)
        rate = learning_rate(
            schedule.schedule, step, steps=schedule.steps, rate=schedule.rate, warm_up=schedule.warm_up
        )
        train_step(
            state,
            images,
            labels=labels,
            learning_rate=rate,
            autocast=around.autocast(),
            objective=around.objective,
            step=step,
        )
        numbers: dict[str, float] = {}
        if (step + 1) % schedule.log_every == 0 or ends:
            numbers |= {"loss": self.read_loss(replica, step), "learning_rate": rate}
        if (step + 1) % schedule.evaluate_every == 0 or ends:
            numbers["accuracy"] = around.accuracy(state.model)
        if ends:
            self.refuse_not_finite(replica, step)
            state.replica_accuracies.append(numbers["accuracy"])
            self.add_to_ensemble(replica)
            if self.is_looked_at and state.diagnostics is not None:
                state.diagnostics.replica_ended(state.iterative, replica, value=numbers["accuracy"])
        if numbers:
            self.shown |= {name: numbers[name] for name in ("loss", "accuracy") if name in numbers}
            episode = self.episodes_before + replica.episode
            where = {"episode": episode, "replica": replica.index, "global_step": step}
            self.log(state.done - 1, **where, **numbers)
        # An episode's last step is kept with its average (on_average), and so is what several processes did in it.
        kept_here = around.company.alone and not last_of_episode
        stop = around.stop() if kept_here else None
        if kept_here and (state.done % schedule.checkpoint_every == 0 or stop is not None):
            self.save(replica, step)
        around.bar.advance(1, **self.shown)
        if stop is not None:
            raise stopped(stop, state.done)

    def add_to_ensemble(self, replica: Replica) -> None:
        """Of the last episode with several replicas, keep what each predicts at its end."""
        state, plan = self.state, self.state.iterative.plan
        if state.ensemble is None or plan.replicas == 1 or replica.episode < plan.episodes - 1:
            return
        assert self.around.predict is not None
        state.ensemble.add(self.around.predict(state.model))

    def on_average(self, episode: int, model: nn.Module) -> None:
        """Bring the replicas' lines together, judge the average; then the checkpoint that fell due in this episode."""
        state, around, plan = self.state, self.around, self.state.iterative.plan
        begin, state.done = (state.before + plan.border(number) * plan.replicas for number in (episode, episode + 1))
        everyone = around.company.gather((self.pending, state.replica_accuracies))
        everyone = everyone if plan.replicas > 1 else everyone[:1]
        self.pending, state.replica_accuracies = [], []
        last = self.is_last_stage and episode == plan.episodes - 1
        if last and state.ensemble is not None:
            state.ensemble.join(around.company.gather(state.ensemble.total))
        report = self.look(episode, model)
        if around.company.first:
            for step, numbers in (line for lines, _ in everyone for line in lines):
                around.log(step, **numbers)
            if report is None:
                numbers = self.judge(episode, model, [value for _, values in everyone for value in values])
            else:
                numbers = numbers_of(report)
                self.log_segments(episode)
            numbers |= around.finished(model) if last else {}
            step = self.stage.start + plan.border(episode + 1) - 1
            around.log(state.done - 1, episode=self.episodes_before + episode, global_step=step, **numbers)
            self.shown |= {name: numbers[name] for name in ("gain",) if name in numbers}
        every = self.schedule.checkpoint_every
        due = state.done % every == 0 or (not around.company.alone and state.done // every > begin // every)
        stop = next((number for number in around.company.gather(around.stop()) if number is not None), None)
        if last or due or stop is not None:
            refuse_not_finite(kept(state), when=f"in the average of episode {self.episodes_before + episode}")
            around.save()
        if stop is not None and not last:
            raise stopped(stop, state.done)

    def look(self, episode: int, model: nn.Module) -> EpisodeReport | None:
        """What the diagnostics find in an average; every process takes part."""
        diagnostics = self.state.diagnostics
        if diagnostics is None or not self.is_looked_at:
            return None
        diagnostics.after_average(episode, model)
        return diagnostics.reports[-1]

    def log_segments(self, episode: int) -> None:
        """A line for every point of the segments between this episode's replicas."""
        assert self.state.diagnostics is not None
        for number, one, other, segment in self.state.diagnostics.segments:
            if number == episode:
                where = {"episode": self.episodes_before + episode, "from_replica": one, "to_replica": other}
                for place, point in enumerate(segment.points):
                    numbers = {"segment_loss": segment.losses[place]}
                    if segment.recomputed is not None:
                        numbers["segment_loss_recomputed"] = segment.recomputed[place]
                    self.around.log(self.state.done - 1, **where, point=point, **numbers)

    def judge(self, episode: int, model: nn.Module, replicas: list[float]) -> dict[str, float]:
        """The average of a stage that is not looked at, against its replicas."""
        out = {index for number, index, _ in self.state.iterative.left_out if number == episode}
        kept = [value for index, value in enumerate(replicas) if index not in out]
        accuracy, mean = self.around.accuracy(model), sum(kept) / len(kept)
        numbers = {"average_accuracy": accuracy}
        if self.is_looked_at:
            numbers |= {"replica_accuracy": mean, "gain": accuracy - mean}
        if out:
            numbers["left_out"] = float(len(out))
        return numbers

    def read_loss(self, replica: Replica, step: int) -> float:
        """Mean loss since the last reading, on the host; the sum starts anew."""
        total, count = self.state.losses.tolist()
        if not math.isfinite(total) and self.state.iterative.on_nan == "stop":
            first = max(step - int(count) + 1, self.stage.start + replica.steps.start)
            where = f"at step {step}" if first == step else f"between steps {first} and {step}"
            places = not_finite(kept(self.state))
            found = f" Not finite now: {named(places)}." if places else ""
            raise UserError(
                f"The loss was not finite {where} of replica {replica.index}, episode {replica.episode}. Lower --learning-rate, "
                f"or compute in --precision float32. Nothing after the last checkpoint is kept.{found}"
            )
        self.state.losses.zero_()
        return total / count

    def save(self, replica: Replica, step: int) -> None:
        """Write a checkpoint, but never one of a run whose loss is not finite."""
        if not math.isfinite(float(self.state.losses[0])) and self.state.iterative.on_nan == "stop":
            self.read_loss(replica, step)
        self.refuse_not_finite(replica, step)
        self.around.save()

    def refuse_not_finite(self, replica: Replica, step: int) -> None:
        """Stop a run whose replica is no longer finite, unless it may be left out of the average."""
        if self.state.iterative.on_nan == "stop":
            where = f"after step {step} of replica {replica.index}, episode {self.episodes_before + replica.episode}"
            way_out = "Or give --on-nan leave-out, which leaves a replica that diverged out of the average."
            refuse_not_finite(kept(self.state), when=where, or_else=way_out)


def kept(state: TrainingState) -> dict[str, Any]:
    """What a checkpoint and an average hold of numbers that have to be finite."""
    return {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict()["state"],
        "moving average": {} if state.ema is None else state.ema.model.state_dict(),
    }


def stopped(number: int, done: int) -> Stopped:
    """What ends a run that a signal asked to stop, once it is kept."""
    return Stopped(number, f"Step {done} is kept; --resume with the run folder goes on from it.")


def numbers_of(report: EpisodeReport) -> dict[str, float]:
    """Numbers of an average's line; what was not measured is left out."""
    numbers: dict[str, float | None] = {
        "average_accuracy": report.average,
        "replica_accuracy": report.replicas,
        "gain": report.gain,
        "spread": report.spread,
        "recomputed_accuracy": report.recomputed,
        "barrier": report.barrier,
        "barrier_recomputed": report.barrier_recomputed,
        "left_out": float(report.left_out) or None,
    }
    return {name: value for name, value in numbers.items() if value is not None}
