"""Fuzzed folders and lists of images, and images cut at every byte, against the slow twin: names, classes, pixels, and what is left out."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults import fuzzing, twins
from faults.judging import Refused, judged, outcome
from faults.watching import Attempt


def image_folder(path: Path, draw: Random) -> Iterator[Attempt]:
    """A folder in one of the layouts, with hidden, nested and foreign files, maybe with harmed images."""
    classes, expected = draw.sample(["a", "b", "c d", "é", "test-1"], draw.choice([2, 2, 3])), {}
    layout = draw.choice(["plain", "loose", "labelled", "train"])
    root = {"labelled": path / "labelled", "train": path / "train"}.get(layout, path)
    places = [
        root / name / ("inner" if draw.random() < 0.2 else "") for name in classes for _ in range(draw.choice([2, 3]))
    ]
    labels = [place.relative_to(root).parts[0] for place in places]
    if layout in ("loose", "labelled"):
        places, labels = [*places, path if layout == "loose" else path / "unlabelled"], [*labels, None]
    for number, (place, label) in enumerate(zip(places, labels, strict=True)):
        place.mkdir(parents=True, exist_ok=True)
        known = draw.random() < 0.85
        ending, whole = fuzzing.small_picture(draw) if known else fuzzing.other_picture(draw)
        raw = fuzzing.harmed(draw, whole, often=0.08)
        file = place / f"{number}.{draw.choice([ending, ending.upper()])}"
        file.write_bytes(raw)
        expected[str(file)] = (label, raw, whole)
    for name in draw.sample([".hidden.png", "notes.txt", "Thumbs.db"], 2):
        (places[0] / name).write_bytes(b"none")
    for on_disk in (False, True):
        yield Attempt(
            f"images, {layout}, {'on disk' if on_disk else 'in memory'}",
            functools.partial(check_images, path, expected, on_disk=on_disk),
        )
    shutil.rmtree(path)


def check_images(path: Path, expected: dict[str, tuple[str | None, bytes, bytes]], *, on_disk: bool) -> list[str]:
    """Names, classes and pixels against the twin; images that it refuses are listed by name, and no other."""
    from scarce_common_utils.images import StoredImages, Unreadable, open_images

    said: list[Unreadable] = []
    found = outcome(
        lambda: open_images(str(path), image_size=None, test_share=0.2, in_memory=not on_disk, unreadable=said)
    )
    pictures = {file: twins.picture(raw) for file, (_, raw, _) in expected.items()}
    if isinstance(found, Refused):  # nothing left of a class, or all of a part cannot be read
        return [] if any(not isinstance(one, twins.Picture) for one in pictures.values()) else [found.sentence]
    faults, seen, left_out = [], {}, {one.name for one in said}
    for part in found:
        pixels = part.read(torch.arange(len(part))) if isinstance(part, StoredImages) else part.images
        for place, name in enumerate(part.names):
            label = int(part.labels[place])
            seen[str(path / name)] = (part.class_names[label] if label >= 0 else None, pixels[place])
    for file, picture in pictures.items():
        label, raw, whole = expected[file]
        name = Path(file).relative_to(path).as_posix()
        if (file in seen) == (name in left_out):
            faults.append(f"{name} was {'both read and left out' if file in seen else 'neither read nor named'}")
        elif isinstance(picture, twins.Bad) and file in seen and len(raw) < len(whole):
            entire = twins.picture(whole)  # what was cut off may be the end alone, behind the last pixel
            faults += pixels_differ(name, entire, seen[file][1]) if isinstance(entire, twins.Picture) else []
        elif isinstance(picture, twins.Picture) and raw == whole and file not in seen:
            faults.append(f"{name} is sound and was left out: {[one.sentence for one in said if one.name == name]}")
        elif isinstance(picture, twins.Picture) and file in seen:
            faults += pixels_differ(name, picture, seen[file][1])
        if file in seen and seen[file][0] != label:
            faults.append(f"{name} is of class {seen[file][0]}, not {label}")
    return faults


def pixels_differ(name: str, picture: twins.Picture, pixels: torch.Tensor) -> list[str]:
    """Of an image that kept its size: each byte."""
    if tuple(pixels.shape[1:]) != (picture.height, picture.width):
        return []
    own = torch.frombuffer(bytearray(picture.rows), dtype=torch.uint8).reshape(
        picture.height, picture.width, picture.channels
    )
    return [] if torch.equal(own.permute(2, 0, 1).expand(pixels.shape), pixels) else [f"{name} has other pixels"]


def cut_image(path: Path, draw: Random) -> Iterator[Attempt]:
    """One image of a sound folder cut at every byte: listed, or read with all its pixels."""
    for number in range(4):
        (path / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (path / "ab"[number % 2] / f"{number}.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    ending, whole = draw.choice([fuzzing.small_picture, fuzzing.other_picture])(draw)
    file = path / "a" / f"cut.{ending}"
    first = draw.randrange(max(1, len(whole) - 25))
    for length in [*range(first, min(len(whole), first + 25))]:
        file.write_bytes(whole[:length])
        yield Attempt(
            f"{ending} cut at {length} of {len(whole)}", functools.partial(check_cut_image, path, file, whole)
        )
    shutil.rmtree(path)


def check_cut_image(path: Path, file: Path, whole: bytes) -> list[str]:
    """Either the one bad image, or its pixels are the whole one's."""
    from scarce_common_utils.image_decoding import decode
    from scarce_common_utils.images import Unreadable, open_images

    said: list[Unreadable] = []
    open_images(str(path), unreadable=said)
    if said:
        return (
            [] if [one.name for one in said] == [f"a/{file.name}"] else [f"left out were {[one.name for one in said]}"]
        )
    return [] if (decode(str(file)) == decode(whole)).all() else ["cut, it was read with other pixels"]


def list_file(path: Path, draw: Random) -> Iterator[Attempt]:
    """A list of images, as lines, maybe harmed."""
    path.mkdir()
    for number in range(4):
        (path / f"{number} x.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    raw = b"".join(f"{number} x.ppm{draw.choice([' ', chr(9), '   '])}{number % 2}\n".encode() for number in range(4))
    if draw.random() < 0.3:
        raw = b"# a comment\n\n" + raw
    file = path / "train.txt"
    file.write_bytes(found := fuzzing.harmed(draw, raw, often=0.7))
    yield Attempt("list of images", functools.partial(check_list, file, found))
    shutil.rmtree(path)


def check_list(file: Path, raw: bytes) -> list[str]:
    """Pairs of path and class line by line against a twin of four lines."""
    from scarce_common_utils.image_lists import from_list

    def read() -> list[tuple[str, int]]:
        part = from_list(file)[0]
        return [(name, int(part.class_names[label])) for name, label in zip(part.names, part.labels, strict=True)]

    return judged(outcome(read), listed(file.parent, raw), file, line=False)


def listed(root: Path, raw: bytes) -> Any:
    """The twin: a path, white space, digits; the file is there."""
    try:
        lines = [line.strip() for line in raw.decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        return twins.Bad()
    found = []
    for line in lines:
        if line and not line.startswith("#"):
            words = line.rsplit(None, 1)
            if (
                len(words) < 2
                or not words[1].isascii()
                or not words[1].isdigit()
                or "\0" in words[0]
                or not (root / words[0]).is_file()
            ):
                return twins.Bad()
            found.append((words[0], int(words[1])))
    return found or twins.Bad()
