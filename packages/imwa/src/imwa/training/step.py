"""One optimizer step on one batch: forward, loss, backward, step; no reading of the device on its way."""

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from imwa.training.objective import Objective
from imwa.training.state import TrainingState


def train_step(
    state: TrainingState,
    images: Tensor,
    *,
    labels: Tensor,
    learning_rate: float,
    autocast: AbstractContextManager[Any],
    objective: Objective,
    step: int,
) -> None:
    """Advance model and optimizer by one step.

    Args:
        state: moved in place.
        images: Float[B C H W], normalised, on the model's device.
        labels: Int64[B] on the same device.
        learning_rate: of this step.
        autocast: context of the forward pass.
        objective: logits, labels and the global step to a loss.
        step: global step, from 0.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.model.train()
    state.optimizer.zero_grad()
    with autocast:
        loss = objective(state.model(images), labels, step)
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.ema is not None:
        state.ema.update()
    state.losses[0] += loss.detach()
    state.losses[1] += 1
    state.done += 1
