"""Labelled images out of Hugging Face sets: by name or folder, saved on disk, or parquet files; `datasets` imported when asked for.

Images stay encoded until they are needed. Columns are found by what they hold (datasets' Image, ClassLabel), else by name.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import ALL, Parts, RawSet, Selection, number_labels
from scarce_common_utils.unpacking import refuse_parquet_bomb

IMAGE_NAMES = ("image", "img", "images", "bytes", "png", "jpg")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "cls")
TEST_NAMES = ("test", "validation", "valid", "val")
UNLABELLED_NAMES = ("unlabelled", "unlabeled", "unsupervised")


def from_parquet(files: Sequence[Path], *, place: str, selection: Selection = ALL) -> Parts:
    """Parquet files with an image column (encoded bytes) and a label column, split by `train`, `test`, `val` in their names.

    Raises:
        UserError: `datasets` is missing, a file is none, or a column is.
    """
    load_dataset = _datasets("A parquet file").load_dataset
    test = [str(file) for file in files if any(word in file.stem.lower() for word in ("test", "val"))]
    train = [str(file) for file in files if str(file) not in test] or test
    parts = {"train": train} | ({"test": test} if test and train is not test else {})
    try:
        for file in files:
            refuse_parquet_bomb(file, str(file), packed=file.stat().st_size)
        loaded = {name: load_dataset("parquet", data_files=names, split="train") for name, names in parts.items()}
    except UserError:
        raise
    except Exception as error:  # the reader raises its own kinds; the person needs the file and the first line
        raise UserError(f"{place} cannot be read as parquet ({_reason(error)}).") from error
    return _parts(loaded, place=place, selection=selection)


def from_saved_set(path: Path, *, selection: Selection = ALL) -> Parts:
    """A set that `datasets` wrote with `save_to_disk`.

    Raises:
        UserError: `datasets` is missing, or the folder cannot be read.
    """
    load_from_disk = _datasets("A saved Hugging Face set").load_from_disk
    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # as above
        raise UserError(f"{path} cannot be read as a saved Hugging Face set ({_reason(error)}).") from error
    return _parts(loaded if isinstance(loaded, dict) else {"train": loaded}, place=str(path), selection=selection)


def from_hub(name: str, *, selection: Selection = ALL) -> Parts:
    """A set by `NAME`, `NAME:CONFIGURATION`, or the path of a folder that `datasets.load_dataset` reads.

    Raises:
        UserError: `datasets` is missing, or the set cannot be fetched.
    """
    path = Path(name).expanduser()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return from_saved_set(path, selection=selection)
    load_dataset = _datasets("hf:NAME").load_dataset
    words = [str(path)] if path.exists() else name.split(":", 1)
    try:
        loaded = load_dataset(*words)
    except Exception as error:  # as above
        raise UserError(f"hf:{name} cannot be loaded ({_reason(error)}).") from error
    return _parts(dict(loaded), place=f"hf:{name}", selection=selection)


class HubImages(Sequence[Any]):
    """An image column, not decoded: {"bytes", "path"} or bytes for each row, read from disk when asked for."""

    def __init__(self, part: Any, column: str) -> None:
        self._part, self._column = part.select_columns([column]), column

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: Any) -> Any:
        return self._part[int(index)][self._column]

    def read_many(self, indices: Sequence[int]) -> list[Any]:
        """Several at once, in one request."""
        return list(self._part[[int(index) for index in indices]][self._column])


def _parts(loaded: dict[str, Any], *, place: str, selection: Selection) -> Parts:
    train_name = "train" if "train" in loaded else next(iter(loaded))
    test_name = next((name for name in TEST_NAMES if name in loaded and name != train_name), None)
    train = _part(loaded[train_name], f"{place} ({train_name})", selection=selection)
    unlabelled_name = next((name for name in UNLABELLED_NAMES if name in loaded and name != train_name), None)
    if selection.unlabelled and unlabelled_name is not None:
        train = _with_unlabelled(train, loaded[train_name], loaded[unlabelled_name], selection=selection)
    if test_name is None:
        return train, None
    test = loaded[test_name]
    return train, _part(test, f"{place} ({test_name})", selection=selection, class_names=train.class_names)


def _part(part: Any, place: str, *, selection: Selection, class_names: tuple[str, ...] | None = None) -> RawSet:
    image = _image_column(part, place, selection.image_column)
    label = _label_column(part, place, selection.label_column)
    declared = getattr(part.features[label], "names", None)
    numbers, names = number_labels(
        part[label][:],
        place=place,
        class_names=class_names if class_names is not None else declared,
        by_number=declared is not None,
    )
    return RawSet(HubImages(_undecoded(part, image), image), numbers, names, place)


def _with_unlabelled(train: RawSet, labelled: Any, unlabelled: Any, *, selection: Selection) -> RawSet:
    image = _image_column(labelled, train.place, selection.image_column)
    parts = [_undecoded(part, image).select_columns([image]) for part in (labelled, unlabelled)]
    items = HubImages(_datasets(train.place).concatenate_datasets(parts), image)
    return RawSet(items, [*train.labels, *[-1] * len(unlabelled)], train.class_names, train.place)


def _undecoded(part: Any, column: str) -> Any:
    from datasets import Image

    return part.cast_column(column, Image(decode=False)) if isinstance(part.features[column], Image) else part


def _image_column(part: Any, place: str, wanted: str | None) -> str:
    from datasets import Image

    holding = [name for name, feature in part.features.items() if isinstance(feature, Image)]
    return _column(part, place, wanted=wanted, holding=holding, usual=IMAGE_NAMES, what="image")


def _label_column(part: Any, place: str, wanted: str | None) -> str:
    from datasets import ClassLabel

    holding = [name for name, feature in part.features.items() if isinstance(feature, ClassLabel)]
    return _column(part, place, wanted=wanted, holding=holding, usual=LABEL_NAMES, what="label")


def _column(
    part: Any, place: str, *, wanted: str | None, holding: Sequence[str], usual: Sequence[str], what: str
) -> str:
    """The wanted column, else a usual name among those that hold such things, else the only one that does, else a usual name."""
    columns = list(part.column_names)
    listed = f"its columns are {', '.join(map(repr, columns))}"
    if wanted is not None:
        if wanted in columns:
            return wanted
        near = difflib.get_close_matches(wanted, columns, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"--{what}-column is {wanted!r}, which {place} does not have; {listed}.{hint}")
    found = [name for name in usual if name in holding] or list(holding)
    found = found or [name for name in usual if name in columns]
    if not found:
        raise UserError(f"{place} has no column {what!r}; {listed}. Name it with --{what}-column.")
    if len(found) > 1 and found[0] not in usual:
        raise UserError(f"{place} has several {what} columns ({', '.join(found)}). Choose one with --{what}-column.")
    return found[0]


def _datasets(what: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{what} needs the package datasets, which is not installed: pip install datasets") from error
    datasets.utils.logging.disable_progress_bar()
    return datasets


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
