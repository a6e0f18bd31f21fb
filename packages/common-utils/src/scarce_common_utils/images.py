"""Images by name or path, as one uint8 tensor for training and one for testing.

An existing path comes first (a folder of images, a parquet or npz file, a saved Hugging Face set), then `digits`, then
`torchvision:NAME`, then `hf:NAME`. Where the data have no test part, a share of each class is held out.
Shapes: N images, C channels (1 where every image is grey, else 3), H W pixels, K classes.
"""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import RawSet, from_hub, from_parquet, from_saved_set, from_torchvision
from scarce_common_utils.streams import stream

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
UNLABELLED = ("unlabelled", "unlabeled")
SIDE_WHERE_SIZES_DIFFER = 64
MOST_BYTES = 8 * 2**30
# Sets whose images mean something else when mirrored: digits and letters.
NOT_MIRRORED = ("digits", "mnist", "kmnist", "emnist", "qmnist", "svhn", "usps")


@dataclass(frozen=True)
class ImageSet:
    """Images in memory.

    Attributes:
        images: UInt8[N C H W], on the CPU.
        labels: Int64[N], on the CPU; -1 where an image has no label.
        class_names: K names, sorted as the data have them.
        place: where they come from, for messages.
        mirrored: whether an image and its mirror image belong to the same class.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    place: str
    mirrored: bool = True

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> "ImageSet":
        """The images at `indices`, Int64, in that order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def load_images(
    data: str | None,
    *,
    image_size: int | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    download: bool = True,
    data_folder: Path = Path("data"),
) -> tuple[ImageSet, ImageSet]:
    """Training and test images; every test image has a label, training images may have none.

    Args:
        data: path, `digits`, `torchvision:NAME` or `hf:NAME` (module docstring).
        image_size: side of the square that images are resized and cropped to; None keeps a common size, 64 where sizes differ.
        test_share: share of each class held out where the data have no test part, drawn from `stream(seed, "split", "test")`.
        seed: seed of that draw.
        download: let torchvision fetch its files.
        data_folder: where torchvision keeps them.

    Raises:
        UserError: the data are missing, empty, of one class, unreadable (the first paths are listed), or too large for
            memory; or a package that the source needs is not installed (its pip line is given).
    """
    if data is None:
        raise UserError(
            "DATA is missing. Give a folder of images, a parquet or npz file, `digits`, torchvision:NAME or hf:NAME."
        )
    train, test = _read(data, download=download, data_folder=data_folder)
    for part in (train, test):
        if part is not None and len(part.items) == 0:
            raise UserError(f"{part.place} holds no image.")
    if len(train.class_names) < 2:
        raise UserError(f"{train.place} has {len(train.class_names)} class; classification needs at least two.")
    if test is not None and test.class_names != train.class_names:
        extra = sorted(set(test.class_names) ^ set(train.class_names))
        raise UserError(
            f"{train.place} and {test.place} have different classes: {', '.join(map(repr, extra[:5]))} is in one alone."
        )
    mirrored = data.split(":")[-1].lower() not in NOT_MIRRORED
    tensors = _to_tensors([part for part in (train, test) if part is not None], image_size=image_size)
    sets = [
        ImageSet(images, torch.tensor(part.labels, dtype=torch.int64), part.class_names, part.place, mirrored)
        for images, part in zip(tensors, (train, test), strict=False)
        if part is not None
    ]
    if len(sets) == 1:
        return hold_out(sets[0], share=test_share, seed=seed)
    known = (sets[1].labels >= 0).nonzero().flatten()
    if not len(known):
        raise UserError(
            f"No image of {sets[1].place} has a label, so nothing can be tested. Give labels to the test part."
        )
    return sets[0], sets[1].take(known)


def data_name(data: str | None) -> str:
    """Short name of the data for folders and records: letters, digits, dots and dashes."""
    text = data or "data"
    last = Path(text).name if Path(text).exists() else text.split(":")[-1]
    return re.sub(r"[^A-Za-z0-9.]+", "-", last.removesuffix(".parquet").removesuffix(".npz")).strip("-.") or "data"


