"""Labelled images out of torchvision's sets and Hugging Face's, each package imported when its source is asked for."""

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from scarce_common_utils.errors import UserError


@dataclass(frozen=True)
class RawSet:
    """Images as a source gives them: `items` are PIL images, paths, encoded bytes or uint8 arrays (H, W) or (H, W, 3)."""

    items: Sequence[Any]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    place: str


Parts = tuple[RawSet, RawSet | None]


def from_torchvision(name: str, *, download: bool, folder: Path) -> Parts:
    """A classification set of torchvision by its class name, such as `CIFAR10`, with its own training and test parts.

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
    extra = {"download": download} if "download" in parameters else {}
    if "train" in parameters:
        choices: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
    elif "split" in parameters:
        choices = ({"split": "train"}, {"split": "test"})
    else:
        raise UserError(f"torchvision:{name} has no training and test parts that can be asked for by name.")
    try:
        parts = [constructor(root=folder, **choice, **extra) for choice in choices]
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise UserError(f"torchvision:{name} cannot be loaded into {folder} ({str(error).splitlines()[0]}).") from error
    train, test = parts
    return _torchvision_part(train, f"torchvision:{name} (train)"), _torchvision_part(
        test, f"torchvision:{name} (test)"
    )


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


def from_parquet(files: Sequence[Path], *, place: str) -> Parts:
    """Parquet files with an image column (encoded bytes) and a label column, split by `train`, `test`, `val` in their names.

    Raises:
        UserError: `datasets` is missing, a file is none, or a column is.
    """
    load_dataset = _datasets("A parquet file").load_dataset
    test = [str(file) for file in files if any(word in file.stem.lower() for word in ("test", "val"))]
    train = [str(file) for file in files if str(file) not in test] or test
    parts = {"train": train} | ({"test": test} if test and train is not test else {})
    try:
        loaded = {name: load_dataset("parquet", data_files=names, split="train") for name, names in parts.items()}
    except Exception as error:  # the reader raises its own kinds; the person needs the file and the first line
        raise UserError(f"{place} cannot be read as parquet ({str(error).splitlines()[0]}).") from error
    return _hub_parts(loaded, place=place)


def from_saved_set(path: Path) -> Parts:
    """A set that `datasets` wrote with `save_to_disk`.

    Raises:
        UserError: `datasets` is missing, or the folder cannot be read.
    """
    load_from_disk = _datasets("A saved Hugging Face set").load_from_disk
    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # as above
        raise UserError(f"{path} cannot be read as a saved Hugging Face set ({str(error).splitlines()[0]}).") from error
    return _hub_parts(loaded if isinstance(loaded, dict) else {"train": loaded}, place=str(path))


def from_hub(name: str) -> Parts:
    """A set of the Hugging Face hub by name.

    Raises:
        UserError: `datasets` is missing, or the set cannot be fetched.
    """
    load_dataset = _datasets("hf:NAME").load_dataset
    try:
        loaded = load_dataset(name)
    except Exception as error:  # as above
        raise UserError(f"hf:{name} cannot be loaded ({str(error).splitlines()[0]}).") from error
    return _hub_parts(dict(loaded), place=f"hf:{name}")


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


def _datasets(what: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{what} needs the package datasets, which is not installed: pip install datasets") from error
    datasets.utils.logging.disable_progress_bar()
    return datasets


def _torchvision_part(part: Any, place: str) -> RawSet:
    labels = getattr(part, "targets", None)
    labels = getattr(part, "labels", None) if labels is None else labels
    data = getattr(part, "data", None)
    if data is not None and labels is not None:
        array = numpy.asarray(data)
        if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
            array = array.transpose(0, 2, 3, 1)  # SVHN and STL-10 keep their channels first
        items: list[Any] = list(array)
    else:
        pairs = [part[index] for index in range(len(part))]
        items, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    numbers = [int(label) for label in labels]
    names = [str(name) for name in getattr(part, "classes", [])] or [str(number) for number in range(1 + max(numbers))]
    return RawSet(items, numbers, tuple(names), place)


def _hub_parts(loaded: dict[str, Any], *, place: str) -> Parts:
    train_name = "train" if "train" in loaded else next(iter(loaded))
    test_name = next(
        (name for name in ("test", "validation", "valid", "val") if name in loaded and name != train_name), None
    )
    train = _hub_part(loaded[train_name], f"{place} ({train_name})", None)
    if test_name is None:
        return train, None
    return train, _hub_part(loaded[test_name], f"{place} ({test_name})", train.class_names)


def _hub_part(part: Any, place: str, class_names: tuple[str, ...] | None) -> RawSet:
    columns = list(part.column_names)
    image = next((name for name in ("image", "img", "images", "bytes") if name in columns), None)
    label = next((name for name in ("label", "labels", "fine_label", "class", "target") if name in columns), None)
    if image is None or label is None:
        missing = "image" if image is None else "label"
        raise UserError(f"{place} has no column {missing!r}; its columns are {', '.join(map(repr, columns))}.")
    values = [-1 if value is None else value for value in part[label][:]]
    names = getattr(part.features[label], "names", None)
    if names is None:
        strings = sorted({value for value in values if isinstance(value, str)})
        names = strings or [str(number) for number in range(1 + max(map(int, values), default=-1))]
    names = tuple(names) if class_names is None else class_names
    numbers = [names.index(value) if isinstance(value, str) and value in names else int(value) for value in values]
    wrong = next((number for number in numbers if not -1 <= number < len(names)), None)
    if wrong is not None:
        raise UserError(f"{place} holds the label {wrong}, but there are {len(names)} classes.")
    items = [value["bytes"] if isinstance(value, dict) else value for value in part[image][:]]
    return RawSet(items, numbers, names, place)
