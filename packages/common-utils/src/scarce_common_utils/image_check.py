"""What is in a data set of images, for `check DATA`: sizes, files that cannot be read, images that repeat one another.

Images are decoded evenly over the whole set until all were seen or `SECONDS` are over; of a set that was seen in part, sizes,
unreadable files and repeats are those of the part. Two images repeat one another where their pixels, decoded and upright, are the
same bytes (a grey image stored in colour counts as grey). Classes and counts are those of the whole set. Nothing is written.

Letters   N images, C channels, H W pixels, K classes.
"""

import hashlib
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from scarce_common_utils.image_decoding import IMAGES_AT_ONCE, attempt_all, decode, fit, spread_out, usable_cores
from scarce_common_utils.image_reading import (
    BAD_IMAGES_SHOWN,
    SIDE_WHERE_SIZES_DIFFER,
    belongs_in_memory,
    refuse_bad,
)
from scarce_common_utils.image_sets import ImageSet, StoredImages, first_line, item_name
from scarce_common_utils.image_sources import RawSet
from scarce_common_utils.images import divide, is_mirrored, read_parts
from scarce_common_utils.options import ImageDataOptions

SECONDS = 10.0  # of looking at images
SECONDS_FOR_SOME = 2.0  # of decoding those that a few steps are measured on
SOME = 256  # of these, at most, unless a batch needs more
RUN = 32  # images side by side
FIRST = 32  # images in the first turn; turns grow while they take less than this
LEAST_SECONDS = 0.5
EXAMPLES = 5  # of repeats that are named


class Seen(NamedTuple):
    """One image: its upright size, whether it has one channel, and a digest of its pixels."""

    height: int
    width: int
    grey: bool
    digest: bytes


class Repeat(NamedTuple):
    """An `image` whose pixels are those of an earlier `other`; each as (part, name), and whether their labels differ."""

    image: tuple[str, str]
    other: tuple[str, str]
    labels_differ: bool


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What is in a data set.

    Attributes:
        training, test: the parts as `train` makes them, without the images that cannot be read; decoded when asked for.
        held_out: whether the test part was held out of the one part that the data have.
        in_memory: whether `train` would decode all of them at its start.
        sizes: (H, W) -> images seen.
        unreadable: a sentence for each image seen that cannot be read.
        repeats: images seen that repeat an earlier one, of training and test.
        seen: how many images were looked at, of `count`.
        seconds: to decode one image, on all cores together.
    """

    training: StoredImages
    test: StoredImages
    held_out: bool
    in_memory: bool
    sizes: Counter[tuple[int, int]]
    unreadable: list[str]
    repeats: list[Repeat]
    seen: int
    count: int
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes of all images in memory at once."""
        channels, height, width = self.training.shape
        return (len(self.training) + len(self.test)) * channels * height * width


def look_at_images(options: ImageDataOptions, *, seed: int, unlabelled: bool, in_memory: bool | None) -> Looked:
    """Look into the data that the options name.

    Args:
        options: of the data.
        seed: of what is held out.
        unlabelled: see `ImageDataOptions.selection`.
        in_memory: as the option; None is the choice of `train`.

    Raises:
        UserError: as `open_images`, but images that cannot be read are refused only where no other is there.
    """
    selection = options.selection(unlabelled=unlabelled)
    parts = read_parts(options.data, download=options.download, data_folder=options.data_folder, selection=selection)
    began = time.monotonic()
    total = sum(len(part.items) for part in parts)
    found = [examine(part, seconds=SECONDS * len(part.items) / total) for part in parts]
    seconds = time.monotonic() - began
    bad = [{index: one for index, one in some.items() if isinstance(one, Exception)} for some in found]
    good = [{index: one for index, one in some.items() if isinstance(one, Seen)} for some in found]
    if not all(good):
        refuse_bad(parts, bad)
    shape = _shape([one for some in good for one in some.values()], side=options.image_size)
    mirrored = is_mirrored(options.data or "")
    stored = [_stored(part, errors, shape, mirrored=mirrored) for part, errors in zip(parts, bad, strict=True)]
    training, test = divide(stored, test_share=options.test_share, seed=seed)
    seen = sum(map(len, found))
    return Looked(
        training=training,
        test=test,
        held_out=len(parts) == 1,
        in_memory=belongs_in_memory(parts, shape) if in_memory is None else in_memory,
        sizes=Counter((one.height, one.width) for some in good for one in some.values()),
        unreadable=[
            f"{item_name(part.items[index], _name(part, index), place=part.place)} ({first_line(errors[index])})"
            for part, errors in zip(parts, bad, strict=True)
            for index in sorted(errors)
        ],
        repeats=_repeats({"training": (training, good[0]), "test": (test, good[-1])}),
        seen=seen,
        count=total,
        seconds=seconds / max(seen, 1),
    )