def hold_out(images: ImageSet, *, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split off a share of each class, at least one image; images without a label stay in training.

    Raises:
        UserError: a class has a single image; it is named.
    """
    generator = stream(seed, "split", "test")
    test = torch.zeros(len(images), dtype=torch.bool)
    for number, name in enumerate(images.class_names):
        members = (images.labels == number).nonzero().flatten()
        if len(members) < 2:
            raise UserError(
                f"Class {name!r} has {len(members)} labelled image in {images.place}; two are needed, one of them for the test."
            )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        test[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return images.take((~test).nonzero().flatten()), images.take(test.nonzero().flatten())


def _read(data: str, *, download: bool, data_folder: Path) -> tuple[RawSet, RawSet | None]:
    path = Path(data)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return from_saved_set(path)
        parquet = sorted(path.rglob("*.parquet"))
        return from_parquet(parquet, place=str(path)) if parquet else _from_folder(path)
    if path.is_file():
        if path.suffix == ".parquet":
            return from_parquet([path], place=str(path))
        if path.suffix == ".npz":
            return _from_npz(path)
        raise UserError(
            f"{path} is a file of no kind that is read here. Give a folder of images, a .parquet or a .npz file."
        )
    if data == "digits":
        return _digits()
    if data.startswith("torchvision:"):
        return from_torchvision(data.removeprefix("torchvision:"), download=download, folder=data_folder)
    if data.startswith("hf:"):
        return from_hub(data.removeprefix("hf:"))
    raise UserError(
        f"{data} is neither an existing path nor a known set. Check the path, or give `digits`, torchvision:NAME or hf:NAME."
    )


def _digits() -> tuple[RawSet, None]:
    """The 1,797 scans of scikit-learn, 8x8, values 0 to 16 brought to 0 to 255."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    items = numpy.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(numpy.uint8)
    return RawSet(list(items), [int(label) for label in labels], tuple("0123456789"), "digits"), None


def _from_npz(path: Path) -> tuple[RawSet, RawSet | None]:
    """Arrays x_train, y_train, perhaps x_test and y_test and class_names, as numpy.savez writes them."""
    try:
        with numpy.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an npz file ({str(error).splitlines()[0]}).") from error
    missing = [name for name in ("x_train", "y_train") if name not in arrays]
    if missing:
        raise UserError(
            f"{path} has no array {missing[0]!r}; it needs x_train and y_train, and has {', '.join(sorted(arrays)) or 'none'}."
        )

    def part(name: str) -> RawSet:
        items, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
        if items.dtype != numpy.uint8 or items.ndim not in (3, 4) or len(items) != len(labels):
            raise UserError(
                f"x_{name} of {path} is {items.dtype}{items.shape}; uint8 images (N, H, W) or (N, H, W, 3), one a label, are needed."
            )
        numbers = [int(label) for label in labels]
        count = 1 + max(int(label) for label in arrays["y_train"])
        names = (
            tuple(str(name) for name in arrays["class_names"])
            if "class_names" in arrays
            else tuple(map(str, range(count)))
        )
        wrong = next((number for number in numbers if not -1 <= number < len(names)), None)
        if wrong is not None:
            raise UserError(f"y_{name} of {path} holds the label {wrong}, but there are {len(names)} classes.")
        return RawSet(list(items), numbers, names, f"{path} ({name})")

    return part("train"), part("test") if "x_test" in arrays and "y_test" in arrays else None


def _from_folder(path: Path) -> tuple[RawSet, RawSet | None]:
    """A folder for each class, perhaps within train/ and test/ or val/; train/unlabelled/ holds images without a label."""
    if not any(path.iterdir()):
        raise UserError(f"{path} is an empty folder. Put the images of each class into a folder of its own in it.")
    train = path / "train"
    test = next((path / name for name in ("test", "val", "validation") if (path / name).is_dir()), None)
    if train.is_dir():
        return _class_folders(train), _class_folders(test) if test is not None else None
    return _class_folders(path), None


def _class_folders(path: Path) -> RawSet:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    found = {folder.name: _images_below(folder) for folder in folders}
    if not any(found.values()):
        if _images_below(path):
            raise UserError(
                f"{path} holds images, but no folder for each class. Put the images of each class into a folder of its own in it."
            )
        raise UserError(
            f"{path} holds no image ({', '.join(SUFFIXES[:4])} and so on). Put the images of each class into a folder of its own in it."
        )
    names = tuple(name for name in found if name not in UNLABELLED)
    empty = next((name for name in names if not found[name]), None)
    if empty is not None:
        raise UserError(
            f"{path / empty} holds no image, so class {empty!r} has none. Add images, or remove the folder."
        )
    items: list[Path] = []
    labels: list[int] = []
    for name, files in found.items():
        items += files
        labels += [names.index(name) if name in names else -1] * len(files)
    return RawSet(items, labels, names, str(path))


def _images_below(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))


