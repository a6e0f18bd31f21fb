"""Weak view: each image shifted by a few pixels (reflected at the border) and perhaps mirrored.

What is drawn (`weak_draws`, on the CPU, a pure function of the generator) stands apart from its application.

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


def weak_views(
    images: Tensor, *, generator: torch.Generator, shift: int, mirror: bool, part: tuple[int, int] = (0, 1)
) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each image with its own shift and mirroring.

    Args:
        images: UInt8[N C H W], on any device.
        generator: of the CPU, such as `stream(seed, "weak", step)`; the same draws on every device.
        shift: largest shift in either direction, in pixels, below both sides; 0 shifts nothing.
        mirror: mirror half of the images left to right; only where a mirrored image keeps its class.
        part: (place, count): the images are this one, from 0, of `count` equal parts of a batch that the draws are made
            for. The parts' views, one after the other, are the whole batch's, bit for bit.

    Raises:
        ValueError: the shift is negative or reaches a side of the images, or the part does not exist.
    """
    return apply_weak(images, weak_draws(len(images), generator=generator, shift=shift, mirror=mirror, part=part))


def weak_draws(
    count: int, *, generator: torch.Generator, shift: int, mirror: bool, part: tuple[int, int] = (0, 1)
) -> WeakDraws:
    """Draw for `count` images; as many numbers are drawn whatever `shift` and `mirror` are."""
    if shift < 0:
        raise ValueError(f"shift is {shift}; it is a number of pixels, at least 0.")
    own, total = part_of(count, part)
    uniform = torch.rand(3, total, generator=generator, dtype=torch.float64)[:, own]
    moves = (uniform[:2] * (2 * shift + 1)).long() - shift
    return WeakDraws(moves[0], moves[1], (uniform[2] < 0.5) & mirror)


def apply_weak(images: Tensor, draws: WeakDraws) -> Tensor:
    """Shift and mirror by the draws: out[y, x] = in[reflect(y + down), reflect(x' + right)], x' mirrored where told.

    Rows are reflected by their numbers and columns by a margin at both sides of each row, so that a row of the result is
    one stretch of memory in the images or in their mirrored copy.
    """
    count, channels, height, width = images.shape
    margin, largest = _largest(draws.right), _largest(draws.down)
    if largest >= height or margin >= width:
        far = largest if largest >= height else margin
        raise ValueError(f"A shift of {far} pixels does not fit images of {height}x{width}.")
    flipped, wide = images.flip(-1), width + 2 * margin
    rows = torch.cat([_with_margin(images, flipped, margin), _with_margin(flipped, images, margin)]).view(-1)
    rows = rows.as_strided((max(rows.numel() - width + 1, 0), width), (1, 1))
    mirror = draws.mirror.long()
    # a mirrored image moved right is the mirrored copy moved left
    right = margin + draws.right * (1 - 2 * mirror)
    first = (mirror * count + torch.arange(count)) * (channels * height * wide) + right
    lines = _reflected(torch.arange(height) + draws.down[:, None], height) * wide
    starts = (first[:, None] + lines).to(images.device, non_blocking=True)
    plane = torch.arange(channels, device=images.device)[:, None] * (height * wide)
    return rows.index_select(0, (starts[:, None] + plane).view(-1)).view(images.shape)


def part_of(count: int, part: tuple[int, int]) -> tuple[slice, int]:
    """Which of all images `count` local ones are, and how many there are in all.

    Raises:
        ValueError: the place is not from 0 to one below the number of parts.
    """
    place, parts = part
    if not 0 <= place < parts:
        raise ValueError(f"part is {part}: its place must be from 0 to {parts - 1}, one of {parts} equal parts.")
    return slice(place * count, (place + 1) * count), count * parts


def _with_margin(images: Tensor, flipped: Tensor, margin: int) -> Tensor:
    """Each row with `margin` reflected pixels before and behind; reflected pixels are what the flipped image ends with."""
    width = images.shape[-1]
    ends = flipped[..., width - 1 - margin : width - 1], flipped[..., 1 : 1 + margin]
    return torch.cat([ends[0], images, ends[1]], dim=-1)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Mirror at the centres of the first and the last pixel: -1 is 1, size is size - 2."""
    return (size - 1 - (size - 1 - places.abs()).abs()).abs()


def _largest(moves: Tensor) -> int:
    return int(numpy.abs(moves.numpy()).max(initial=0))  # draws live on the CPU
