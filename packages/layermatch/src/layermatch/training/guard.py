"""A non-finite loss or gradient never touches a weight: the optimizer skips the step on the device, without a host read.

Torch's fused optimizers leave weights and their own state alone where their `found_inf` is 1. The host learns of it at
the next reading of the metrics, from `first_bad`, the first step whose loss was not finite (-1: none).
"""

from typing import Any

import torch
from torch import Tensor, nn


def fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zero momentum buffers made before the first step, which a skipped first step of fused SGD would leave unfilled."""
    for group in optimizer.param_groups:
        if group.get("momentum", 0):
            for parameter in group["params"]:
                state: dict[str, Any] = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def all_finite(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Bool[]: whether the loss and every gradient are finite, on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.isfinite(torch.nn.utils.get_total_norm(gradients)) & torch.isfinite(loss.detach())


def guarded_step(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """The optimizer's step, left out on the device where `finite` is False. The optimizer must be a fused one."""
    # Read by fused optimizers in step(), where GradScaler leaves them too; the gradients are unscaled already.
    vars(optimizer).update(found_inf=(~finite).float(), grad_scale=None)
    optimizer.step()


class NonFinite:
    """Remembers, on the device, the first step whose loss was not finite; its state is one number.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def note(self, step: int, loss: Tensor) -> None:
        """Look at the loss of `step`."""
        bad = ~torch.isfinite(loss.detach()) & (self.first_bad < 0)
        self.first_bad = self.first_bad.masked_fill(bad, step)
