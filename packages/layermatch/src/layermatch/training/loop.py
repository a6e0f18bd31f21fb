"""The training loop: steps, with a reading of the metrics, an evaluation and a checkpoint now and then.

A line of metrics bears the number of the last step that it counts, from 0. Evaluations come before a checkpoint of the
same step, so that a resumed run repeats no line and misses none.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from layermatch.data.batches import Batches
from layermatch.training.evaluation import row_norm
from layermatch.training.schedule import cosine_factor
from layermatch.training.state import MEANS, METRICS, TrainingState
from layermatch.training.step import Views, train_step
from scarce_common_utils.errors import UserError
from scarce_common_utils.finite import named, not_finite, refuse_not_finite
from scarce_common_utils.signals import Stopped


class Bar(Protocol):
    """What shows progress: `scarce_common_utils.progress.Progress`."""

    def advance(self, count: int = 1, **shown: float) -> None:
        """Count steps as done."""
        ...


class Outlets(NamedTuple):
    """Where a run's numbers come from and go to.

    `evaluate()` gives the averaged model's accuracy in percent, `log(step, **numbers)` keeps a line of metrics, and
    `save()` writes a checkpoint of the state. Where several processes train, each calls all three at the same steps.
    `stop()` is the number of the signal that asked this process to stop, None while none did.
    """

    evaluate: Callable[[], float]
    log: Callable[..., Any]
    save: Callable[[], Any]
    stop: Callable[[], int | None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Numbers of a run.

    Attributes:
        steps: T.
        learning_rate: at step 0; times `cosine_factor` later.
        log_every: steps between readings of the metrics.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints; the last step always gets one.
        micro_batches: parts of a step's batch, one after the other, as memory asks for.
        on_nonfinite: what a loss that is not finite does to the run once it is seen: `stop`, or `count` it and go on.
    """

    steps: int
    learning_rate: float
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    micro_batches: int = 1
    on_nonfinite: Literal["stop", "count"] = "stop"


def train(
    state: TrainingState,
    plan: Plan,
    *,
    batches: Batches,
    views: Views,
    autocast: AbstractContextManager,
    outlets: Outlets,
    bar: Bar,
) -> None:
    """Go on from `state.step` to the plan's end.

    Args:
        state: moved in place.
        plan: numbers of the run.
        batches: step -> batch.
        views: how images become views.
        autocast: context of the forward pass.
        outlets: where the numbers go.
        bar: shows progress.

    Raises:
        UserError: a loss was not finite; the step, the learning rate and the images are named. No weight was touched. Or what a
            checkpoint would keep was not finite; the tensor is named.
        Stopped: a signal asked for it; the step that was under way is done and kept.
    """
    shown: dict[str, float] = {}
    images, began = 0, time.monotonic()
    while state.step < plan.steps:
        step = state.step
        rate = plan.learning_rate * cosine_factor(step, plan.steps)
        batch = batches(step)
        train_step(state, batch, views=views, learning_rate=rate, autocast=autocast, micro_batches=plan.micro_batches)
        images += (len(batch.labels) + len(batch.unlabelled)) * state.processes.count
        last = state.step == plan.steps
        numbers: dict[str, float] = {}
        if state.step % plan.log_every == 0 or last:
            stop_if_not_finite(state, plan, batches=batches)
            numbers = read_metrics(state) | {"learning_rate": rate}
            shown |= {"loss": numbers["loss"], "images/s": images / max(time.monotonic() - began, 1e-9)}
        if state.step % plan.evaluate_every == 0 or last:
            numbers["accuracy"] = shown["accuracy"] = outlets.evaluate()
        if numbers:
            outlets.log(step, **numbers)
        stop = asked_to_stop(state, outlets, reading=bool(numbers))
        if state.step % plan.checkpoint_every == 0 or last or stop is not None:
            stop_if_not_finite(state, plan, batches=batches)
            refuse_not_finite(kept(state), when=f"after step {step}")
            outlets.save()
        bar.advance(1, **shown)
        if stop is not None and not last:
            raise Stopped(
                stop, f"Step {state.step} of {plan.steps} is kept; --resume with the run folder goes on from it."
            )


def asked_to_stop(state: TrainingState, outlets: Outlets, *, reading: bool) -> int | None:
    """The signal that asked for an end, in every process alike.

    One process looks at every step; several, which a signal reaches at different steps, agree where the metrics are read.
    """
    if state.processes.count == 1:
        return outlets.stop()
    found = state.processes.gathered(outlets.stop()) if reading else []
    return next((number for number in found if number is not None), None)


def read_metrics(state: TrainingState) -> dict[str, float]:
    """Means over the steps taken since the last reading, on the host; the sums start anew.

    `steps_left_out` is there from the first step on that was left out, and counts from the run's beginning.
    """
    values = state.processes.total(state.sums).tolist()
    left_out = int(state.nonfinite.left_out)
    state.sums.zero_()
    sums, classes = dict(zip(METRICS, values, strict=False)), values[len(METRICS) :]
    steps = sums["steps"] if sums["steps"] else float("nan")
    numbers = {name: sums[name] / steps for name in MEANS[1:]}
    if not state.criterion.needs_unlabelled:
        numbers = {"loss": numbers["loss"], "labelled_loss": numbers["labelled_loss"]}
        classes = []
    if sums["pseudo_known"]:
        numbers["pseudo_label_accuracy_all"] = 100.0 * sums["pseudo_right"] / sums["pseudo_known"]
    if sums["used_known"]:
        numbers["pseudo_label_accuracy"] = 100.0 * sums["used_right"] / sums["used_known"]
    numbers |= {f"used_of_class_{number}": count for number, count in enumerate(classes)}
    if left_out:
        numbers["steps_left_out"] = left_out
    return numbers | {"classifier_norm": row_norm(state.criterion.classifier)}


def stop_if_not_finite(state: TrainingState, plan: Plan, *, batches: Batches) -> None:
    """Raise a UserError that names the first step with a non-finite loss, if there was one and the plan says `stop`."""
    first = -1 if plan.on_nonfinite == "count" else int(state.nonfinite.first_bad)
    if first < 0:
        return
    labelled, pool = batches.places.whole(first)
    rate = plan.learning_rate * cosine_factor(first, plan.steps)
    gradients = {name: parameter.grad for name, parameter in state.model.named_parameters()}
    places = not_finite(kept(state)) + not_finite({"gradient": gradients})
    raise UserError(
        f"The loss or its gradient was not finite at step {first} (learning rate {rate:g}, "
        f"labelled images {_few(labelled.tolist())}, unlabelled images {_few(pool.tolist())}"
        f"{f'; not finite now: {named(places)}' if places else ''}). That step was left out and "
        "nothing after it is kept. Lower --learning-rate, compute in --precision float32, or start again with "
        "--on-nonfinite count, which leaves such steps out and goes on."
    )


def kept(state: TrainingState) -> dict[str, Any]:
    """What a checkpoint holds of numbers that have to be finite."""
    return {
        "model": state.model.state_dict(),
        "centres and rules": state.criterion.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict()["state"],
    }


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "") if numbers else "none"