def _to_tensors(parts: Sequence[RawSet], *, image_size: int | None) -> list[Tensor]:
    """UInt8[N C S S] a part, of one size and one number of channels over all parts."""
    arrays = [_decode(part) for part in parts]
    flat = [array for part in arrays for array in part]
    sizes = {array.shape[:2] for array in flat}
    channels = 1 if all(_is_grey(array) for array in flat) else 3
    if image_size is not None:
        side = (image_size, image_size)
    else:
        side = next(iter(sizes)) if len(sizes) == 1 else (SIDE_WHERE_SIZES_DIFFER, SIDE_WHERE_SIZES_DIFFER)
    size = len(flat) * channels * side[0] * side[1]
    if size > MOST_BYTES:
        raise UserError(
            f"{len(flat)} images of {side[0]}x{side[1]} take {size / 2**30:.0f} GiB of memory. Choose a smaller --image-size."
        )
    return [torch.stack([_fit(array, side=side, channels=channels) for array in part]) for part in arrays]


def _decode(part: RawSet) -> list[numpy.ndarray]:
    """Each item as a uint8 array, in threads; what cannot be read is listed, all of it at once."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = list(pool.map(_attempt(_array), part.items))
    bad = [(index, error) for index, error in enumerate(found) if isinstance(error, Exception)]
    if bad:
        lines = [
            f"{_item_name(part.items[index], index)} ({str(error).splitlines()[0][:80]})" for index, error in bad[:10]
        ]
        more = f", and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise UserError(
            f"{len(bad)} of {len(found)} images in {part.place} cannot be read: {'; '.join(lines)}{more}. Mend or remove them."
        )
    return [array for array in found if isinstance(array, numpy.ndarray)]


def _array(item: Any) -> numpy.ndarray:
    if isinstance(item, numpy.ndarray):
        return item
    from io import BytesIO

    from PIL import Image

    opened = Image.open(item if isinstance(item, Path) else BytesIO(item)) if isinstance(item, Path | bytes) else item
    with opened as image:
        grey = image.mode in ("1", "L", "I;16", "I", "F", "LA")
        if image.mode in ("I;16", "I"):  # 16-bit scans: the upper byte
            return (numpy.asarray(image).astype(numpy.int64) >> 8).clip(0, 255).astype(numpy.uint8)
        return numpy.asarray(image.convert("L" if grey else "RGB"))


def _is_grey(array: numpy.ndarray) -> bool:
    return array.ndim == 2 or array.shape[2] == 1


def _fit(array: numpy.ndarray, *, side: tuple[int, int], channels: int) -> Tensor:
    """UInt8[C H W]: the shorter side resized, the centre cropped out."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.shape[:2] != side:
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
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _item_name(item: Any, index: int) -> str:
    return str(item) if isinstance(item, Path) else f"image {index}"


def _attempt(function: Callable[[Any], numpy.ndarray]) -> Callable[[Any], numpy.ndarray | Exception]:
    def attempt(item: Any) -> numpy.ndarray | Exception:
        try:
            return function(item)
        except Exception as error:  # a decoder raises what it likes; every bad image is to be named at once
            return error

    return attempt


def count_by_class(labels: Tensor, classes: int) -> list[int]:
    """How many of each class, K integers; images without a label are not counted."""
    return torch.bincount(labels[labels >= 0], minlength=classes).tolist()
