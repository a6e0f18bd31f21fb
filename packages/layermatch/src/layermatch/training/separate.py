"""Features of labelled and unlabelled images by a forward each, for methods whose unlabelled images have one view alone.

As USB's pseudolabel does: each part is normalised by its own batch statistics, and BatchNorm's running statistics follow
the labelled images alone. What the unlabelled forward did to them is put back after the backward pass, which still
needs them as they were.
"""

import torch
from torch import Tensor, nn

from .guard import KeptBuffers


class SeparateForwards(nn.Module):
    """A split model called twice within one forward, so that DistributedDataParallel sees a single one.

    Args:
        split: images -> features Float[N D].
    """

    def __init__(self, split: nn.Module) -> None:
        super().__init__()
        self.split = split
        self._after_first = KeptBuffers(split)

    def forward(self, images: Tensor, first: int) -> Tensor:
        """Features Float[N D] of images Float[N C H W]: of the first `first`, then of the others."""
        head = self.split(images[:first])
        self._after_first.keep()
        return torch.cat([head, self.split(images[first:])])

    def put_back(self) -> None:
        """Give the running statistics what they were after the first part."""
        self._after_first.put_back()
