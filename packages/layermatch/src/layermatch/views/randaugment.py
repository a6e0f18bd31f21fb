"""RandAugment as FixMatch's followers use it: several draws an image from a pool of operations, each with its magnitude.

What is drawn (`augment_draws`, on the CPU, a pure function of the generator) stands apart from its application
(`augmented`, on the images' device). For each draw the batch is sorted by operation, so that every family of operations
works on one slice; which images these are is known without asking the device.

Forms     "usb", "torchssl": 3 draws with replacement, all applied, magnitude uniform in the operation's range.
          "fixmatch-pytorch": 2 draws, each applied with probability 0.5, level 1 to 9 of 10, random sign in geometry.
Letters   N images, C channels, H W pixels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from .operations import FAMILIES, OPERATIONS, parameter_rows

# Ranges of the magnitudes; degrees, slopes and shares of the side in geometry. Brightness and its like only weaken.
RANGES: Mapping[str, tuple[float, float]] = {
    "autocontrast": (0.0, 0.0),
    "brightness": (0.05, 0.95),
    "colour": (0.05, 0.95),
    "contrast": (0.05, 0.95),
    "equalize": (0.0, 0.0),
    "identity": (0.0, 0.0),
    "posterize": (4.0, 8.0),
    "rotate": (-30.0, 30.0),
    "sharpness": (0.05, 0.95),
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "solarize": (0.0, 256.0),
    "translate_x": (-0.3, 0.3),
    "translate_y": (-0.3, 0.3),
}
POOL = tuple(RANGES)


def _level(name: str, level: int) -> float:
    """Magnitude of a level of 10, as FixMatch-pytorch computes it."""
    if name in ("brightness", "colour", "contrast", "sharpness"):
        return level * 0.9 / 10 + 0.05
    if name in ("shear_x", "shear_y", "translate_x", "translate_y"):
        return level * 0.3 / 10
    whole = {
        "posterize": 4 + int(level * 4 / 10),
        "rotate": int(level * 30 / 10),
        "solarize": 256 - int(level * 256 / 10),
    }
    return float(whole.get(name, 0))


def _levels(name: str) -> tuple[float, ...]:
    """Eighteen magnitudes, each as likely: levels 1 to 9, twice, in geometry with either sign."""
    once = tuple(_level(name, level) for level in range(1, 10))
    signed = name == "rotate" or name.startswith(("shear", "translate"))
    return once + (tuple(-magnitude for magnitude in once) if signed else once)


LEVELS: Mapping[str, tuple[float, ...]] = {name: _levels(name) for name in POOL}


class AugmentForm(NamedTuple):
    """How RandAugment draws.

    `draws` operations an image, with replacement, out of the names `pool`; each applied with `probability`; magnitudes
    from `RANGES`, or, where `by_level`, from `LEVELS`, translations then cut to whole pixels instead of rounded.
    """

    draws: int = 3
    probability: float = 1.0
    by_level: bool = False
    pool: tuple[str, ...] = POOL


USB = AugmentForm()
FIXMATCH_PYTORCH = AugmentForm(draws=2, probability=0.5, by_level=True)


class AugmentDraws(NamedTuple):
    """One column an image, on the CPU.

    `operations` Int64[draws N] are places in `operations.OPERATIONS`; `magnitudes` Float64[draws N] stand in the units
    of `operations.parameter_rows`, translations in whole pixels.
    """

    operations: Tensor
    magnitudes: Tensor


def augment_draws(
    count: int, *, generator: torch.Generator, size: tuple[int, int], form: AugmentForm = USB
) -> AugmentDraws:
    """Draw for `count` images of `size` (H, W), two numbers a draw and image, three where the probability is below 1.

    Raises:
        ValueError: the pool is empty or holds an unknown name, or draws or probability are out of range.
    """
    _check(form)
    certain = form.probability >= 1.0
    shape = (2 if certain else 3, form.draws, count)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
    place = (uniform[0] * len(form.pool)).astype(numpy.int64)
    if form.by_level:
        levels = numpy.array([LEVELS[name] for name in form.pool])
        magnitudes = levels[place, (uniform[1] * levels.shape[1]).astype(numpy.int64)]
    else:
        low, high = (numpy.array([RANGES[name][end] for name in form.pool]) for end in (0, 1))
        magnitudes = low[place] + (high - low)[place] * uniform[1]
    operations = numpy.array([OPERATIONS.index(name) for name in form.pool])[place]
    for name, side in (("translate_x", size[1]), ("translate_y", size[0])):
        moved = operations == OPERATIONS.index(name)
        pixels = magnitudes[moved] * side
        magnitudes[moved] = numpy.trunc(pixels) if form.by_level else numpy.floor(pixels + 0.5)
    if not certain:
        operations[uniform[2] >= form.probability] = OPERATIONS.index("identity")
    return AugmentDraws(torch.from_numpy(operations), torch.from_numpy(magnitudes))


def augmented(images: Tensor, draws: AugmentDraws) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each image through its own operations, one after the other."""
    if not len(images) or not len(draws.operations):
        return images
    rounds, sizes = _plan(draws, size=(images.shape[-2], images.shape[-1]))
    rounds = rounds.to(images.device, non_blocking=True)
    for columns, counts in zip(rounds, sizes, strict=False):
        images = images.index_select(0, columns[:, 6])
        totals = [sum(own) for own in counts]
        parts = zip(FAMILIES, images.split(totals), columns[:, :6].split(totals), counts, strict=True)
        images = torch.cat([family.apply(some, rows, own) for family, some, rows, own in parts if len(some)])
    return images.index_select(0, rounds[-1, :, 6])


def _plan(draws: AugmentDraws, *, size: tuple[int, int]) -> tuple[Tensor, list[list[list[int]]]]:
    """Int32[draws+1 N 7]: parameter rows in sorted order and, last, the row of the round before that each is.

    The last round has its order alone, back to the images' own. Besides, for each draw and family, the number of images
    of each of its operations.
    """
    operations, magnitudes = draws.operations.numpy(), draws.magnitudes.numpy()
    count = operations.shape[1]
    rounds = numpy.zeros((len(operations) + 1, count, 7), dtype=numpy.int32)
    orders = operations.argsort(axis=1, kind="stable")
    place = numpy.arange(count)  # row that each image stands at
    for number, order in enumerate(orders):
        rounds[number, :, 6] = place[order]
        place[order] = numpy.arange(count)
    rounds[-1, :, 6] = place
    chosen = numpy.take_along_axis(operations, orders, axis=1)
    strength = numpy.take_along_axis(magnitudes, orders, axis=1)
    rounds[:-1, :, :6] = parameter_rows(chosen.ravel(), strength.ravel(), size=size).reshape(*chosen.shape, 6)
    ends = numpy.cumsum([len(family.names) for family in FAMILIES])[:-1]
    counts = [numpy.split(numpy.bincount(row, minlength=len(OPERATIONS)), ends) for row in operations]
    return torch.from_numpy(rounds), [[own.tolist() for own in families] for families in counts]


def _check(form: AugmentForm) -> None:
    unknown = [name for name in form.pool if name not in RANGES]
    if unknown or not form.pool:
        raise ValueError(f"The pool holds {unknown or 'nothing'}. Choose operations from {', '.join(RANGES)}.")
    if form.draws < 0 or not 0.0 <= form.probability <= 1.0:
        raise ValueError(
            f"draws is {form.draws} and probability {form.probability}; at least 0 and a number from 0 to 1 are needed."
        )
