"""FixMatch's fourteen operations on uint8 batches, each image with its own magnitude, equal to Pillow's values.

Each takes UInt8[n C H W] (C 1 or 3) and magnitudes Float64[n] on the same device and gives UInt8[n C H W].

Source    RandAugment's pool in FixMatch, arXiv 2001.07685, table 12, with USB's ranges. Brightness, colour, contrast and
          sharpness only weaken (factors below 1). Geometry: nearest neighbour in Pillow's 16.16 fixed point, black fill.
Letters   n images, C channels, H W pixels.
"""

from collections.abc import Callable
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

from .weak import gather_pixels

Operation = Callable[[Tensor, Tensor], Tensor]


def identity(images: Tensor, magnitudes: Tensor) -> Tensor:
    """The images as they are."""
    return images


def autocontrast(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Stretch each channel so that its smallest value becomes 0 and its largest 255."""
    low, high = (end.double() for end in torch.aminmax(images.flatten(2), dim=2, keepdim=True))
    flat = high <= low
    # a full tensor over another, since torch takes number / tensor by way of the rounded reciprocal
    scale = (torch.full_like(high, 255.0) / (high - low).clamp(min=1)).masked_fill(flat, 1.0)
    offset = (-low * scale).masked_fill(flat, 0.0)
    stretched = (images.flatten(2) * scale + offset).clamp_(0, 255)
    return stretched.to(torch.uint8).view(images.shape)


def equalize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Spread each channel's values so that their histogram becomes flat (Pillow's integer rule)."""
    count, channels = images.shape[:2]
    values = images.reshape(count * channels, -1).long()
    histogram = values.new_zeros(count * channels, 256).scatter_add_(1, values, torch.ones_like(values))
    last = histogram.gather(1, values.amax(1, keepdim=True))
    step = (values.shape[1] - last) // 255
    before = histogram.cumsum(1) - histogram
    table = ((step // 2 + before) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(1, values).to(torch.uint8).view(images.shape)


def solarize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Invert values at or above the magnitude, 0 to 256."""
    return torch.where(images < _each(magnitudes), images, 255 - images)


def posterize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Keep the magnitude's whole number of upper bits, 4 to 8."""
    lost = 8 - magnitudes.clamp(min=1).long()
    keep = (256 - (torch.ones_like(lost) << lost)).to(torch.uint8)
    return images & _each(keep)


def brightness(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Blend with black; 1 is the image, 0 is black."""
    return _blend(torch.zeros_like(images), images, magnitudes)


def colour(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Blend with the grey image; grey images stay as they are."""
    return images if images.shape[1] == 1 else _blend(_grey(images), images, magnitudes)


def contrast(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Blend with the grey image's mean, rounded."""
    total = _grey(images).flatten(1).sum(1, dtype=torch.int64)
    size = images.shape[-2] * images.shape[-1]
    mean = ((2 * total + size) // (2 * size)).to(torch.uint8)
    return _blend(_each(mean), images, magnitudes)


def sharpness(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Blend with the image smoothed by the 3x3 kernel 1 1 1, 1 5 1, 1 1 1 over 13; the border is not smoothed."""
    smooth = images.clone()
    wide = images.to(torch.int32)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    smooth[:, :, 1:-1, 1:-1] = ((2 * box + 13) // 26).to(torch.uint8)
    return _blend(smooth, images, magnitudes)


def rotate(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre by the magnitude in degrees."""
    angle = -magnitudes * (pi / 180.0)
    cosine, sine = angle.cos(), angle.sin()
    x, y = images.shape[-1] / 2.0, images.shape[-2] / 2.0
    right = x - cosine * x - sine * y
    down = y + sine * x - cosine * y
    return _affine(images, torch.stack([cosine, sine, right, -sine, cosine, down], dim=1))


def shear_x(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Take each row from the magnitude times its number further right."""
    return _affine(images, _coefficients(magnitudes, 1, magnitudes))


def shear_y(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Take each column from the magnitude times its number further down."""
    return _affine(images, _coefficients(magnitudes, 3, magnitudes))


def translate_x(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Take each pixel from the magnitude times W further right."""
    return _affine(images, _coefficients(magnitudes, 2, (magnitudes * images.shape[-1] + 0.5).floor()))


def translate_y(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Take each pixel from the magnitude times H further down."""
    return _affine(images, _coefficients(magnitudes, 5, (magnitudes * images.shape[-2] + 0.5).floor()))


class Range(NamedTuple):
    """An operation and the range that its magnitude is drawn from, uniformly."""

    operation: Operation
    low: float
    high: float


FIXMATCH: dict[str, Range] = {
    "autocontrast": Range(autocontrast, 0.0, 0.0),
    "brightness": Range(brightness, 0.05, 0.95),
    "colour": Range(colour, 0.05, 0.95),
    "contrast": Range(contrast, 0.05, 0.95),
    "equalize": Range(equalize, 0.0, 0.0),
    "identity": Range(identity, 0.0, 0.0),
    "posterize": Range(posterize, 4.0, 8.0),
    "rotate": Range(rotate, -30.0, 30.0),
    "sharpness": Range(sharpness, 0.05, 0.95),
    "shear_x": Range(shear_x, -0.3, 0.3),
    "shear_y": Range(shear_y, -0.3, 0.3),
    "solarize": Range(solarize, 0.0, 256.0),
    "translate_x": Range(translate_x, -0.3, 0.3),
    "translate_y": Range(translate_y, -0.3, 0.3),
}


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    """Luminance UInt8[n 1 H W] in Pillow's integers."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def _blend(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Start + share (end - start) in single precision, cut to an integer, as Pillow's blend between 0 and 1."""
    first = start.to(torch.float32)
    return (first + _each(share.to(torch.float32)) * (end.to(torch.float32) - first)).to(torch.uint8)


def _coefficients(like: Tensor, place: int, values: Tensor) -> Tensor:
    """Float64[n 6] of the identity x' = 1 x + 0 y + 0, y' = 0 x + 1 y + 0, with one column replaced."""
    table = torch.zeros(len(like), 6, dtype=torch.float64, device=like.device)
    table[:, 0] = 1.0
    table[:, 4] = 1.0
    table[:, place] = values
    return table


def _affine(images: Tensor, table: Tensor) -> Tensor:
    """Pixel (x, y) from (a x + b y + c, d x + e y + f) at its centre, nearest neighbour, black outside."""
    height, width = images.shape[-2:]
    a, b, c, d, e, f = table.unbind(1)
    starts = torch.stack([a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e], dim=1)
    a, b, c, d, e, f = ((starts * 65536.0 + 0.5).floor().long()[:, :, None, None]).unbind(1)
    y = torch.arange(height, device=images.device)[None, :, None]
    x = torch.arange(width, device=images.device)[None, None, :]
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    places = from_y.clamp_(0, height - 1) * width + from_x.clamp_(0, width - 1)
    return gather_pixels(images, places) * inside[:, None]
