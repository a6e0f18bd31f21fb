"""From a step to the images of a replica's batch, augmented and normalised.

Order     the replica's epochs follow each other without a gap, each a permutation from
          stream(seed, "replica order", replica, epoch); the batch of step t is places t·B to t·B + B - 1 of that stream.
          A pure function of (seed, replica, step): all batches are full, and nothing needs saving.
Augment   shift by up to s pixels (zeros come in), mirror with probability 1/2: draws from the replica's own generator.
Letters   B batch, N training images, C channels, H W pixels.
"""

import torch
from torch import Tensor

from scarce_common_utils.streams import stream


class Order:
    """Places of a replica's batches in the training set.

    Args:
        count: N.
        batch_size: B.
        seed: the run's.
    """

    def __init__(self, count: int, *, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._known: dict[tuple[int, int], Tensor] = {}

    def __call__(self, step: int, *, replica: int) -> Tensor:
        """Int64[B] on the CPU for a global step."""
        begin = step * self._batch_size
        end, parts = begin + self._batch_size, []
        while begin < end:
            epoch, place = divmod(begin, self._count)
            parts.append(self._epoch(replica, epoch)[place : place + end - begin])
            begin += len(parts[-1])
        return torch.cat(parts)

    def _epoch(self, replica: int, epoch: int) -> Tensor:
        key = (replica, epoch)
        if key not in self._known:
            if len(self._known) >= 2:  # this epoch and the one before it
                self._known.pop(next(iter(self._known)))
            generator = stream(self._seed, "replica order", replica, epoch)
            self._known[key] = torch.randperm(self._count, generator=generator)
        return self._known[key]


def augmented(images: Tensor, *, generator: torch.Generator, shift: int, mirror: bool) -> Tensor:
    """Each image shifted and mirrored for itself.

    Args:
        images: UInt8[B C H W], any device.
        generator: of the CPU; the number of draws depends on B alone.
        shift: largest shift s in pixels; 0 leaves the place.
        mirror: mirror half of them.

    Returns:
        UInt8[B C H W] on the same device.
    """
    count, _, height, width = images.shape
    device = images.device
    draws = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    rows = (draws[0][:, None] + torch.arange(height)).to(device)
    columns = draws[1][:, None] + torch.arange(width)
    if mirror:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (shift, shift, shift, shift))
    which = torch.arange(count, device=device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns.to(device)[:, None, :]].permute(0, 3, 1, 2)


def normalised(images: Tensor, constants: tuple[Tensor, Tensor], *, channels: int) -> Tensor:
    """Float32[B C H W]: (x - mean) / deviation a channel; grey is repeated where the network takes `channels` 3."""
    mean, deviation = constants
    pixels = (images.float() - mean) / deviation
    return pixels.expand(-1, channels, -1, -1) if pixels.shape[1] == 1 else pixels


def pixel_constants(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation a channel over the training images, Float32[1 C 1 1] each; a constant channel has deviation 1."""
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for part in images.split(1024):
        pixels = part.double()
        sums += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))])
    mean, square = sums / (images.numel() / images.shape[1])
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return mean.float().view(1, -1, 1, 1), deviation.float().view(1, -1, 1, 1)
