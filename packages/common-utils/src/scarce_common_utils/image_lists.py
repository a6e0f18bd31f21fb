"""Lists of images: a text file with `path label` a line, or a JSON file of annotations; the images lie below a root.

    ImageNet_LT_train.txt    train/n01440764/n01440764_190.JPEG 0      a path, white space, a whole number of at least 0
    train2018.json           iNaturalist's, in COCO's form: images (id, file_name), annotations (image_id, category_id),
                             categories (id, name)

Root      the folder that the paths start from; by default the list's own.
Test      the list that is given, else the one beside it whose name has test or val where this one has train.
Classes   of a text file the labels that occur in training, by size, named by their numbers; of a JSON file its categories by
          id. Empty lines and those that begin with # are passed over; an image without an annotation has no label.
Letters   N images, K classes.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import Parts, RawSet

SUFFIXES = (".txt", ".json")
TEST_FOR_TRAIN = ("test", "val")
FORM = "a line is a path and the number of its class, such as train/n01440764/n01440764_190.JPEG 0"


class _List(NamedTuple):
    """What a file says: N `names`, N `labels` (-1: none) as the file numbers them, N `places` for messages, and the classes."""

    names: list[str]
    labels: list[int]
    places: list[str]
    classes: dict[int, str]


def from_list(path: Path, *, root: Path | None = None, test: Path | None = None) -> Parts:
    """Training and test images of a list (module docstring).

    Args:
        path: the training list.
        root: folder that its paths start from; None is the list's.
        test: the test list; None looks beside the training list.

    Raises:
        UserError: a list cannot be read, a line is none, an image is not there, or the test list has a class that the training
            list has not; the file and the line (of a JSON file the entry) are named, with the mend.
    """
    training = _read(path)
    found = test or _beside(path)
    numbers = {label: number for number, label in enumerate(sorted(training.classes))}
    names = tuple(training.classes[label] for label in sorted(training.classes))
    raw = _part(path, training, numbers, names=names, root=root or path.parent, training=path)
    if found is None:
        return raw, None
    return raw, _part(found, _read(found), numbers, names=names, root=root or found.parent, training=path)


def _beside(path: Path) -> Path | None:
    """The test list that goes with a training list, by its name."""
    before, word, behind = path.name.rpartition("train")
    candidates = [path.with_name(before + other + behind) for other in TEST_FOR_TRAIN] if word else []
    return next((other for other in candidates if other.is_file()), None)


def _part(
    path: Path, content: _List, numbers: dict[int, int], *, names: Sequence[str], root: Path, training: Path
) -> RawSet:
    labels = []
    for label, place in zip(content.labels, content.places, strict=True):
        if label >= 0 and label not in numbers:
            raise UserError(
                f"{place}: class {label} is none of the {len(numbers)} classes of {training}. Use lists that go together."
            )
        labels.append(numbers.get(label, -1))
    items = [os.path.join(root, name) for name in content.names]  # strings: there may be half a million
    missing = [number for number, item in enumerate(items) if not os.path.isfile(item)]
    if missing:
        first, count = (
            missing[0],
            f"{len(missing)} of {len(items)} images are missing" if len(missing) > 1 else "missing",
        )
        raise UserError(
            f"{content.places[first]}: there is no file {items[first]} ({count}). Give the folder that the paths start from: "
            "--image-root."
        )
    return RawSet(items, labels, tuple(names), str(path), content.names)


def _read(path: Path) -> _List:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"{path} cannot be read as a list of images ({reason}).") from error
    found = _from_json(path, text) if path.suffix == ".json" else _from_lines(path, text)
    if not found.names:
        raise UserError(f"{path} lists no image; {FORM}.")
    return found


def _from_lines(path: Path, text: str) -> _List:
    found = _List([], [], [], {})
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        place, (name, *label) = f"{path}, line {number}", stripped.rsplit(None, 1)
        if not label or not (label[0].isascii() and label[0].isdigit()):
            raise UserError(f"{place}: {_shortened(stripped)!r} does not end with the number of a class; {FORM}.")
        found.names.append(name)
        found.labels.append(int(label[0]))
        found.places.append(place)
        found.classes[int(label[0])] = str(int(label[0]))
    return found


def _from_json(path: Path, text: str) -> _List:
    try:
        content = json.loads(text)
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        images = [(entry["id"], str(entry["file_name"])) for entry in content["images"]]
        pairs = [(entry["image_id"], int(entry["category_id"])) for entry in content["annotations"]]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: this is no JSON ({error.msg}).") from error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} has no images (id, file_name), annotations (image_id, category_id) and categories (id, name) as iNaturalist's "
            f"files have them ({error!r})."
        ) from error
    labels = _labels_by_image(path, pairs, known={number for number, _ in images}, categories=categories)
    if len(set(categories.values())) < len(categories):
        categories = {number: f"{name} ({number})" for number, name in categories.items()}
    return _List(
        [name for _, name in images],
        [labels.get(number, -1) for number, _ in images],
        [f"{path}, image {number}" for number, _ in images],
        categories,
    )


def _labels_by_image(
    path: Path, pairs: Sequence[tuple[Any, int]], *, known: set[Any], categories: dict[int, str]
) -> dict[Any, int]:
    labels: dict[Any, int] = {}
    for number, (image, category) in enumerate(pairs):
        place = f"{path}, annotation {number}"
        if image not in known:
            raise UserError(f"{place}: there is no image with the id {image!r}.")
        if category not in categories:
            raise UserError(f"{place}: there is no category with the id {category}.")
        if labels.setdefault(image, category) != category:
            raise UserError(
                f"{place}: image {image!r} has two classes, {labels[image]} and {category}. A classifier takes one an image."
            )
    return labels


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
