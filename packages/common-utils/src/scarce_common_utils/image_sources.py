"""Labelled images out of numpy files, scikit-learn's digits and torchvision's sets; each package imported when asked for."""

import difflib
import importlib
import importlib.util
import inspect
import math
import pickle
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from scarce_common_utils.errors import UserError
from scarce_common_utils.unpacking import refuse_bomb

UNLABELLED_PART = {"STL10": "train+unlabeled"}  # of torchvision's sets, and the name of its training part with it
FOLDS = 10


@dataclass(frozen=True)
class RawSet:
    """Images as a source gives them.

    Attributes:
        items: PIL images, paths, encoded bytes, {"bytes", "path"} or uint8 arrays (H, W) or (H, W, 3); one uint8 array
            (N, H, W) or (N, H, W, 3) where they are in memory already. It may have `read_many(indices)`.
        labels: a number for each, -1 where there is none.
        class_names: K names.
        place: where they come from, for messages.
        names: of each image, relative to the data; empty where they have none but their number.
    """

    items: Any
    labels: Sequence[int]
    class_names: tuple[str, ...]
    place: str
    names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of a source is taken, and how it is named there.

    Attributes:
        classes: these classes alone, in that order; None takes all.
        fold: of STL-10's ten folds of 1,000 labels; None takes all its labels.
        extra: SVHN's extra images join the training images.
        unlabelled: images without a label that a source keeps apart join the training images (STL-10, Hugging Face).
            Those of a folder always do.
        image_column, label_column: of a Hugging Face or parquet set; None finds them.
        image_root, test_list: of a list of images, see `image_lists.py`.
    """

    classes: tuple[str, ...] | None = None
    fold: int | None = None
    extra: bool = False
    unlabelled: bool = False
    image_column: str | None = None
    label_column: str | None = None
    image_root: Path | None = None
    test_list: Path | None = None


Parts = tuple[RawSet, RawSet | None]
ALL = Selection()


def number_labels(
    values: Iterable[Any], *, place: str, class_names: Sequence[str] | None = None, by_number: bool = True
) -> tuple[list[int], tuple[str, ...]]:
    """Labels as numbers, and the names of the classes.

    Args:
        values: whole numbers, words, or none at all (None, -1, NaN or an empty word, which become -1).
        place: for the error.
        class_names: K names; None takes the values that occur, words in the order of the alphabet, numbers by size.
        by_number: numbers are places in `class_names`; False looks for their text in it.

    Raises:
        UserError: a value is neither a whole number nor a word, or no class; the value and the place are named.
    """
    plain = [_plain_label(value, place) for value in values]
    known = {value for value in plain if value is not None}
    if class_names is None:
        by_number = False
        words = any(isinstance(value, str) for value in known)
        class_names = sorted({str(value) for value in known}, key=str if words else int)
    places = {name: number for number, name in reversed(list(enumerate(class_names)))}

    def number(value: int | str | None) -> int:
        if value is None:
            return -1
        found = value if by_number and isinstance(value, int) else places.get(str(value), -1)
        if not 0 <= found < len(class_names):
            some = ", ".join(class_names[:5]) + (" ..." if len(class_names) > 5 else "")
            raise UserError(f"{place} holds the label {value!r}, but there are {len(class_names)} classes: {some}.")
        return found

    return [number(value) for value in plain], tuple(class_names)


def _plain_label(value: Any, place: str) -> int | str | None:
    value = value.item() if isinstance(value, numpy.generic) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)) or value == -1:
        return None
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        if value >= 0:
            return value
        raise UserError(f"{place} holds the label {value}; classes are numbered from 0, and -1 is no label.")
    raise UserError(f"{place} holds the label {value!r}, which is neither a whole number nor a word.")


def digits() -> Parts:
    """The 1,797 scans of scikit-learn, 8x8, values 0 to 16 brought to 0 to 255.

    Raises:
        UserError: scikit-learn is missing.
    """
    if not _is_installed("sklearn"):
        raise UserError("digits needs the package scikit-learn, which is not installed: pip install scikit-learn")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    items = numpy.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(numpy.uint8)
    return RawSet(items, [int(label) for label in labels], tuple("0123456789"), "digits"), None


def from_npz(path: Path) -> Parts:
    """Arrays x_train, y_train, perhaps x_test and y_test and class_names, as numpy.savez writes them.

    Raises:
        UserError: it is no such file, or its arrays are not uint8 images with a label each.
    """
    arrays = _arrays(path)
    missing = [name for name in ("x_train", "y_train") if name not in arrays]
    if missing:
        raise UserError(
            f"{path} has no array {missing[0]!r}; it needs x_train and y_train, and has {', '.join(sorted(arrays)) or 'none'}."
        )
    declared = [str(name) for name in arrays["class_names"]] if "class_names" in arrays else None

    def part(name: str, known: Sequence[str] | None) -> RawSet:
        items, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
        fit = (
            items.dtype == numpy.uint8
            and items.ndim in (3, 4)
            and items.shape[3:] in ((), (1,), (3,))
            and items[:1].size > 0
        )
        if not fit or labels.shape != items.shape[:1]:
            raise UserError(
                f"x_{name} of {path} is {items.dtype}{items.shape}; uint8 images (N, H, W) or (N, H, W, 3), one a label, are needed."
            )
        place = f"{path} ({name})"
        numbers, names = number_labels(labels, place=place, class_names=known, by_number=declared is not None)
        return RawSet(items, numbers, names, place)

    train = part("train", declared)
    return train, part("test", train.class_names) if "x_test" in arrays and "y_test" in arrays else None


def _arrays(path: Path) -> dict[str, numpy.ndarray]:
    """What an npz file holds, refused where it says or is too much; no array of objects, each of which is a pickle."""
    try:
        with zipfile.ZipFile(path) as archive:  # numpy takes a single array for such a file as well
            unpacked = sum(member.file_size for member in archive.infolist())
        refuse_bomb(path, packed=path.stat().st_size, unpacked=unpacked)
        with numpy.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except UserError:
        raise
    except Exception as error:  # zip, zlib and numpy raise their own kinds, of what is damaged or was made to mislead
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as an npz file ({reason}).") from error
    return {name: array for name, array in arrays.items() if isinstance(array, numpy.ndarray)}


def from_torchvision(name: str, *, download: bool, folder: Path, selection: Selection = ALL) -> Parts:
    """A classification set of torchvision by its class name, such as `CIFAR10`, with its own training and test parts.

    STL-10's folds: all its images stay, those outside the fold lose their labels.

    Raises:
        UserError: torchvision is missing, has no such set, or cannot fetch or find its files.
    """
    datasets = _torchvision("datasets", wanted=f"torchvision:{name}", line="pip install torchvision")
    kind: Any = getattr(datasets, name, None)
    if not inspect.isclass(kind):
        near = difflib.get_close_matches(
            name, [other for other in dir(datasets) if other[0].isupper()], n=1, cutoff=0.4
        )
        raise UserError(f"torchvision has no set {name!r}." + (f" Did you mean torchvision:{near[0]}?" if near else ""))
    constructor: Any = kind
    parameters = inspect.signature(kind).parameters
    options = {"root": folder} | ({"download": download} if "download" in parameters else {})
    if "train" in parameters:
        choices: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    elif "split" in parameters:
        train = UNLABELLED_PART.get(name, "train") if selection.unlabelled else "train"
        choices = [{"split": train}, {"split": "test"}]
        choices += [{"split": "extra"}] if selection.extra else []
    else:
        raise UserError(f"torchvision:{name} has no training and test parts that can be asked for by name.")
    try:
        parts = [constructor(**options, **choice) for choice in choices]
    except (RuntimeError, OSError, ValueError, TypeError, ImportError, pickle.UnpicklingError) as error:
        raise UserError(f"torchvision:{name} cannot be loaded into {folder} ({str(error).splitlines()[0]}).") from error
    raw = [
        _torchvision_part(part, f"torchvision:{name} ({part_name})")
        for part, part_name in zip(parts, ("train", "test", "extra"), strict=False)
    ]
    training = raw[0] if len(raw) == 2 else _joined(raw[0], raw[2])
    if selection.fold is not None:
        training = _one_fold(training, folder / parts[0].base_folder / parts[0].folds_list_file, fold=selection.fold)
    return training, raw[1]


def torchvision_model(name: str, classes: int, *, ours: Sequence[str], package: str) -> Any:
    """One of torchvision's classifiers by name, without trained weights, weights drawn from the global generator.

    Args:
        name: such as `resnet18`.
        classes: K.
        ours: names of the package's own models, for the error.
        package: the package that asks; its extra `vision` is named where torchvision is missing.

    Raises:
        UserError: torchvision is missing or has no such classifier; the nearest name is given.
    """
    meant = difflib.get_close_matches(name, ours, n=1, cutoff=0.75)
    if meant and not _is_installed("torchvision"):
        line = f"pip install '{package}[vision]'"
        raise UserError(
            f"--model is {name!r}, which is not known. Did you mean {meant[0]}? A model of torchvision's needs it: {line}"
        )
    models = _torchvision("models", wanted=f"--model {name}", line=f"pip install '{package}[vision]'")
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, [*ours, *known], n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose {', '.join(ours)} or a torchvision model."
        raise UserError(f"--model is {name!r}, which is not known. {hint}")
    return models.get_model(name, weights=None, num_classes=classes)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _torchvision(part: str, *, wanted: str, line: str) -> Any:
    """A module of torchvision, imported here and now.

    Raises:
        UserError: it is not installed, or was built for another torch.
    """
    if not _is_installed("torchvision"):
        raise UserError(f"{wanted} needs the package torchvision, which is not installed: {line}")
    try:
        return importlib.import_module(f"torchvision.{part}")
    except (ImportError, RuntimeError, OSError) as error:  # a build for another torch fails on its compiled part
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{wanted} needs torchvision, and the one installed cannot be loaded ({reason}). It was probably built for "
            "another torch: install torch and torchvision together, from the same index."
        ) from error


def _torchvision_part(part: Any, place: str) -> RawSet:
    """The images of a set without decoding them, where it shows its arrays or files; else they are asked for one by one."""
    pairs = getattr(part, "samples", None) or getattr(part, "_samples", None)
    labels = _first(part, ("targets", "labels", "_labels"))
    labels = labels.tolist() if hasattr(labels, "tolist") else labels  # MNIST and its like keep a tensor
    if pairs:
        items, labels = [Path(pair[0]) for pair in pairs], [pair[1] for pair in pairs]
    elif isinstance(data := _first(part, ("data", "_image_files", "_images")), list) and labels is not None:
        items = [Path(file) for file in data]
    elif data is not None and labels is not None:
        items = numpy.asarray(data)
        if items.ndim == 4 and items.shape[1] in (1, 3) and items.shape[3] not in (1, 3):
            items = items.transpose(0, 2, 3, 1)  # SVHN and STL-10 keep their channels first
    else:
        items = _OneByOne(part)
        labels = [part[index][1] for index in range(len(part))]
    declared = [str(name) for name in getattr(part, "classes", [])] or None
    if declared is None:
        declared = [str(number) for number in range(1 + max(int(label) for label in labels))]
    numbers, names = number_labels(labels, place=place, class_names=declared)
    return RawSet(items, numbers, names, place)


class _OneByOne(Sequence[Any]):
    """The images of a set of torchvision that shows neither arrays nor files."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: Any) -> Any:
        return self._part[index][0]


def _first(part: Any, names: Sequence[str]) -> Any:
    return next((found for name in names if (found := getattr(part, name, None)) is not None), None)


def _joined(first: RawSet, second: RawSet) -> RawSet:
    items = numpy.concatenate([first.items, second.items])
    return RawSet(items, [*first.labels, *second.labels], first.class_names, f"{first.place} and {second.place}")


def _one_fold(training: RawSet, file: Path, *, fold: int) -> RawSet:
    """Labels outside the fold (a line of places in STL-10's training part) become -1."""
    try:
        places = {int(place) for place in file.read_text().splitlines()[fold].split()}
    except (OSError, IndexError, ValueError) as error:
        raise UserError(f"{file} has no line of whole numbers for fold {fold}. Fetch the set anew.") from error
    labels = [label if place in places else -1 for place, label in enumerate(training.labels)]
    return RawSet(training.items, labels, training.class_names, f"{training.place}, fold {fold}")
