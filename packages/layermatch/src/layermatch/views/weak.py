"""Weak view: each image shifted by a few pixels (reflected at the border) and perhaps mirrored.

Source    FixMatch, arXiv 2001.07685, section 2.3, where the shift is 1/8 of the side (4 pixels of 32).
Letters   N images, C channels, H W pixels.
"""

from typing import NamedTuple

import numpy
import torch
from torch import Tensor


class WeakDraws(NamedTuple):
    """One row an image, on the CPU: `down` and `right` Int64[N] in pixels, `mirror` Bool[N]."""

    down: Tensor
    right: Tensor
    mirror: Tensor


def weak_views(images: Tensor, *, generator: torch.Generator, shift: int, mirror: bool) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each image with its own shift and mirroring.

    Args:
        images: UInt8[N C H W], on any device.
        generator: of the CPU, such as `stream(seed, "weak", step)`; the same draws on every device.
        shift: largest shift in either direction, in pixels, below both sides; 0 shifts nothing.
        mirror: mirror half of the images left to right; only where a mirrored image keeps its class.

    Raises:
        ValueError: the shift is negative or reaches a side of the images.
    """
    return apply_weak(images, weak_draws(len(images), generator=generator, shift=shift, mirror=mirror))


def weak_draws(count: int, *, generator: torch.Generator, shift: int, mirror: bool) -> WeakDraws:
    """Draw for `count` images; as many numbers are drawn whatever `shift` and `mirror` are."""
    if shift < 0:
        raise ValueError(f"shift is {shift}; it is a number of pixels, at least 0.")
    uniform = torch.rand(3, count, generator=generator, dtype=torch.float64)
    moves = (uniform[:2] * (2 * shift + 1)).long() - shift
    return WeakDraws(moves[0], moves[1], (uniform[2] < 0.5) & mirror)


def apply_weak(images: Tensor, draws: WeakDraws) -> Tensor:
    """Shift and mirror by the draws: out[y, x] = in[reflect(y + down), reflect(x' + right)], x' mirrored where told."""
    height, width = images.shape[-2:]
    if max(_largest(draws.down) - height, _largest(draws.right) - width) >= 0:
        raise ValueError(f"A shift of {_largest(draws.down)} pixels does not fit images of {height}x{width}.")
    columns = torch.arange(width).expand(len(images), width)
    columns = torch.where(draws.mirror[:, None], width - 1 - columns, columns) + draws.right[:, None]
    rows = torch.arange(height) + draws.down[:, None]
    flat = _reflected(rows, height)[:, :, None] * width + _reflected(columns, width)[:, None, :]
    return gather_pixels(images, flat.to(images.device, non_blocking=True))


def gather_pixels(images: Tensor, places: Tensor) -> Tensor:
    """out[n, c, y, x] = the pixel `places[n, y, x]` (row times W plus column) of image n, Int64[N H W]."""
    count, channels = images.shape[:2]
    index = places.reshape(count, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view(images.shape)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Mirror at the centres of the first and the last pixel: -1 is 1, size is size - 2."""
    return (size - 1 - (size - 1 - places.abs()).abs()).abs()


def _largest(moves: Tensor) -> int:
    return int(numpy.abs(moves.numpy()).max(initial=0))  # draws live on the CPU
