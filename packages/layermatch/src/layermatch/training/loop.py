"""The training loop: steps, with a reading of the metrics, an evaluation and a checkpoint now and then.

A line of metrics bears the number of the last step that it counts, from 0. Evaluations come before a checkpoint of the
same step, so that a resumed run repeats no line and misses none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from layermatch.data.batches import Batches
from layermatch.training.evaluation import row_norm
from layermatch.training.schedule import cosine_factor
from layermatch.training.state import METRICS, TrainingState
from layermatch.training.step import ViewSettings, train_step
from scarce_common_utils.errors import UserError


class Bar(Protocol):
    """What shows progress: `scarce_common_utils.progress.Progress`."""

    def advance(self, count: int = 1, **shown: float) -> None:
        """Count steps as done."""
        ...


class Outlets(NamedTuple):
    """Where a run's numbers come from and go to.

    `evaluate()` gives the averaged model's accuracy in percent, `log(step, **numbers)` keeps a line of metrics, and
    `save()` writes a checkpoint of the state.
    """

    evaluate: Callable[[], float]
    log: Callable[..., Any]
    save: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Numbers of a run.

    Attributes:
        steps: T.
        learning_rate: at step 0; times `cosine_factor` later.
        log_every: steps between readings of the metrics.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints; the last step always gets one.
    """

    steps: int
    learning_rate: float
    log_every: int
    evaluate_every: int
    checkpoint_every: int


def train(
    state: TrainingState,
    plan: Plan,
    *,
    batches: Batches,
    views: ViewSettings,
    autocast: torch.autocast,
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
        UserError: a loss was not finite; the step, the learning rate and the images are named. No weight was touched.
    """
    shown: dict[str, float] = {}
    while state.step < plan.steps:
        step = state.step
        rate = plan.learning_rate * cosine_factor(step, plan.steps)
        train_step(state, batches(step), views=views, learning_rate=rate, autocast=autocast)
        last = state.step == plan.steps
        numbers: dict[str, float] = {}
        if state.step % plan.log_every == 0 or last:
            stop_if_not_finite(state, plan, batches=batches)
            numbers = read_metrics(state, count=step % plan.log_every + 1) | {"learning_rate": rate}
            shown["loss"] = numbers["loss"]
        if state.step % plan.evaluate_every == 0 or last:
            numbers["accuracy"] = shown["accuracy"] = outlets.evaluate()
        if numbers:
            outlets.log(step, **numbers)
        if state.step % plan.checkpoint_every == 0 or last:
            stop_if_not_finite(state, plan, batches=batches)
            outlets.save()
        bar.advance(1, **shown)


def read_metrics(state: TrainingState, *, count: int) -> dict[str, float]:
    """Means over the `count` steps since the last reading, on the host; the sums start anew."""
    sums = dict(zip(METRICS, state.sums.tolist(), strict=True))
    state.sums.zero_()
    numbers = {name: sums[name] / count for name in METRICS[:4]}
    if not state.criterion.needs_unlabelled:
        numbers = {"loss": numbers["loss"], "labelled_loss": numbers["labelled_loss"]}
    if sums["pseudo_known"]:
        numbers["pseudo_label_accuracy_all"] = 100.0 * sums["pseudo_right"] / sums["pseudo_known"]
    if sums["used_known"]:
        numbers["pseudo_label_accuracy"] = 100.0 * sums["used_right"] / sums["used_known"]
    return numbers | {"classifier_norm": row_norm(state.criterion.classifier)}


def stop_if_not_finite(state: TrainingState, plan: Plan, *, batches: Batches) -> None:
    """Raise a UserError that names the first step with a non-finite loss, if there was one."""
    first = int(state.nonfinite.first_bad)
    if first < 0:
        return
    labelled, pool = batches.places(first)
    raise UserError(
        f"The loss was not finite at step {first} (learning rate {plan.learning_rate * cosine_factor(first, plan.steps):g}, "
        f"labelled images {_few(labelled.tolist())}, unlabelled images {_few(pool.tolist())}). That step was left out and "
        "nothing after it is kept. Lower --learning-rate, or compute in --precision float32."
    )


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "") if numbers else "none"
