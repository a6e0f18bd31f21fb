"""Strong views as USB and FixMatch-pytorch make them, one Pillow image after the other: peers of the bench.

Neither project is a dependency here. The operations, ranges and order below are written from their published definitions
(USB `semilearn/datasets/augmentation/randaugment.py`; FixMatch-pytorch `dataset/randaugment.py`); crop, mirroring,
conversion and normalisation are torchvision's, as in both.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

Operation = Callable[[Image.Image, float], Image.Image]
View = Callable[[Image.Image], Any]

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def _moved(image: Image.Image, numbers: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers)


# Name -> operation, USB's range, FixMatch-pytorch's largest magnitude and offset, whether that has a sign.
POOL: tuple[tuple[Operation, tuple[float, float], tuple[float, float], bool], ...] = (
    (lambda image, v: ImageOps.autocontrast(image), (0, 1), (0, 0), False),
    (lambda image, v: ImageEnhance.Brightness(image).enhance(v), (0.05, 0.95), (0.9, 0.05), False),
    (lambda image, v: ImageEnhance.Color(image).enhance(v), (0.05, 0.95), (0.9, 0.05), False),
    (lambda image, v: ImageEnhance.Contrast(image).enhance(v), (0.05, 0.95), (0.9, 0.05), False),
    (lambda image, v: ImageOps.equalize(image), (0, 1), (0, 0), False),
    (lambda image, v: image, (0, 1), (0, 0), False),
    (lambda image, v: ImageOps.posterize(image, max(1, int(v))), (4, 8), (4, 4), False),
    (lambda image, v: image.rotate(v), (-30, 30), (30, 0), True),
    (lambda image, v: ImageEnhance.Sharpness(image).enhance(v), (0.05, 0.95), (0.9, 0.05), False),
    (lambda image, v: _moved(image, (1, v, 0, 0, 1, 0)), (-0.3, 0.3), (0.3, 0), True),
    (lambda image, v: _moved(image, (1, 0, 0, v, 1, 0)), (-0.3, 0.3), (0.3, 0), True),
    (lambda image, v: ImageOps.solarize(image, int(v)), (0, 256), (-256, 256), False),
    (lambda image, v: _moved(image, (1, 0, v * image.size[0], 0, 1, 0)), (-0.3, 0.3), (0.3, 0), True),
    (lambda image, v: _moved(image, (1, 0, 0, 0, 1, v * image.size[1])), (-0.3, 0.3), (0.3, 0), True),
)


def _cutout(image: Image.Image, side: float, fill: tuple[int, int, int]) -> Image.Image:
    width, height = image.size
    left = int(max(0, numpy.random.uniform(0, width) - side / 2))  # noqa: NPY002 (as both projects draw)
    top = int(max(0, numpy.random.uniform(0, height) - side / 2))  # noqa: NPY002 (the same)
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, min(width, left + side), min(height, top + side)), fill)
    return image


def usb_randaugment(image: Image.Image) -> Image.Image:
    """Three operations with replacement, always, magnitude uniform in the range; Cutout of up to half the side."""
    for operation, (low, high), _, _ in random.choices(POOL, k=3):
        image = operation(image, low + (high - low) * random.random())
    share = random.random() * 0.5
    return _cutout(image, share * image.size[0], (125, 123, 114))


def fixmatch_pytorch_randaugment(image: Image.Image) -> Image.Image:
    """Two operations with replacement, each with probability 0.5, level 1 to 9 of 10; Cutout of 16."""
    for operation, _, (largest, offset), signed in random.choices(POOL, k=2):
        level = int(numpy.random.randint(1, 10))  # noqa: NPY002 (as it draws)
        if random.random() < 0.5:
            magnitude = level * largest / 10 + offset
            image = operation(image, -magnitude if signed and random.random() < 0.5 else magnitude)
    return _cutout(image, 16, (127, 127, 127))


def pillow_views(images: numpy.ndarray, *, randaugment: View) -> tuple[Tensor, Tensor]:
    """Weak and strong views of uint8 (N, 32, 32, 3), Float32[N 3 32 32] each, by a loop over Pillow images."""
    from torchvision import transforms

    weak = [
        transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(),
    ]
    ends = [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    return _loop(images, transforms.Compose([*weak, *ends]), transforms.Compose([*weak, randaugment, *ends]))


def torchvision_views(images: numpy.ndarray) -> tuple[Tensor, Tensor]:
    """The same by torchvision v2 on Pillow images, its own RandAugment(3) and RandomErasing for the strong view."""
    from torchvision.transforms import v2

    weak = [v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()]
    ends = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    return _loop(
        images, v2.Compose([*weak, *ends]), v2.Compose([*weak, v2.RandAugment(3), *ends, v2.RandomErasing(p=1.0)])
    )


def _loop(images: numpy.ndarray, weak: View, strong: View) -> tuple[Tensor, Tensor]:
    pictures = [Image.fromarray(image) for image in images]
    return torch.stack([weak(picture) for picture in pictures]), torch.stack([strong(picture) for picture in pictures])
