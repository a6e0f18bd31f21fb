"""Cutout: a filled square somewhere on each image.

Source    DeVries and Taylor, arXiv 1708.04552, in the two published forms of this line of work: centre uniform over the
          image; the corner is cut off at the top and left border before the side is added, so that squares near these
          borders keep their full side; Pillow's rectangle includes its last row and column, one pixel more than the side.
            USB, TorchSSL     side v W with v uniform in [0, 0.5), fill (125, 123, 114)
            FixMatch-pytorch  side 16 of 32 pixels, fill 127
          For grey images the fill is its luminance; for other widths FixMatch-pytorch's side is half of them. Both are ours.
Letters   N images, C channels (1 or 3), H W pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class CutoutForm(NamedTuple):
    """Smallest and largest side as shares of W, whether corners are cut to whole pixels first, fill of RGB and grey."""

    smallest: float
    largest: float
    fill: tuple[int, int, int]
    grey: int


USB = CutoutForm(0.0, 0.5, (125, 123, 114), 123)
FIXMATCH_PYTORCH = CutoutForm(0.5, 0.5, (127, 127, 127), 127)


def cutout_boxes(uniform: Tensor, *, size: tuple[int, int], form: CutoutForm = USB) -> Tensor:
    """Int64[N 4]: first and last column, first and last row of each square, both included.

    Args:
        uniform: Float64[3 N] in [0, 1): side, centre's column, centre's row.
        size: (H, W).
        form: sides.
    """
    height, width = size
    side = (form.smallest + (form.largest - form.smallest) * uniform[0]) * width
    left = (uniform[1] * width - side / 2).clamp(min=0).floor()
    top = (uniform[2] * height - side / 2).clamp(min=0).floor()
    return torch.stack(
        [left, (left + side).clamp(max=width).floor(), top, (top + side).clamp(max=height).floor()], dim=1
    ).long()


def cut_out(images: Tensor, boxes: Tensor, *, form: CutoutForm = USB) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], the box Int64[N 4] of each image filled."""
    height, width = images.shape[-2:]
    x, y = torch.arange(width), torch.arange(height)
    left, right, top, bottom = boxes[:, :, None].unbind(1)
    columns = ((x >= left) & (x <= right)).to(torch.uint8).neg_()  # 255 within, 0 without
    rows = ((y >= top) & (y <= bottom)).to(torch.uint8).neg_()
    sides = torch.cat([columns, rows], dim=1).to(images.device, non_blocking=True)
    inside = (sides[:, None, :width] & sides[:, width:, None])[:, None]
    fill = torch.tensor(form.fill if images.shape[1] == 3 else (form.grey,), dtype=torch.uint8).view(1, -1, 1, 1)
    # image, or where inside is all ones the fill: in bits, which is far faster than `where` on a CPU
    return (images ^ fill.to(images.device, non_blocking=True)).bitwise_and_(inside).bitwise_xor_(images)
