"""A non-finite loss or gradient never touches anything that lasts: its step is left out on the device, without a host read.

Torch's fused optimizers leave weights and their own state alone where their `found_inf` is 1; running statistics of the
network, which move in the forward pass, are put back. The host learns of it at the next reading of the metrics, from
`first_bad`, the first such step (-1: none), and `left_out`, how many there were.
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
    """The optimizer's step, left out on the device where `finite` is False.

    Raises:
        ValueError: the optimizer is not a fused one, which alone looks at the flag.
    """
    if not all(group.get("fused") for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} was built without fused=True, and only torch's fused optimizers leave out a step on "
            "the device. Build it with fused=True."
        )
    # Read by fused optimizers in step(), where GradScaler leaves them too; the gradients are unscaled already.
    vars(optimizer).update(found_inf=(~finite).float(), grad_scale=None)
    optimizer.step()


class KeptBuffers:
    """Copies of a module's buffers from before a forward pass, to be put back where the pass was not finite.

    Args:
        module: its buffers as they are now are the ones watched, such as BatchNorm's running statistics.
    """

    def __init__(self, module: nn.Module) -> None:
        self._live = [buffer for buffer in module.buffers() if buffer.numel()]
        self._kept = [buffer.detach().clone() for buffer in self._live]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the buffers as they are."""
        _copy(self._kept, self._live)

    @torch.no_grad()
    def put_back(self, *, unless: Tensor | None = None) -> None:
        """Give the buffers what was kept; where the Bool[] `unless` is True they stay, without a host read."""
        if unless is not None and unless.device.type == "cpu":  # in the host's own memory: nothing is waited for
            if unless.numpy():
                return
            unless = None
        if unless is None:
            _copy(self._live, self._kept)
            return
        for live, kept in zip(self._live, self._kept, strict=True):
            torch.where(unless, live, kept, out=live)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage]  (one call for all of them)


class NonFinite:
    """Remembers, on the device, the first step whose loss was not finite, and counts the steps left out.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.left_out = torch.zeros((), dtype=torch.int64, device=device)

    def note(self, step: int, sound: Tensor, *, taken: Tensor | None = None) -> None:
        """Look at a step.

        Args:
            step: its number.
            sound: Bool[], False where its loss was not finite.
            taken: Bool[], False where the step was left out; a gradient scaler leaves some out that are sound. None
                means `sound`.
        """
        self.first_bad = self.first_bad.masked_fill(~sound & (self.first_bad < 0), step)
        self.left_out += ~(sound if taken is None else taken)
