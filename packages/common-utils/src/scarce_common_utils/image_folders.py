"""Folders of images: a folder for each class, in the layouts that people have.

    cat/ dog/                          every image has a label; a test part is held out
    cat/ dog/ and loose images         the loose ones have no label; likewise in unlabelled/ beside the classes
    labelled/cat/ labelled/dog/ unlabelled/
    train/ in any of these forms, with test/ or val/ beside it; unlabelled/ may stand beside train/ too
Class folders may have folders in them. What begins with a dot is passed over. A list of classes (one folder name a line)
keeps these classes alone, in its order.
"""

import difflib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import Parts, RawSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
UNLABELLED = ("unlabelled", "unlabeled")
LABELLED = ("labelled", "labeled")
TEST = ("test", "val", "validation")
MEND = "Put the images of each class into a folder of its own in it."


def from_folder(path: Path, *, classes: Sequence[str] | None = None, whole: bool = True) -> Parts:
    """Training and test images of a folder (layouts: module docstring).

    Args:
        path: the folder.
        classes: class folders to keep, in that order; None keeps all, sorted.
        whole: refuse a class without an image.

    Raises:
        UserError: the folder is empty, holds no class, or a class without an image; what and where is named.
    """
    if not any(path.iterdir()):
        raise UserError(f"{path} is an empty folder. {MEND}")
    beside = {name: path / name for name in TEST if (path / name).is_dir()}
    train = path / "train"
    if train.is_dir():
        test = next(iter(beside.values()), None)
        unlabelled = _subfolders(path, UNLABELLED)
    else:
        # "test" may be a class like any other, unless it has other classes in it or stands beside labelled/.
        train, unlabelled = path, []
        here = {folder.name for folder in _folders(path)} - set(TEST)
        certain = bool(_subfolders(path, LABELLED))
        parts = [folder for folder in beside.values() if certain or here & {inner.name for inner in _folders(folder)}]
        test = parts[0] if parts else None
    skip = () if test is None else tuple(beside)
    training = _read_part(train, root=path, classes=classes, whole=whole, skip=skip, more_unlabelled=unlabelled)
    return training, None if test is None else _read_part(test, root=path, classes=classes, whole=whole)


def read_class_list(file: Path) -> tuple[str, ...]:
    """Class names out of a text file, one a line; empty lines and those that begin with # are passed over.

    Raises:
        UserError: the file is missing, holds no name, or one twice.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"--classes is {file}, which cannot be read ({reason}).") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if len(names) < 2:
        raise UserError(f"--classes is {file}, which names {len(names)} class; classification needs at least two.")
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise UserError(f"--classes is {file}, which names {twice!r} twice. Remove one of them.")
    return tuple(names)


def refuse_unknown_classes(wanted: Sequence[str], known: Sequence[str], *, place: str) -> None:
    """Raise a UserError that names the first wanted class that is not there, and the nearest that is."""
    missing = [name for name in wanted if name not in set(known)]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Its classes are {', '.join(known[:5])} and so on."
    raise UserError(f"--classes names {missing[0]!r}, which is no class of {place} ({len(missing)} missing). {hint}")


def images_below(path: Path) -> list[Path]:
    """Image files in the folder and the folders in it, sorted by the parts of their paths."""
    found: list[Path] = []
    for folder, inner, files in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(folder, name) for name in files if _is_image(name)]
    return sorted(found, key=lambda file: file.parts)


def _read_part(
    path: Path,
    *,
    root: Path,
    classes: Sequence[str] | None,
    whole: bool,
    skip: Collection[str] = (),
    more_unlabelled: Sequence[Path] = (),
) -> RawSet:
    outer = {folder.name: folder for folder in _folders(path) if folder.name not in skip}
    labelled = next((outer.pop(name) for name in LABELLED if name in outer), None)
    unlabelled = [outer.pop(name) for name in UNLABELLED if name in outer] + list(more_unlabelled)
    if labelled is not None:
        _refuse_strays(path, labelled, outer)
        outer = {folder.name: folder for folder in _folders(labelled)}
    loose = sorted(file for file in path.iterdir() if _is_image(file.name) and file.is_file())
    if classes is not None:
        refuse_unknown_classes(classes, list(outer), place=str(labelled or path))
        outer = {name: outer[name] for name in classes}
    found = {name: images_below(folder) for name, folder in outer.items()}
    unknown = loose + [file for folder in unlabelled for file in images_below(folder)]
    if not any(found.values()):
        if unknown:
            raise UserError(f"{path} holds images, but no folder for each class. {MEND}")
        raise UserError(f"{path} holds no image ({', '.join(SUFFIXES[:4])} and so on). {MEND}")
    empty = next((name for name in found if not found[name]), None)
    if whole and empty is not None:
        raise UserError(
            f"{outer[empty]} holds no image, so class {empty!r} has none. Add images, or remove the folder."
        )
    items = [file for files in found.values() for file in files] + unknown
    labels = [number for number, files in enumerate(found.values()) for _ in files] + [-1] * len(unknown)
    names = tuple(file.relative_to(root).as_posix() for file in items)
    return RawSet(items, labels, tuple(found), str(path), names)


def _refuse_strays(path: Path, labelled: Path, others: dict[str, Path]) -> None:
    """Beside labelled/ no other folder may hold images, and none may lie in labelled/ outside a class."""
    stray = next((folder for folder in others.values() if images_below(folder)), None)
    if stray is not None:
        raise UserError(
            f"{path} has {labelled.name}/ and beside it {stray.name}/, whose images would not be used. "
            f"Move it into {labelled.name}/, if it is a class, or elsewhere."
        )
    loose = next((file for file in sorted(labelled.iterdir()) if _is_image(file.name) and file.is_file()), None)
    if loose is not None:
        raise UserError(
            f"{loose} is in no class folder. Move it into one, or into {path / UNLABELLED[0]} if its class is not known."
        )


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _subfolders(path: Path, names: Sequence[str]) -> list[Path]:
    return [path / name for name in names if (path / name).is_dir()]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
