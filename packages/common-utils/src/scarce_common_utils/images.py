"""Images by name or path: a training and a test part, in memory as one uint8 tensor each, or on disk and decoded when asked for.

An existing path comes first (a folder of images, a parquet or npz file, a list of images, a saved Hugging Face set), then `digits`, then
`torchvision:NAME`, then `hf:NAME`. Where the data have no test part, a share of each class is held out. In memory and on
disk the pixels are the same bits; what becomes of grey, 16-bit, CMYK and other images stands in `image_decoding`.
Shapes: N images, C channels (1 where every image is grey, else 3), H W pixels, K classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_decoding import read_items
from scarce_common_utils.image_folders import from_folder, refuse_unknown_classes
from scarce_common_utils.image_hub import from_hub, from_parquet, from_saved_set
from scarce_common_utils.image_lists import SUFFIXES as LISTS
from scarce_common_utils.image_lists import from_list
from scarce_common_utils.image_reading import (
    Unreadable,
    belongs_in_memory,
    bring_into_memory,
    leave_on_disk,
    read_headers,
)
from scarce_common_utils.image_sets import (
    ImageSet,
    SomeImages,
    StoredImages,
    count_by_class,
    data_digest,
    hold_out,
    images_for_statistics,
    some_images,
)
from scarce_common_utils.image_sources import ALL, FOLDS, Parts, RawSet, Selection, digits, from_npz, from_torchvision

__all__ = [
    "ImageSet",
    "Selection",
    "StoredImages",
    "Unreadable",
    "count_by_class",
    "data_digest",
    "data_name",
    "hold_out",
    "images_for_statistics",
    "labelled_images",
    "load_images",
    "open_images",
    "some_images",
]

# Sets whose images mean something else when mirrored: digits and letters.
NOT_MIRRORED = ("digits", "mnist", "kmnist", "emnist", "qmnist", "svhn", "usps")


def load_images(
    data: str | None,
    *,
    image_size: int | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    download: bool = True,
    data_folder: Path = Path("data"),
    selection: Selection = ALL,
    unreadable: list[Unreadable] | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Training and test images in memory; every test image has a label, training images may have none.

    Args:
        data: path, `digits`, `torchvision:NAME` or `hf:NAME` (module docstring).
        image_size: side of the square that images are resized and cropped to; None keeps a common size, 64 where sizes differ.
        test_share: share of each class held out where the data have no test part, drawn from `stream(seed, "split", "test")`.
        seed: seed of that draw.
        download: let torchvision fetch its files.
        data_folder: where torchvision keeps them.
        selection: classes, fold and columns; see `Selection`.
        unreadable: a list takes the images that cannot be read, which are left out; None refuses them.

    Raises:
        UserError: the data are missing, empty, of one class, unreadable (the first paths are listed), or too large for
            memory; or a package that the source needs is not installed (its pip line is given).
    """
    parts = read_parts(data, download=download, data_folder=data_folder, selection=selection)
    headers = read_headers(parts, image_size=image_size)
    found = bring_into_memory(parts, headers, mirrored=is_mirrored(data or ""), unreadable=unreadable)
    return divide(found, test_share=test_share, seed=seed)


def labelled_images(
    data: str | None,
    *,
    image_size: int | None = None,
    download: bool = True,
    data_folder: Path = Path("data"),
    selection: Selection = ALL,
    unreadable: list[Unreadable] | None = None,
) -> tuple[ImageSet, bool]:
    """Images to test a finished model on, in memory, each with its label, and whether the data have a test part.

    That part, or where there is none all labelled images: nothing is held out, a class may have one image or none, and
    there may be one class alone.

    Args:
        data: and all others as in `load_images`.
        image_size: as there.
        download: as there.
        data_folder: as there.
        selection: as there.
        unreadable: as there.

    Raises:
        UserError: as `load_images`, but for the number of classes and of images in them.
    """
    parts = read_parts(data, download=download, data_folder=data_folder, selection=selection, whole=False)
    part = parts[-1]
    headers = read_headers([part], image_size=image_size)
    (found,) = bring_into_memory([part], headers, mirrored=is_mirrored(data or ""), unreadable=unreadable)
    return _known(found), len(parts) == 2


