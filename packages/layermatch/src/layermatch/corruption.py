"""Wrong pseudo-labels on purpose, for the mechanism test: a share of them is replaced after their weights are decided.

    uniform   (label + s_i) mod K,   s_i fixed in 1..K-1      for a fixed share of the images
    pair      (label + 1) mod K                               for a fixed share of the images
    fresh     (label + s_i) mod K,   s_i and the images drawn anew at every step

Source    the test is ours: pseudo-labels' noise should harm the classifier, and less the features (paper, abstract).
Letters   U samples, K classes, N unlabelled images.
"""

from typing import Any

import torch
from torch import Tensor, nn

from scarce_common_utils.streams import stream

from .keywords import spelt

KINDS = ("uniform", "pair", "fresh")


class Corruption(nn.Module):
    """From labels Int64[U] and their images' indices Int64[U] to the labels that the loss sees, Int64[U].

    For `LayerMatch(corrupt=...)`. A function of (seed, image), and for `fresh` of (seed, step, image). Its state is the
    number of steps.

    Args:
        kind: `uniform`, `pair` or `fresh`.
        share: of the images, in [0, 1]; `round(share * images)` of them are chosen.
        images: N, the size of the unlabelled set that `indices=` speaks of.
        classes: K, at least 2.
        seed: of the stream "corruption".

    Raises:
        ValueError: a value out of range; it is named.
    """

    offsets: Tensor

    @spelt
    def __init__(self, kind: str, share: float, *, images: int, classes: int, seed: int) -> None:
        super().__init__()
        if kind not in KINDS:
            known = ", ".join(map(repr, KINDS))
            raise ValueError(f"The corruption is {kind!r}, which is not known here. Choose one of {known}.")
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"The share of corrupted pseudo-labels is {share}. Choose a number from 0 to 1.")
        if images < 1 or classes < 2:
            raise ValueError(f"There are {images} images and {classes} classes. Pseudo-labels need 1 and 2 at least.")
        self.kind, self.share, self.classes, self.seed = kind, float(share), classes, seed
        self.step = 0
        self.register_buffer("offsets", self._drawn(images), persistent=False)

    def forward(self, labels: Tensor, indices: Tensor) -> Tensor:
        """Int64[U]: the labels, replaced where their image is among the chosen ones."""
        return (labels + self.offsets[indices]) % self.classes

    def update(self) -> None:
        """Count a step; `fresh` draws again."""
        self.step += 1
        self._redraw()

    def get_extra_state(self) -> Tensor:
        """The number of steps, Int64[]."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Any) -> None:
        """Go on from a saved number of steps."""
        self.step = int(state)
        self._redraw()

    def _redraw(self) -> None:
        if self.kind == "fresh":
            self.offsets.copy_(self._drawn(len(self.offsets)), non_blocking=True)

    def _drawn(self, images: int) -> Tensor:
        """Int64[N]: what is added to the label of each image, 0 for those that are left alone."""
        at = [self.step] if self.kind == "fresh" else []
        generator = stream(self.seed, "corruption", *at)
        chosen = torch.randperm(images, generator=generator)[: round(self.share * images)]
        offsets = torch.ones(images, dtype=torch.int64)
        if self.kind != "pair":
            offsets = torch.randint(1, self.classes, (images,), generator=generator)
        return torch.zeros(images, dtype=torch.int64).index_copy_(0, chosen, offsets[chosen])
