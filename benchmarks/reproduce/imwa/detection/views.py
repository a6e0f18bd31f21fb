"""Weak and strong views of an image with boxes: the strong one keeps the weak one's geometry, so that boxes hold for both.

Weak      shorter side drawn from some lengths, mirrored with probability 1/2.
Strong    the weak view, then: jitter of brightness, contrast, saturation (0.4) and hue (0.1) with probability 0.8, grey with
          0.2, Gaussian blur with sigma in [0.1, 2] with 0.5, and three erasings filled with random values: probability 0.7,
          0.5, 0.3, share of the area 0.05-0.2, 0.02-0.2, 0.02-0.2, ratio of the sides 0.3-3.3, 0.1-6, 0.05-8.
Source    Unbiased Teacher, arXiv 2102.09480, released configuration; the random values are uniform bytes here.
Letters   n boxes, H W pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

JITTER = (0.4, 0.4, 0.4, 0.1)
ERASINGS = ((0.7, (0.05, 0.2), (0.3, 3.3)), (0.5, (0.02, 0.2), (0.1, 6.0)), (0.3, (0.02, 0.2), (0.05, 8.0)))
TRIES = 10


class View(NamedTuple):
    """`image` UInt8[3 H W] and its `boxes` Float32[n 4]."""

    image: Tensor
    boxes: Tensor


def resized(image: Tensor, boxes: Tensor, *, side: int, longest: int) -> View:
    """The shorter side brought to `side`, unless the longer one would pass `longest`; boxes go along."""
    height, width = image.shape[-2:]
    factor = min(side / min(height, width), longest / max(height, width))
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    return View(F.resize(image, size, antialias=True), boxes * scale)


def weak_view(image: Tensor, boxes: Tensor, *, generator: torch.Generator, sides: Sequence[int], longest: int) -> View:
    """A resized and perhaps mirrored view.

    Args:
        image: UInt8[3 H W].
        boxes: Float32[n 4], left, top, right, bottom.
        generator: of the CPU; two numbers are drawn.
        sides: lengths of the shorter side, one of which is drawn.
        longest: bound of the longer side.
    """
    choice = int(torch.randint(len(sides), (), generator=generator))
    mirror = bool(torch.rand((), generator=generator) < 0.5)
    view = resized(image, boxes, side=sides[choice], longest=longest)
    if not mirror:
        return view
    width = view.image.shape[-1]
    left, top, right, bottom = view.boxes.unbind(1)
    return View(view.image.flip(-1), torch.stack([width - right, top, width - left, bottom], dim=1))


def strong_view(image: Tensor, *, generator: torch.Generator) -> Tensor:
    """UInt8[3 H W]: the weak view's pixels, jittered, perhaps grey, blurred and erased in places."""
    if _draw(generator) < 0.8:
        image = _jittered(image, generator)
    if _draw(generator) < 0.2:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if _draw(generator) < 0.5:
        sigma = _between(generator, 0.1, 2.0)
        image = F.gaussian_blur(image, kernel_size=[1 + 2 * math.ceil(2 * sigma)] * 2, sigma=[sigma, sigma])
    image = image.clone()
    for probability, area, ratio in ERASINGS:
        if _draw(generator) < probability:
            _erase(image, generator, area=area, ratio=ratio)
    return image


def _jittered(image: Tensor, generator: torch.Generator) -> Tensor:
    brightness, contrast, saturation, hue = JITTER
    operations = [
        lambda picture: F.adjust_brightness(picture, _between(generator, 1 - brightness, 1 + brightness)),
        lambda picture: F.adjust_contrast(picture, _between(generator, 1 - contrast, 1 + contrast)),
        lambda picture: F.adjust_saturation(picture, _between(generator, 1 - saturation, 1 + saturation)),
        lambda picture: F.adjust_hue(picture, _between(generator, -hue, hue)),
    ]
    for number in torch.randperm(len(operations), generator=generator).tolist():
        image = operations[number](image)
    return image


def _erase(image: Tensor, generator: torch.Generator, *, area: tuple[float, float], ratio: tuple[float, float]) -> None:
    height, width = image.shape[-2:]
    for _ in range(TRIES):
        pixels = height * width * _between(generator, *area)
        aspect = math.exp(_between(generator, math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < h < height and 0 < w < width:
            top = int(torch.randint(height - h + 1, (), generator=generator))
            left = int(torch.randint(width - w + 1, (), generator=generator))
            noise = torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
            image[:, top : top + h, left : left + w] = noise.to(image.device)
            return


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _between(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * _draw(generator)
