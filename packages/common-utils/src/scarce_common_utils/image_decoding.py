"""From an image of a source (path, encoded bytes, PIL image, uint8 array) to uint8 pixels of a fixed size.

What becomes of what, in memory and on disk alike:
    1 bit, grey, grey with alpha        one channel; alpha is left out
    16 bits                             the upper byte
    palette, RGB, RGBA, CMYK, YCbCr     RGB as Pillow converts; alpha and colour profiles are left out, as torchvision does
    floating point, 32-bit integers     refused, since their range is not known
    several frames                      the first
    a rotation noted in EXIF            applied
An image of more pixels than Pillow's own limit is refused, since decoding it can fill the memory. So is a format that is not in
`KINDS`, whatever a file is called: Pillow would give PostScript to Ghostscript, which is a program that runs programs.
Size      the shorter side is brought to the wanted one (Pillow's bilinear with antialiasing), the centre is cropped out.
Letters   N images, C channels, H W pixels.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy

MOST_PIXELS = 89_478_485  # Pillow's Image.MAX_IMAGE_PIXELS: a quarter of a GiB in RGB
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
KINDS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")  # Pillow's names of what is read
IMAGES_AT_ONCE = 1024  # read from a source in one request
ITEMS_A_TASK = 32  # given to a thread at a time: a task a small image costs as much as decoding it
# Degrees and flips that bring an image upright, by the number of EXIF's orientation; names of Pillow's Image.Transpose.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
Found = TypeVar("Found")


class Header(NamedTuple):
    """What is known of an image before it is decoded: its upright size in pixels, and whether it is grey."""

    height: int
    width: int
    grey: bool


def read_header(item: Any) -> Header:
    """Size and kind of an image without decoding it.

    Raises:
        ValueError: it has too many pixels, or pixels of a kind that is not read. Pillow raises what it likes besides.
    """
    if isinstance(item, numpy.ndarray):
        return Header(item.shape[0], item.shape[1], item.ndim == 2 or item.shape[2] == 1)
    with _opened(item) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        return Header(height, width, image.mode in GREY_MODES)


def decode(item: Any) -> numpy.ndarray:
    """UInt8[H W] of a grey image, UInt8[H W 3] of any other (module docstring).

    Raises:
        ValueError: as `read_header`.
    """
    if isinstance(item, numpy.ndarray):
        return item[:, :, 0] if item.ndim == 3 and item.shape[2] == 1 else item
    with _opened(item) as image:
        turn = UPRIGHT.get(_orientation(image))
        if image.mode.startswith("I"):
            values = numpy.asarray(image).astype(numpy.int64)
            if values.min() < 0 or values.max() > 0xFFFF:
                raise ValueError("its pixels are 32-bit integers; save it with 8 or 16 bits")
            array = (values >> 8).astype(numpy.uint8)
        elif image.mode in GREY_MODES:
            array = numpy.asarray(image.convert("L"))
        else:
            # A palette with transparency goes by way of RGBA, or Pillow warns of it.
            by_way = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
            array = numpy.asarray(by_way.convert("RGB"))
    if turn is None:
        return array
    from PIL import Image

    return numpy.asarray(Image.fromarray(array).transpose(Image.Transpose[turn]))


def fit(array: numpy.ndarray, *, shape: tuple[int, int, int]) -> numpy.ndarray:
    """UInt8[C H W] of `shape`: the shorter side resized, the centre cropped out, a grey channel repeated.

    Args:
        array: UInt8[H W] or UInt8[H W 3], as `decode` gives it.
        shape: C (1 only where every image is grey), H, W.
    """
    channels, *side = shape
    if array.shape[:2] != tuple(side):
        from PIL import Image

        height, width = array.shape[:2]
        scale = max(side[0] / height, side[1] / width)
        wide, high = max(round(width * scale), side[1]), max(round(height * scale), side[0])
        resized = numpy.asarray(Image.fromarray(array).resize((wide, high), Image.Resampling.BILINEAR))
        top, left = (high - side[0]) // 2, (wide - side[1]) // 2
        array = resized[top : top + side[0], left : left + side[1]]
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] != channels:
        array = numpy.repeat(array, channels, axis=2)
    return array.transpose(2, 0, 1).copy()


def read_through(item: Any) -> None:
    """Read an encoded image to its end as cheaply as its format allows: PNG's checksums, JPEG at an eighth of its size.

    Raises:
        Exception: whatever Pillow raises for a damaged image.
    """
    if isinstance(item, numpy.ndarray):
        return
    with _opened(item) as image:
        if getattr(image, "format", None) == "PNG":
            image.verify()
            return
        if hasattr(image, "draft"):
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def read_items(items: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    """Several items of a source, in one request where it has one (`read_many`)."""
    many: Callable[[Sequence[int]], list[Any]] | None = getattr(items, "read_many", None)
    return many(indices) if many is not None else [items[index] for index in indices]


def attempt_all(
    items: Sequence[Any],
    function: Callable[[Any], Found],
    *,
    indices: Sequence[int] | None = None,
    seconds: float | None = None,
) -> Iterator[tuple[int, Found | Exception]]:
    """Pairs (index, what `function` made of the item, or the exception that it raised), in threads.

    Args:
        items: of a source.
        function: of one item.
        indices: which items, in that order; None takes all.
        seconds: no further items are taken up after that time; None takes all.
    """

    def attempt(item: Any) -> Found | Exception:
        try:
            return function(item)
        except Exception as error:  # a decoder raises what it likes; every bad image is to be named at once
            return error

    def attempt_some(some: list[Any]) -> list[Found | Exception]:
        return [attempt(item) for item in some]

    chosen = range(len(items)) if indices is None else indices
    end = None if seconds is None else time.monotonic() + seconds
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        for start in range(0, len(chosen), IMAGES_AT_ONCE):
            if end is not None and time.monotonic() > end:
                return
            part = chosen[start : start + IMAGES_AT_ONCE]
            found = read_items(items, part)
            tasks = [found[first : first + ITEMS_A_TASK] for first in range(0, len(found), ITEMS_A_TASK)]
            yield from zip(part, chain.from_iterable(pool.map(attempt_some, tasks)), strict=True)


def spread_out(count: int) -> list[int]:
    """The numbers 0 to count - 1 so that any first part of them lies evenly over all (steps of the golden section)."""
    step = max(1, round(count * 0.6180339887))
    while numpy.gcd(step, max(count, 1)) != 1:
        step += 1
    return [number * step % count for number in range(count)]


def usable_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@contextmanager
def _opened(item: Any) -> Iterator[Any]:
    """The item as a PIL image, opened but not decoded; refused where it has too many pixels or pixels of no known range."""
    from PIL import Image

    if isinstance(item, dict):  # as `datasets` keeps an image that is not decoded
        item = item["bytes"] if item.get("bytes") is not None else item.get("path")
    if item is None:
        raise ValueError("there is no image")
    owned = isinstance(item, str | Path | bytes)
    if isinstance(item, str | Path) and os.path.exists(item) and not os.path.isfile(item):
        raise ValueError("it is a device, a pipe or a folder, and no file")  # to open it may never end
    try:
        image = Image.open(BytesIO(item) if isinstance(item, bytes) else item, formats=_kinds()) if owned else item
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {MOST_PIXELS // 10**6} million pixels; make it smaller") from error
    try:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it is {image.width}x{image.height}, more than {MOST_PIXELS // 10**6} million pixels; make it smaller"
            )
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
        yield image
    finally:
        if owned:
            image.close()


@functools.cache
def _kinds() -> list[str]:
    """Those of `KINDS` that the Pillow at hand reads."""
    from PIL import Image

    Image.init()
    return [kind for kind in KINDS if kind in Image.OPEN]


def _orientation(image: Any) -> int:
    """EXIF's orientation, 1 to 8; TIFF files are turned by Pillow itself."""
    if "exif" not in image.info or getattr(image, "format", None) == "TIFF":
        return 1
    value = image.getexif().get(0x0112, 1)
    return value if value in UPRIGHT else 1
