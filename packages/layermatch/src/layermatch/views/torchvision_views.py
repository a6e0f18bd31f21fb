"""A transform of torchvision v2, or of one's own, in place of our views: image by image, each with its own random state.

Such transforms draw from global random generators, and over a batch they draw once for all images. So each image is
transformed alone, after the global generators were started from a number of its own, and afterwards they are put back: the
views are then a pure function of the generator that is passed in, as ours are, whatever was drawn before.

Cost      a Python call an image, tens of times slower than `strong_views`; see the bench.
Letters   N images, C channels, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scarce_common_utils.random_state import capture_random_state, restore_random_state, seed_random_state

from .weak import part_of


@dataclass(frozen=True)
class TransformViews:
    """Views by a transform of single images; called as `weak_views` and `strong_views` are, and usable in their place.

    Attributes:
        transform: UInt8[C H W] -> UInt8[C H W], all results of one shape, such as `v2.Compose([v2.RandomCrop(32, 4,
            padding_mode="reflect"), v2.RandAugment()])`. It is the whole view: conversion to float and normalisation
            come after it and do not belong in it.

    Example:
        >>> import torch
        >>> views = TransformViews(lambda image: image.roll(int(torch.randint(4, ())), dims=-1))
        >>> images = torch.arange(8, dtype=torch.uint8).view(2, 1, 1, 4)
        >>> first = views(images, generator=torch.Generator().manual_seed(0))
        >>> bool((first == views(images, generator=torch.Generator().manual_seed(0))).all())
        True
    """

    transform: Callable[[Tensor], Tensor]

    def __call__(
        self,
        images: Tensor,
        *,
        generator: torch.Generator,
        shift: int = 0,
        mirror: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Tensor:
        """UInt8[N C H W] -> UInt8[N C H W].

        Args:
            images: UInt8[N C H W], on any device.
            generator: of the CPU; one number an image is drawn.
            shift: not looked at: cropping belongs in the transform.
            mirror: not looked at: mirroring belongs in the transform.
            part: as in `weak_views`.

        Raises:
            ValueError: the transform gives something else than UInt8[C H W]; what it gave is named.
        """
        own, total = part_of(len(images), part)
        seeds = torch.randint(2**62, (total,), generator=generator)[own].tolist()
        kept = capture_random_state()
        views = []
        try:
            for image, seed in zip(images, seeds, strict=True):
                seed_random_state(seed)
                views.append(_checked(self.transform(image), image))
        finally:
            restore_random_state(kept)
        return torch.stack(views) if views else images


def _checked(view: object, image: Tensor) -> Tensor:
    if not isinstance(view, Tensor) or view.dtype != torch.uint8 or view.dim() != 3 or len(view) != len(image):
        found = f"{view.dtype} {tuple(view.shape)}" if isinstance(view, Tensor) else type(view).__name__
        raise ValueError(
            f"The transform gave {found} for an image torch.uint8 {tuple(image.shape)}. It must give uint8 with as many "
            "channels: leave ToDtype and Normalize out, both come after it."
        )
    return view