def examine(part: RawSet, *, seconds: float) -> dict[int, Seen | Exception]:
    """What is seen of a part's images, or the exception that each raised, by number; as many as the seconds allow."""
    # In short runs side by side, since files of many images are read in pieces.
    runs = -(-len(part.items) // RUN)
    order = [index for run in spread_out(runs) for index in range(run * RUN, min((run + 1) * RUN, len(part.items)))]
    end = time.monotonic() + seconds
    found: dict[int, Seen | Exception] = {}
    at_once = FIRST
    while len(found) < len(order) and (not found or time.monotonic() < end):
        before = time.monotonic()
        found |= attempt_all(part.items, _seen, indices=order[len(found) : len(found) + at_once])
        if time.monotonic() - before < LEAST_SECONDS:
            at_once = min(2 * at_once, IMAGES_AT_ONCE)
    return found


def some_in_memory(images: StoredImages, looked: Looked, *, least: int, wanted: Tensor) -> ImageSet:
    """A few of the images, decoded, to measure on: those `wanted`, and others spread evenly over all; without bad ones.

    Args:
        images: one of the two parts.
        looked: where it comes from.
        least: how many there are to be at least, as far as there are as many.
        wanted: Int64, places that must be among them.
    """
    affordable = int(SECONDS_FOR_SOME / max(looked.seconds * usable_cores(), 1e-9))
    count = min(len(images), max(least, min(SOME, affordable)))
    spread = torch.arange(count) * len(images) // max(count, 1)
    some = images.take(torch.cat([wanted, spread]).unique())
    pixels = dict(attempt_all(some.items, partial(_fitted, shape=images.shape), indices=some.numbers.tolist()))
    # Of a set that was seen in part a bad one may turn up here only.
    good = [place for place, number in enumerate(some.numbers.tolist()) if isinstance(pixels[number], Tensor)]
    some = some.take(torch.tensor(good, dtype=torch.int64))
    stacked = torch.stack([torch.as_tensor(pixels[number]) for number in some.numbers.tolist()])
    return ImageSet(stacked, some.labels, some.class_names, some.place, some.mirrored, some.names)


def first_of_each(labels: Tensor, places: Tensor) -> Tensor:
    """Int64: of `places` the first of each label, -1 among the labels too where it is there."""
    found: dict[int, int] = {}
    for place in places.tolist():
        found.setdefault(int(labels[place]), place)
    return torch.tensor(sorted(found.values()), dtype=torch.int64)


def look_in_words(looked: Looked, *, data: str) -> list[str]:
    """Lines that say what is in the data, without its classes."""
    channels, height, width = looked.training.shape
    kind = "grey" if channels == 1 else "colour"
    part = "held out of them for the test" if looked.held_out else "of them the test part"
    lines = [f"{data}: {looked.count:,} images, {kind}; {len(looked.test):,} {part}"]
    if looked.seen < looked.count:
        told = f"looked at {looked.seen:,} of them, spread evenly; what follows on files and pixels is of these alone"
        lines.append(filled(told))
    common = ", ".join(f"{w}x{h} ({count:,})" for (h, w), count in looked.sizes.most_common(5))
    more = len(looked.sizes) - 5
    lines.append(f"sizes: {common}" + (f" and {more} more" if more > 0 else ""))
    if looked.sizes.keys() != {(height, width)}:
        told = f"trained at {width}x{height}: the shorter side is resized, the centre cropped out (--image-size)"
        lines.append(filled(told))
    return lines


def faults_in_words(looked: Looked) -> list[str]:
    """Lines on files that cannot be read and images that repeat others; the first ones named."""
    lines = [f"unreadable: {len(looked.unreadable):,}" if looked.unreadable else "unreadable: none"]
    lines += _listed(looked.unreadable, most=BAD_IMAGES_SHOWN)
    kinds = repeats_by_kind(looked)
    counted = ", ".join(f"{len(some):,} {kind}" for kind, some in kinds.items()) or "none"
    lines.append(filled(f"repeats by pixels: {counted}"))
    for kind, some in kinds.items():
        lines += _listed([_pair(repeat) for repeat in some], most=EXAMPLES, head=f"{kind}:")
    return lines


def repeats_by_kind(looked: Looked) -> dict[str, list[Repeat]]:
    """Repeats inside training, inside test, across them, and those of another label; empty kinds are left out."""
    kinds: dict[str, list[Repeat]] = {}
    for repeat in looked.repeats:
        parts = {repeat.image[0], repeat.other[0]}
        kind = f"within {parts.pop()}" if len(parts) == 1 else "of test in training too"
        kinds.setdefault(kind, []).append(repeat)
        if repeat.labels_differ:
            kinds.setdefault("with another label", []).append(repeat)
    return kinds


MOST_CLASSES = 20  # of a table: of more the first and the last by training images


def class_rows(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> list[list[str | int]]:
    """Rows of the class table, of more than `MOST_CLASSES` those with the most and the fewest training images.

    Args:
        counts: column -> a number for each class; the first column is that of the training images.
        class_names: K names.
    """
    first = next(iter(counts.values()))
    rows: list[list[str | int]] = [
        [name, *(column[number] for column in counts.values())] for number, name in enumerate(class_names)
    ]
    if len(rows) <= MOST_CLASSES:
        return rows
    ranked = sorted(range(len(rows)), key=lambda number: (-first[number], number))
    half = MOST_CLASSES // 2
    between: list[str | int] = [f"({len(rows) - 2 * half:,} others)", *("" for _ in counts)]
    return [*(rows[number] for number in ranked[:half]), between, *(rows[number] for number in ranked[-half:])]


def advice(looked: Looked, *, skip: bool, few: int) -> list[str]:
    """Sentences on what to mend before a run.

    Args:
        looked: the data.
        skip: whether unreadable images would be left out by an option that was given.
        few: test images below which chance moves the accuracy much.
    """
    told: list[str] = []
    if looked.unreadable and not skip:
        told.append("images that cannot be read stop `train` before its first step: mend them, or take them away")
    kinds = repeats_by_kind(looked)
    if across := kinds.get("of test in training too"):
        told.append(
            f"{len(across):,} test images stand in the training part too, so that the accuracy is too high: take them out of one part"
        )
    if different := kinds.get("with another label"):
        told.append(
            f"{len(different):,} images have the pixels of another class's image: one of the two labels is wrong"
        )
    if len(looked.test) < few:
        told.append(
            f"the test part holds {len(looked.test):,} images: chance moves the accuracy by up to "
            f"{196 * (0.25 / max(len(looked.test), 1)) ** 0.5:.0f} points to either side"
        )
    return told


def advice_in_words(told: Sequence[str]) -> str:
    """The sentences one below the other, at most 80 columns."""
    return "\n".join(filled(f"* {sentence}.") for sentence in told)


def filled(text: str) -> str:
    """Lines of at most 80 columns; names stay whole."""
    return textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def look_as_json(looked: Looked) -> dict[str, Any]:
    """The same as JSON values."""
    channels, height, width = looked.training.shape
    return {
        "images": looked.count,
        "looked_at": looked.seen,
        "training": len(looked.training),
        "test": len(looked.test),
        "held_out": looked.held_out,
        "sizes": {f"{w}x{h}": count for (h, w), count in looked.sizes.most_common()},
        "trained_at": {"channels": channels, "height": height, "width": width},
        "unreadable": looked.unreadable,
        "repeats": {
            kind: [{"image": "/".join(one.image), "other": "/".join(one.other)} for one in some]
            for kind, some in repeats_by_kind(looked).items()
        },
        "in_memory": looked.in_memory,
        "bytes_of_images": looked.memory,
    }


def _fitted(item: Any, *, shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(fit(decode(item), shape=shape))


def _seen(item: Any) -> Seen:
    array = decode(item)
    grey = array.ndim == 2
    if not grey and bool((array == array[:, :, :1]).all()):
        array = array[:, :, 0]
    pixels = numpy.ascontiguousarray(array)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    return Seen(pixels.shape[0], pixels.shape[1], grey, digest.digest())


def _shape(seen: Sequence[Seen], *, side: int | None) -> tuple[int, int, int]:
    """C, H, W as `image_reading.read_headers` chooses them."""
    sizes = {(one.height, one.width) for one in seen} if side is None else {(side, side)}
    height, width = sizes.pop() if len(sizes) == 1 else (SIDE_WHERE_SIZES_DIFFER, SIDE_WHERE_SIZES_DIFFER)
    return 1 if all(one.grey for one in seen) else 3, height, width


def _stored(part: RawSet, bad: dict[int, Exception], shape: tuple[int, int, int], *, mirrored: bool) -> StoredImages:
    """The images of a part that were not seen to be unreadable."""
    kept = torch.tensor([index for index in range(len(part.items)) if index not in bad], dtype=torch.int64)
    labels = torch.tensor(part.labels, dtype=torch.int64)
    names = tuple(_name(part, index) for index in range(len(part.items)))
    whole = torch.arange(len(part.items))
    return StoredImages(part.items, whole, shape, labels, part.class_names, part.place, mirrored, names).take(kept)


def _repeats(parts: dict[str, tuple[StoredImages, dict[int, Seen]]]) -> list[Repeat]:
    """Training first, so that an image in both is told of the test part."""
    first: dict[bytes, tuple[str, str, int]] = {}
    found: list[Repeat] = []
    for part, (images, seen) in parts.items():
        for number, label, name in zip(images.numbers.tolist(), images.labels.tolist(), images.names, strict=True):
            one = seen.get(number)
            if one is None:
                continue
            earlier = first.setdefault(one.digest, (part, name, label))
            if earlier[:2] != (part, name):
                differ = -1 not in (label, earlier[2]) and label != earlier[2]
                found.append(Repeat((part, name), (earlier[0], earlier[1]), differ))
    return found


def _name(part: RawSet, index: int) -> str:
    return part.names[index] if part.names else str(index)


def _pair(repeat: Repeat) -> str:
    return f"{repeat.image[1]} ({repeat.image[0]}) is {repeat.other[1]} ({repeat.other[0]})"


def _listed(texts: Sequence[str], *, most: int, head: str = "") -> list[str]:
    lines = [f"  {head}"] if head and texts else []
    lines += [f"  {'  ' if head else ''}{text}" for text in texts[:most]]
    return lines + ([f"  and {len(texts) - most:,} more"] if len(texts) > most else [])
