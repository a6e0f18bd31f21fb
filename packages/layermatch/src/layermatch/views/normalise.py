"""From uint8 images to what a network takes: float32, zero mean and unit deviation for each channel.

Letters   N images, C channels, H W pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Normalisation(NamedTuple):
    """Mean and deviation of each channel, on the scale 0 to 255, as plain numbers."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def measure(images: Tensor) -> Normalisation:
    """Mean and deviation of each channel over UInt8[N C H W]; a constant channel gets deviation 1."""
    mean, deviation = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten().to(torch.int32), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64)
        share = counts / counts.sum()
        centre = float((share * values).sum())
        spread = float((share * (values - centre).square()).sum().sqrt())
        mean.append(centre)
        deviation.append(spread if spread > 0 else 1.0)
    return Normalisation(tuple(mean), tuple(deviation))


def normalise(images: Tensor, constants: tuple[Tensor, Tensor], *, channels: int) -> Tensor:
    """Float32[N channels H W] = (images - mean) / deviation; one grey channel is repeated to `channels`.

    Args:
        images: UInt8[N C H W].
        constants: mean and 1 / deviation as Float32[1 C 1 1] on the images' device, from `constants_on`.
        channels: what the network takes, C or, where C is 1, any number.
    """
    mean, factor = constants
    scaled = images.to(torch.float32, copy=True).sub_(mean).mul_(factor)
    return scaled if scaled.shape[1] == channels else scaled.expand(-1, channels, -1, -1)


def constants_on(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation as Float32[1 C 1 1] on the device; made once, so that a step copies nothing."""
    mean = torch.tensor(normalisation.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
    deviation = torch.tensor(normalisation.deviation, dtype=torch.float32, device=device).view(1, -1, 1, 1)
    return mean, 1.0 / deviation
