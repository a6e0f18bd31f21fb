"""The moving average of a model, which is what gets evaluated.

theta_avg <- theta_avg + (1 - m)(theta - theta_avg)      after each optimizer step; starts as a copy
buffers (BatchNorm statistics) are copied, not averaged, as USB and FixMatch-pytorch do
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class ModelAverage:
    """A copy of a model whose floating-point parameters follow it slowly.

    Args:
        model: what is averaged; the copy is `average`, in eval mode and without gradients.
        momentum: m in [0, 1]; 0 follows at once.

    Raises:
        ValueError: the momentum lies outside [0, 1]; it is named.
    """

    def __init__(self, model: nn.Module, *, momentum: float) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"The model average's momentum is {momentum}. Choose a number from 0 to 1.")
        self.momentum = float(momentum)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self._parameters = list(zip(self.average.parameters(), model.parameters(), strict=True))
        self._buffers = list(zip(self.average.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, *, step_taken: Tensor | None = None) -> None:
        """Move the average towards the model as it is now.

        Args:
            step_taken: Bool[] on the model's device; where it is False the average stays as it is, without a host
                read. None means True.
        """
        for average, live in self._parameters:
            moved = average.lerp(live, 1.0 - self.momentum)
            average.copy_(moved if step_taken is None else torch.where(step_taken, moved, average))
        for held, now in self._buffers:
            held.copy_(now if step_taken is None else torch.where(step_taken, now, held))

    def state_dict(self) -> dict[str, Any]:
        """State of the averaged copy."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from `state_dict()`; names and shapes must fit."""
        self.average.load_state_dict(state)
