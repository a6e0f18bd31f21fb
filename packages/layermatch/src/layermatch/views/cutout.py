"""Cutout: a filled square somewhere on each image.

Source    DeVries and Taylor, arXiv 1708.04552, in USB's form: centre uniform over the image, side v W with v uniform in
          [0, 0.5]; the corner is cut off at the top and left border before the side is added, and Pillow's rectangle
          includes its last row and column. Fill (125, 123, 114); for grey images 123, its luminance, ours.
Letters   N images, C channels, H W pixels.
"""

import torch
from torch import Tensor

LARGEST_SHARE = 0.5
FILL = {3: (125, 123, 114), 1: (123,)}


def cutout(images: Tensor, *, generator: torch.Generator, largest: float = LARGEST_SHARE) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each with a square of its own filled.

    Args:
        images: UInt8[N C H W] with C 1 or 3.
        generator: of the CPU; three numbers an image are drawn.
        largest: largest side as a share of W.
    """
    count, channels, height, width = images.shape
    uniform = torch.rand(3, count, generator=generator, dtype=torch.float64)
    side = uniform[0] * largest * width
    left = (uniform[1] * width - side / 2).clamp(min=0).floor()
    top = (uniform[2] * height - side / 2).clamp(min=0).floor()
    right, bottom = (left + side).clamp(max=width).floor(), (top + side).clamp(max=height).floor()
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    inside = (y >= top[:, None, None]) & (y <= bottom[:, None, None])
    inside = inside & (x >= left[:, None, None]) & (x <= right[:, None, None])
    fill = torch.tensor(FILL[channels], dtype=torch.uint8).view(1, channels, 1, 1)
    device = images.device
    return torch.where(inside[:, None].to(device, non_blocking=True), fill.to(device, non_blocking=True), images)
