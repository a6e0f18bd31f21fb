"""Rotation, shear and translation of uint8 batches, each image with its own, equal to Pillow's affine transform.

Pixel (x, y) of the result is pixel (a x + b y + c, d x + e y + f) of the image, taken at pixel centres, nearest neighbour,
black outside. The six numbers are Pillow's 16.16 fixed point, made on the CPU; what runs on the device is integers alone.

Source    FixMatch, arXiv 2001.07685, table 12; USB's and FixMatch-pytorch's calls of `rotate` and `transform`.
Letters   n images, C channels (1 or 3), H W pixels (at most 2^13 each, so that fixed point stays within 32 bits).
"""

from collections.abc import Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def fixed_point(operations: NDArray, magnitudes: NDArray, *, size: tuple[int, int]) -> NDArray:
    """Int32[n 6]: a, b, c, d, e, f of each image, the half pixels of the centres included.

    Args:
        operations: Int64[n] places in `GEOMETRY`; a number outside gets the identity.
        magnitudes: Float64[n]: degrees counter-clockwise (rotate), slope (shear), whole pixels (translate), all of the
            place that a pixel is taken from.
        size: (H, W).
    """
    height, width = size
    table = numpy.zeros((len(operations), 6))
    table[:, 0] = table[:, 4] = 1.0
    turned = operations == 0
    angle = -magnitudes[turned] * (numpy.pi / 180.0)
    # fifteen digits as Pillow rounds, which also makes every machine's sine the same
    cosine, sine = numpy.cos(angle).round(15), numpy.sin(angle).round(15)
    x, y = width / 2.0, height / 2.0
    table[turned] = numpy.stack(
        [cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y], axis=1
    )
    for operation, column in enumerate((1, 3, 2, 5), start=1):
        moved = operations == operation
        table[moved, column] = magnitudes[moved]
    table[:, 2] += 0.5 * table[:, 0] + 0.5 * table[:, 1]
    table[:, 5] += 0.5 * table[:, 3] + 0.5 * table[:, 4]
    return numpy.floor(table * 65536.0 + 0.5).astype(numpy.int32)


def warp(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Move pixels by the rows Int32[n 6] of `fixed_point`."""
    height, width = images.shape[-2:]
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    a, b, c, d, e, f = rows.view(-1, 6, 1, 1).unbind(1)
    from_x = ((a * x + c) + b * y).bitwise_right_shift_(16).clamp_(-1, width)
    from_y = ((e * y + f) + d * x).bitwise_right_shift_(16).clamp_(-1, height)
    # one black pixel around each image stands for all outside
    framed = torch.nn.functional.pad(_packed(images), (1, 1, 1, 1))
    first = torch.arange(len(images), dtype=torch.int32, device=images.device)[:, None, None] * framed[0].numel()
    places = from_y.mul_(width + 2).add_(from_x).add_(first + (width + 3))
    return _unpacked(framed.flatten().index_select(0, places.flatten()).view(places.shape), like=images)


def _packed(images: Tensor) -> Tensor:
    """UInt8[n 1 H W] -> UInt8[n H W]; UInt8[n 3 H W] -> Int32[n H W], so that a pixel moves as one number."""
    if images.shape[1] == 1:
        return images[:, 0]
    red, green, blue = (images[:, channel].to(torch.int32) for channel in range(3))
    return red.add_(green, alpha=1 << 8).add_(blue, alpha=1 << 16)


def _unpacked(pixels: Tensor, *, like: Tensor) -> Tensor:
    if like.shape[1] == 1:
        return pixels[:, None]
    return torch.stack([pixels.to(torch.uint8), (pixels >> 8).to(torch.uint8), (pixels >> 16).to(torch.uint8)], dim=1)
