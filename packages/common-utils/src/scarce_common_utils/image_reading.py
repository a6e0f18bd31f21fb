"""From what sources give to sets of images of one shape; images that cannot be read are listed first, all at once.

Letters   N images, C channels, H W pixels.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_decoding import Header, attempt_all, decode, fit, read_header, read_through, spread_out
from scarce_common_utils.image_sets import ImageSet, StoredImages, first_line, item_name
from scarce_common_utils.image_sources import RawSet

SIDE_WHERE_SIZES_DIFFER = 64
MOST_BYTES = 8 * 2**30  # in memory at all
MEMORY_BUDGET = 4 * 2**30  # in memory where the choice is ours: training and test images together
SECONDS_OF_READING_THROUGH = 60.0
BAD_IMAGES_SHOWN = 20


class Headers(NamedTuple):
    """`shape` C, H, W of all images together; `bad` the exceptions of those that cannot be read, by part and number."""

    shape: tuple[int, int, int]
    bad: list[dict[int, Exception]]


class Unreadable(NamedTuple):
    """An image that was left out since it cannot be read: its `name` in the set, and what a person is told of it."""

    name: str
    sentence: str


def read_headers(parts: Sequence[RawSet], *, image_size: int | None) -> Headers:
    """What is known of the images before they are decoded; one header for all where they lie in one array."""
    known: set[Header] = set()
    bad: list[dict[int, Exception]] = []
    for part in parts:
        if isinstance(part.items, numpy.ndarray):
            known.add(read_header(part.items[0]))
            bad.append({})
            continue
        found = list(attempt_all(part.items, read_header))
        known |= {header for _, header in found if isinstance(header, Header)}
        bad.append({index: header for index, header in found if isinstance(header, Exception)})
    sizes = {(header.height, header.width) for header in known}
    channels = 1 if all(header.grey for header in known) else 3
    if image_size is not None:
        sizes = {(image_size, image_size)}
    height, width = sizes.pop() if len(sizes) == 1 else (SIDE_WHERE_SIZES_DIFFER, SIDE_WHERE_SIZES_DIFFER)
    return Headers((channels, height, width), bad)


def belongs_in_memory(parts: Sequence[RawSet], shape: tuple[int, int, int]) -> bool:
    """Whether the images are arrays already, or take at most `MEMORY_BUDGET` bytes together."""
    return all(isinstance(part.items, numpy.ndarray) for part in parts) or _bytes(parts, shape) <= MEMORY_BUDGET


def bring_into_memory(
    parts: Sequence[RawSet], headers: Headers, *, mirrored: bool, unreadable: list[Unreadable] | None = None
) -> list[ImageSet]:
    """Decode all images.

    Args:
        parts: of the source.
        headers: of the same.
        mirrored: as in `ImageSet`.
        unreadable: a list takes the images that cannot be read, which are left out; None refuses them.

    Raises:
        UserError: they take more than `MOST_BYTES`, or some cannot be read; these are listed.
    """
    shape = headers.shape
    if (size := _bytes(parts, shape)) > MOST_BYTES:
        count = sum(len(part.items) for part in parts)
        raise UserError(
            f"{count} images of {shape[1]}x{shape[2]} take {size / 2**30:.0f} GiB of memory. Choose a smaller --image-size."
        )
    tensors = [_pixels(part, shape=shape, bad=bad) for part, bad in zip(parts, headers.bad, strict=True)]
    kept = refuse_or_leave_out(parts, headers.bad, unreadable)
    found = [
        ImageSet(
            pixels,
            torch.tensor(part.labels, dtype=torch.int64),
            part.class_names,
            part.place,
            mirrored,
            _names(part),
        )
        for part, pixels in zip(parts, tensors, strict=True)
    ]
    return [images if some is None else images.take(some) for images, some in zip(found, kept, strict=True)]


def leave_on_disk(
    parts: Sequence[RawSet], headers: Headers, *, mirrored: bool, unreadable: list[Unreadable] | None = None
) -> list[StoredImages]:
    """Read through as many images as `SECONDS_OF_READING_THROUGH` allow, decode none.

    Args:
        parts: as in `bring_into_memory`.
        headers: as there.
        mirrored: as there.
        unreadable: as there; with a list all images are read through, so that each time the same are left out.

    Raises:
        UserError: some images cannot be read; they are listed.
    """
    for part, bad in zip(parts, headers.bad, strict=True):
        seconds = SECONDS_OF_READING_THROUGH / len(parts) if unreadable is None else None
        order = [index for index in spread_out(len(part.items)) if index not in bad]
        for index, found in attempt_all(part.items, read_through, indices=order, seconds=seconds):
            if isinstance(found, Exception):
                bad[index] = found
    kept = refuse_or_leave_out(parts, headers.bad, unreadable)
    found = [
        StoredImages(
            part.items,
            torch.arange(len(part.items)),
            headers.shape,
            torch.tensor(part.labels, dtype=torch.int64),
            part.class_names,
            part.place,
            mirrored,
            _names(part),
        )
        for part in parts
    ]
    return [images if some is None else images.take(some) for images, some in zip(found, kept, strict=True)]


def refuse_or_leave_out(
    parts: Sequence[RawSet], bad: Sequence[dict[int, Exception]], unreadable: list[Unreadable] | None
) -> list[Tensor | None]:
    """Places Int64[n] of the images of each part that can be read, None for all; the others join `unreadable`.

    Raises:
        UserError: `unreadable` is None and there are some, or none of a part can be read; the first are listed.
    """
    if unreadable is None or any(len(errors) == len(part.items) for part, errors in zip(parts, bad, strict=True)):
        refuse_bad(parts, bad)
        return [None] * len(parts)
    kept: list[Tensor | None] = []
    for part, errors in zip(parts, bad, strict=True):
        names = _names(part)
        unreadable += [Unreadable(names[index], _told(part, index, errors[index])) for index in sorted(errors)]
        some = torch.tensor([index for index in range(len(part.items)) if index not in errors], dtype=torch.int64)
        kept.append(some if errors else None)
    return kept


def refuse_bad(parts: Sequence[RawSet], bad: Sequence[dict[int, Exception]]) -> None:
    """Raise a UserError that counts the images that cannot be read and shows the first, where there are any."""
    count = sum(map(len, bad))
    if not count:
        return
    lines = [
        f"  {_told(part, index, errors[index])}"
        for part, errors in zip(parts, bad, strict=True)
        for index in sorted(errors)[:BAD_IMAGES_SHOWN]
    ]
    shown = lines[:BAD_IMAGES_SHOWN]
    more = [f"  and {count - len(shown)} more"] if count > len(shown) else []
    total, places = sum(len(part.items) for part in parts), " and ".join(part.place for part in parts)
    verb = (
        "cannot be read. Mend it, or take it away:" if count == 1 else "cannot be read. Mend them, or take them away:"
    )
    raise UserError("\n".join([f"{count} of {total} images in {places} {verb}", *shown, *more]))


def _pixels(part: RawSet, *, shape: tuple[int, int, int], bad: dict[int, Exception]) -> Tensor:
    """UInt8[N C H W]; images that cannot be read join `bad`."""
    items = part.items
    if isinstance(items, numpy.ndarray):
        whole = items if items.ndim == 4 else items[:, :, :, None]
        if whole.shape[1:] == (*shape[1:], shape[0]):
            return torch.from_numpy(numpy.ascontiguousarray(whole.transpose(0, 3, 1, 2)))
    pixels = torch.zeros((len(part.items), *shape), dtype=torch.uint8)
    # Each is brought to its size at once, so that no more than a block of whole images is held.
    order = [index for index in range(len(part.items)) if index not in bad]
    for index, array in attempt_all(part.items, partial(_fitted, shape=shape), indices=order):
        if isinstance(array, Exception):
            bad[index] = array
        else:
            pixels[index] = torch.from_numpy(array)
    return pixels


def _fitted(item: object, *, shape: tuple[int, int, int]) -> numpy.ndarray:
    return fit(decode(item), shape=shape)


def _bytes(parts: Sequence[RawSet], shape: tuple[int, int, int]) -> int:
    channels, height, width = shape
    return sum(len(part.items) for part in parts) * channels * height * width


def _told(part: RawSet, index: int, error: Exception) -> str:
    return f"{item_name(part.items[index], _names(part)[index], place=part.place)} ({first_line(error)})"


def _names(part: RawSet) -> tuple[str, ...]:
    return tuple(part.names) if part.names else tuple(map(str, range(len(part.items))))