def open_images(
    data: str | None,
    *,
    image_size: int | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    download: bool = True,
    data_folder: Path = Path("data"),
    selection: Selection = ALL,
    in_memory: bool | None = None,
    unreadable: list[Unreadable] | None = None,
) -> tuple[ImageSet, ImageSet] | tuple[StoredImages, StoredImages]:
    """As `load_images`, but images stay on disk where they are too many for memory.

    Args:
        data: and all others up to `selection`: as in `load_images`.
        image_size: as there.
        test_share: as there.
        seed: as there.
        download: as there.
        data_folder: as there.
        selection: as there.
        in_memory: True and False say where; None keeps in memory what takes at most `MEMORY_BUDGET` bytes, and what a
            source gives as arrays, which are there already. Pixels, parts and order are the same either way.
        unreadable: as in `load_images`; of images that stay on disk all are then read through, however long it takes.

    Raises:
        UserError: as `load_images`. Of images that stay on disk every header is read, and then as many are read through
            as a minute allows, spread evenly over all.
    """
    parts = read_parts(data, download=download, data_folder=data_folder, selection=selection)
    headers = read_headers(parts, image_size=image_size)
    mirrored = is_mirrored(data or "")
    if belongs_in_memory(parts, headers.shape) if in_memory is None else in_memory:
        found = bring_into_memory(parts, headers, mirrored=mirrored, unreadable=unreadable)
        return divide(found, test_share=test_share, seed=seed)
    stored = leave_on_disk(parts, headers, mirrored=mirrored, unreadable=unreadable)
    return divide(stored, test_share=test_share, seed=seed)


def data_name(data: str | None) -> str:
    """Short name of the data for folders and records: letters, digits, dots and dashes."""
    text = data or "data"
    last = Path(text).name if Path(text).exists() else text.split(":", 1)[-1]
    for suffix in (".parquet", ".npz", *LISTS):
        last = last.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9.]+", "-", last).strip("-.") or "data"


def read_parts(
    data: str | None, *, download: bool, data_folder: Path, selection: Selection, whole: bool = True
) -> list[RawSet]:
    """One or two parts as the source gives them, each with images; all classes are in each, but where `whole` is False.

    Raises:
        UserError: as `load_images`, as far as no image has to be read for it.
    """
    if data is None:
        raise UserError(
            "DATA is missing. Give a folder of images, a parquet or npz file, `digits`, torchvision:NAME or hf:NAME."
        )
    _refuse_unused(data, selection)
    train, test = _source(data, download=download, data_folder=data_folder, selection=selection, whole=whole)
    parts = [train] if test is None else [train, test]
    if selection.classes is not None:
        parts = [_of_classes(part, selection.classes) for part in parts]
    for part in parts:
        if len(part.items) == 0:
            raise UserError(f"{part.place} holds no image.")
    if not whole:
        return parts
    if len(parts[0].class_names) < 2:
        raise UserError(f"{train.place} has {len(train.class_names)} class; classification needs at least two.")
    if parts[-1].class_names != parts[0].class_names:
        extra = sorted(set(parts[-1].class_names) ^ set(parts[0].class_names))
        raise UserError(
            f"{parts[0].place} and {parts[-1].place} have different classes: {', '.join(map(repr, extra[:5]))} is in one alone."
        )
    return parts


