"""FixMatch's fourteen operations on uint8 batches, each image with its own magnitude, equal to Pillow's values.

Operations that share their arithmetic are one family, so that a batch of mixed operations needs few calls. A family gets
its images UInt8[n C H W], sorted by operation, `rows` Int32[n 6] of whole numbers made on the CPU by `parameter_rows`
(so that every device does the same integer arithmetic) and the number of images of each of its operations.

Source    RandAugment's pool in FixMatch, arXiv 2001.07685, table 12. The values are Pillow's: a blend in single precision,
          cut to an integer; luminance in 16-bit fixed point; geometry in `geometry.py`.
Letters   n images, C channels (1 or 3), H W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from .geometry import GEOMETRY, fixed_point, warp


def keep(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """The images as they are."""
    return images


def autocontrast(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Stretch each channel so that its smallest value becomes 0 and its largest 255."""
    pixels = images.flatten(2)
    low, high = pixels.amin(2, keepdim=True), pixels.amax(2, keepdim=True)
    flat = high <= low  # stays as it is: from 0..255 to 0..255
    low, high = low.masked_fill_(flat, 0).double(), high.masked_fill_(flat, 255).double()
    # a full tensor over another, since torch takes number / tensor by way of the rounded reciprocal
    scale = torch.full_like(high, 255.0).div_(high.sub_(low))
    return _whole(pixels.double().mul_(scale).sub_(low.mul_(scale)).clamp_(0, 255)).view(images.shape)


def equalize(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Spread each channel's values so that their histogram becomes flat (Pillow's integer rule)."""
    count, channels = images.shape[:2]
    pixels = images.flatten(0, 1).flatten(1)
    values = pixels.long()
    histogram = values.new_zeros(count * channels, 256).scatter_add_(1, values, torch.ones_like(values))
    last = histogram.gather(1, pixels.amax(1, keepdim=True).long())
    step = (values.shape[1] - last) // 255
    before = histogram.cumsum(1).sub_(histogram).add_(step // 2)
    # double precision is exact here, and its division far faster than that of integers
    table = _whole(before.double().div_(step.clamp(min=1)).clamp_(max=255))
    table = torch.where(step > 0, table, torch.arange(256, dtype=torch.uint8, device=images.device))
    return table.gather(1, values).view(images.shape)


def posterize(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Keep the upper bits that `rows[:, 0]` has set."""
    return images & _each(rows[:, 0].to(torch.uint8))


def solarize(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Invert values at or above `rows[:, 0]`."""
    values = images.to(torch.int16)
    below = (values - _each(rows[:, 0].to(torch.int16))).bitwise_right_shift_(15)  # -1 below, else 0: all bits or none
    return below.bitwise_not_().bitwise_xor_(values).to(torch.uint8)


def weaken(images: Tensor, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Blend from black, grey, the mean or the smoothed image by the share whose bits `rows[:, 0]` holds; 1 is the image."""
    parts = zip(WEAKENED.values(), images.split(list(sizes)), strict=True)
    start = torch.cat([origin(part) for origin, part in parts if len(part)]).to(torch.float32)
    share = _each(rows[:, 0].view(torch.float32))
    return _whole(images.to(torch.float32).sub_(start).mul_(share).add_(start))


def _black(images: Tensor) -> Tensor:
    """Brightness fades to black."""
    return torch.zeros_like(images)


def _grey(images: Tensor) -> Tensor:
    """Colour fades to the luminance, in Pillow's integers."""
    return _luminance(images).expand_as(images)


def _mean(images: Tensor) -> Tensor:
    """Contrast fades to the luminance's mean, rounded."""
    total = _luminance(images).flatten(1).sum(1, dtype=torch.int64)
    size = images.shape[-2] * images.shape[-1]
    return _each(((2 * total + size) // (2 * size)).to(torch.uint8)).expand_as(images)


def _smooth(images: Tensor) -> Tensor:
    """Sharpness fades to the mean under the kernel 1 1 1, 1 5 1, 1 1 1 over 13; the border stays as it is."""
    height, width = images.shape[-2:]
    smooth = images.clone()
    if min(height, width) > 2:
        # all pixels in one row, so that sums run over long stretches; what wraps around falls on borders alone
        row = images.flatten().to(torch.int16)
        three = row[:-2] + row[1:-1] + row[2:]
        box = three[: -2 * width] + three[width:-width] + three[2 * width :]
        box = box.add_(row[width + 1 : -width - 1], alpha=4)
        mean = torch.empty_like(smooth)
        mean.view(-1)[width + 1 : -width - 1] = _whole(box.to(torch.float32).mul_(1 / 13).add_(0.5))
        smooth[..., 1:-1, 1:-1] = mean[..., 1:-1, 1:-1]
    return smooth


# What each weakening operation fades to.
WEAKENED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "brightness": _black,
    "colour": _grey,
    "contrast": _mean,
    "sharpness": _smooth,
}


class Family(NamedTuple):
    """Operations that one function applies; the function is described at the head of the module."""

    names: tuple[str, ...]
    apply: Callable[[Tensor, Tensor, Sequence[int]], Tensor]


FAMILIES = (
    Family(("identity",), keep),
    Family(("posterize",), posterize),
    Family(("solarize",), solarize),
    Family(("autocontrast",), autocontrast),
    Family(("equalize",), equalize),
    Family(tuple(WEAKENED), weaken),
    Family(GEOMETRY, warp),
)
# An operation's number is its place here; sorted by number, the images of a family stand together.
OPERATIONS: tuple[str, ...] = tuple(name for family in FAMILIES for name in family.names)


def parameter_rows(operations: NDArray, magnitudes: NDArray, *, size: tuple[int, int]) -> NDArray:
    """Int32[n 6]: what the families need to know of each image.

    Args:
        operations: Int64[n] numbers of operations.
        magnitudes: Float64[n]: bits kept (posterize, its whole number), first value inverted (solarize, 0 to 256), share
            of the image (brightness, colour, contrast, sharpness; 0 to 1); geometry as in `geometry.fixed_point`.
        size: (H, W).
    """
    rows = fixed_point(operations - OPERATIONS.index(GEOMETRY[0]), magnitudes, size=size)
    number = OPERATIONS.index
    first = rows[:, 0]
    blended = (operations >= number("brightness")) & (operations <= number("sharpness"))
    first[blended] = magnitudes[blended].astype(numpy.float32).view(numpy.int32)
    inverted = operations == number("solarize")
    first[inverted] = numpy.ceil(magnitudes[inverted])
    kept = operations == number("posterize")
    first[kept] = 256 - (1 << (8 - numpy.maximum(magnitudes[kept], 1).astype(numpy.int32)))
    return rows


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _luminance(images: Tensor) -> Tensor:
    """UInt8[n 1 H W] in Pillow's integers."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, channel].to(torch.int32) for channel in range(3))
    total = red.mul_(19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(0x8000)
    return total.bitwise_right_shift_(16).to(torch.uint8)[:, None]


def _whole(values: Tensor) -> Tensor:
    """Values 0 to 255 cut to UInt8; by way of int16, which is several times faster on a CPU."""
    return values.to(torch.int16).to(torch.uint8)
