"""The exponential moving average of a model beside its training; with replicas, averaged along with them.

Equation  ema <- d ema + (1 - d) theta after every optimizer step; BatchNorm statistics likewise, whole numbers are copied.
          In replicas it is averaged at every episode's end, and every replica goes on from that: linear, hence exactly the
          moving average of the replicas' averaged course (reading (a) of EMA + IMWA; the paper's own is not known).
"""

import copy

import torch
from torch import Tensor, nn

from imwa.averaging import module_tensors


class MovingAverage:
    """A copy of a model that follows it slowly; its `model` is what is evaluated, and what IMWA averages.

    Args:
        model: what is followed; the copy is in eval mode and without gradients.
        decay: d in [0, 1).
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = list(zip(module_tensors(self.model).values(), module_tensors(model).values(), strict=True))
        self._moving = _columns([pair for pair in pairs if pair[0].is_floating_point()])
        self._copied = _columns([pair for pair in pairs if not pair[0].is_floating_point()])

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model as it is now."""
        for (held, now), share in ((self._moving, 1.0 - self.decay), (self._copied, None)):
            if held and share is not None:
                torch._foreach_lerp_(held, now, share)  # pyright: ignore[reportPrivateImportUsage] (optimizers use it)
            elif held:
                torch._foreach_copy_(held, now)  # pyright: ignore[reportPrivateImportUsage] (optimizers use it)


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [held for held, _ in pairs], [now.detach() for _, now in pairs]