def _source(data: str, *, download: bool, data_folder: Path, selection: Selection, whole: bool) -> Parts:
    path = Path(data)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return from_saved_set(path, selection=selection)
        parquet = sorted(path.rglob("*.parquet"))
        if parquet:
            return from_parquet(parquet, place=str(path), selection=selection)
        return from_folder(path, classes=selection.classes, whole=whole)
    if path.is_file():
        if path.suffix == ".parquet":
            return from_parquet([path], place=str(path), selection=selection)
        if path.suffix == ".npz":
            return from_npz(path)
        if path.suffix in LISTS:
            return from_list(path, root=selection.image_root, test=selection.test_list)
        raise UserError(
            f"{path} is a file of no kind that is read here. Give a folder of images, a .parquet or .npz file, or a list (.txt, .json)."
        )
    if data == "digits":
        return digits()
    if data.startswith("torchvision:"):
        name = data.removeprefix("torchvision:")
        return from_torchvision(name, download=download, folder=data_folder, selection=selection)
    if data.startswith("hf:"):
        return from_hub(data.removeprefix("hf:"), selection=selection)
    raise UserError(
        f"{data} is neither an existing path nor a known set. Check the path, or give `digits`, torchvision:NAME or hf:NAME."
    )


def _refuse_unused(data: str, selection: Selection) -> None:
    """An option that the data have no use for is refused by name."""
    kind = "path" if Path(data).exists() else data
    if selection.fold is not None and kind != "torchvision:STL10":
        raise UserError(f"--fold is given, but DATA is {data}; only torchvision:STL10 has folds. Leave it out.")
    if selection.fold is not None and not 0 <= selection.fold < FOLDS:
        raise UserError(f"--fold is {selection.fold}; STL-10's folds are 0 to {FOLDS - 1}.")
    if selection.extra and kind != "torchvision:SVHN":
        raise UserError(f"--extra is given, but DATA is {data}; only torchvision:SVHN has extra images. Leave it out.")
    lists = {"--image-root": selection.image_root, "--test-list": selection.test_list}
    given = next((flag for flag, value in lists.items() if value is not None), None)
    if given is not None and Path(data).suffix not in LISTS:
        raise UserError(
            f"{given} is given, but DATA is {data}, which is no list of images (.txt, .json). Leave it out."
        )
    columns = {"--image-column": selection.image_column, "--label-column": selection.label_column}
    given = next((flag for flag, value in columns.items() if value is not None), None)
    if given is not None and (kind == "digits" or kind.startswith("torchvision:")):
        raise UserError(f"{given} is given, but {data} has no columns. Leave it out.")


def _of_classes(part: RawSet, classes: Sequence[str]) -> RawSet:
    """The images of these classes and those without a label; the classes in this order."""
    if part.class_names == tuple(classes):
        return part
    refuse_unknown_classes(classes, part.class_names, place=part.place)
    numbers = {-1: -1} | {part.class_names.index(name): number for number, name in enumerate(classes)}
    kept = [place for place, label in enumerate(part.labels) if label in numbers]
    items = part.items[kept] if isinstance(part.items, numpy.ndarray) else _Picked(part.items, kept)
    names = [part.names[place] if part.names else str(place) for place in kept]
    return RawSet(items, [numbers[part.labels[place]] for place in kept], tuple(classes), part.place, names)


class _Picked(Sequence[Any]):
    """Some items of a source."""

    def __init__(self, items: Sequence[Any], kept: Sequence[int]) -> None:
        self._items, self._kept = items, kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: Any) -> Any:
        return self._items[self._kept[index]]

    def read_many(self, indices: Sequence[int]) -> list[Any]:
        return read_items(self._items, [self._kept[index] for index in indices])


def is_mirrored(data: str) -> bool:
    """Whether an image of a set of this name and its mirror image belong to the same class."""
    words = [Path(data).stem] if Path(data).exists() else re.split("[:/]", data)
    return not any(word.lower() in NOT_MIRRORED for word in words)


def divide(found: Sequence[SomeImages], *, test_share: float, seed: int) -> tuple[SomeImages, SomeImages]:
    """The two parts, one of them held out where there is one alone; test images without a label are left out."""
    if len(found) == 1:
        return hold_out(found[0], share=test_share, seed=seed)
    train, test = found
    return train, _known(test)


def _known(images: SomeImages) -> SomeImages:
    """The images that have a label, of which there must be one."""
    known = (images.labels >= 0).nonzero().flatten()
    if not len(known):
        raise UserError(
            f"No image of {images.place} has a label, so nothing can be tested. Give labels to the test part."
        )
    return images.take(known)
