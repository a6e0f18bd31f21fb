"""RandAugment as FixMatch uses it: several draws an image from a pool of operations, each with a random magnitude.

Default   USB's form: 3 draws with replacement, all applied, magnitude uniform in the operation's range.
Grouping  draws are made on the CPU, so that which images get which operation is known without asking the device: for
          each draw the batch is sorted by operation, and every operation works on one slice.
Letters   N images, C channels, H W pixels.
"""

from collections.abc import Mapping

import numpy
import torch
from torch import Tensor

from .operations import FIXMATCH, Range


def randaugment(
    images: Tensor, *, generator: torch.Generator, draws: int = 3, pool: Mapping[str, Range] = FIXMATCH
) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each image through `draws` operations of its own.

    Args:
        images: UInt8[N C H W] with C 1 or 3, on any device.
        generator: of the CPU; two numbers a draw and image.
        draws: operations an image, one after the other.
        pool: name -> operation and range.
    """
    count, device = len(images), images.device
    operations = list(pool.values())
    uniform = torch.rand(2, draws, count, generator=generator, dtype=torch.float64)
    chosen = (uniform[0] * len(operations)).long()
    low = torch.tensor([entry.low for entry in operations], dtype=torch.float64)[chosen]
    high = torch.tensor([entry.high for entry in operations], dtype=torch.float64)[chosen]
    magnitudes = low + (high - low) * uniform[1]
    place = torch.arange(count)  # image that now stands at each row
    for draw in range(draws):
        order = chosen[draw][place].argsort(stable=True)
        place = place[order]
        images = images[order.to(device, non_blocking=True)]
        strength = magnitudes[draw][place].to(device, non_blocking=True)
        sizes = numpy.bincount(chosen[draw].numpy(), minlength=len(operations)).tolist()
        parts, start = [], 0
        for entry, size in zip(operations, sizes, strict=True):
            if size:
                parts.append(entry.operation(images[start : start + size], strength[start : start + size]))
                start += size
        images = torch.cat(parts) if parts else images
    return images[place.argsort().to(device, non_blocking=True)]
