"""Strong view: the weak one, then RandAugment, then Cutout, in USB's order.

Letters   N images, C channels, H W pixels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .cutout import cutout
from .operations import FIXMATCH, Range
from .randaugment import randaugment
from .weak import weak_views


def strong_views(
    images: Tensor,
    *,
    generator: torch.Generator,
    shift: int,
    mirror: bool,
    draws: int = 3,
    pool: Mapping[str, Range] = FIXMATCH,
) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each image with draws of its own.

    Args:
        images: UInt8[N C H W] with C 1 or 3, on any device.
        generator: of the CPU, such as `stream(seed, "strong", step)`; the same draws on every device.
        shift: as in `weak_views`, pixels.
        mirror: as in `weak_views`.
        draws: RandAugment operations an image; USB has 3, FixMatch's paper 2.
        pool: the operations to draw from.
    """
    views = weak_views(images, generator=generator, shift=shift, mirror=mirror)
    views = randaugment(views, generator=generator, draws=draws, pool=pool)
    return cutout(views, generator=generator)
