"""`layermatch evaluate RUN DATA`: how often a trained run is right on labelled images, class by class."""

import json
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layermatch.commands.notices import left_out
from layermatch.commands.options import EvaluateConfig
from layermatch.commands.trained import Trained, load_trained
from layermatch.training.evaluation import IMAGES_AT_ONCE, Evaluation
from layermatch.training.evaluation import evaluate as evaluate_model
from layermatch.training.report import draw_confusion
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.images import ImageSet, Unreadable, data_digest, data_name, labelled_images, load_images
from scarce_common_utils.options import ImageDataOptions
from scarce_common_utils.provenance import stamp, tell_data
from scarce_common_utils.run_folder import RunFolder, refuse_used_folder, to_stderr

WORST = 20
COLUMNS = ("class", "images", "right %", "mostly taken for")


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Test a trained run on labelled images: accuracy, a table of the classes, a confusion matrix."""
    if len(config.words) != 2:
        raise UserError("Give a run folder and data: layermatch evaluate RUN DATA")
    if config.out is not None:
        refuse_used_folder(config.out)
    trained = load_trained(Path(config.words[0]), device=config.device)
    images, what, unreadable = find_images(trained, config)
    found = evaluate_model(
        trained.model,
        zip(images.images.split(IMAGES_AT_ONCE), images.labels.split(IMAGES_AT_ONCE), strict=True),
        classes=len(trained.class_names),
        constants=trained.constants,
        channels=trained.channels,
        autocast=nullcontext(),
    )
    rows = class_rows(found.confusion, trained.class_names)
    folder = new_folder(trained.run / "evaluations", data_name(config.words[1])) if config.out is None else config.out
    tell_data(data_digest(images)[:16])
    numbers = as_json(found, rows, data=data_name(config.words[1]), what=what, skipped=len(unreadable)) | stamp()
    write(folder, found, table(COLUMNS, rows), trained=trained, what=what, numbers=numbers)
    if unreadable:
        to_stderr(f"layermatch: {left_out(unreadable)}")
    print_classes(rows, folder)
    print(f"accuracy: {found.accuracy:.2f} % of {what}\nWritten: {folder}")
    return numbers | {"written": folder}


def find_images(trained: Trained, config: EvaluateConfig) -> tuple[ImageSet, str, list[Unreadable]]:
    """The labelled images to test on, their labels numbered as the model's classes are; what they are in words; those left out.

    That is the test part of DATA; where it has none, all of its labelled images. Of the data that the run was trained
    on it is what the run held out.

    Raises:
        UserError: the images have another number of channels or other classes than the model knows; they are named. Or
            the run's own data have changed.
    """
    data = config.words[1]
    options = trained_with(trained)
    own = bool({data, str(Path(data).resolve())} & {options.get("data")})
    channels, height, width = trained.shape
    skip = config.skip_unreadable or (own and options.get("skip_unreadable", False))
    unreadable: list[Unreadable] = []
    reading: dict[str, Any] = {
        "image_size": height if height == width else None,
        "download": config.download,
        "data_folder": config.data_folder,
        "unreadable": unreadable if skip else None,
    }
    if own:
        images = held_out(trained, options, reading)
        what = f"{len(images)} images that the run held out"
    else:
        images, parted = labelled_images(data, **reading)
        what = f"{len(images)} test images" if parted else f"all {len(images)} labelled images"
    if trained.shape[0] == 1 and images.shape[0] == 3 and bool((images.images == images.images[:, :1]).all()):
        # Grey pictures saved in colour, as `predict` takes them.
        images = ImageSet(images.images[:, :1], images.labels, images.class_names, images.place)
    if images.shape != trained.shape and (images.shape[0] != 1 or images.shape[1:] != trained.shape[1:]):
        raise UserError(
            f"The images of {images.place} are {words(images.shape)}, and the model was trained on {words(trained.shape)}. "
            "Give images of the same kind."
        )
    strange = [name for name in images.class_names if name not in trained.class_names]
    if strange:
        raise UserError(
            f"{images.place} has the class {strange[0]!r}, which the model does not know ({len(strange)} such). "
            f"It knows {', '.join(trained.class_names[:10])}{' and so on' if len(trained.class_names) > 10 else ''}."
        )
    numbers = torch.tensor([trained.class_names.index(name) for name in images.class_names])
    pixels = images.images.expand(-1, channels, -1, -1)
    return ImageSet(pixels, numbers[images.labels], trained.class_names, images.place), what, unreadable


def trained_with(trained: Trained) -> dict[str, Any]:
    """Options of the run; none where its model was taken elsewhere."""
    if not (trained.run / "model/model.safetensors").is_file():
        return {}
    return RunFolder.reopen(trained.run, package="layermatch", command="train").config


def held_out(trained: Trained, options: dict[str, Any], reading: dict[str, Any]) -> ImageSet:
    """The test part of the run's own data, as `layermatch train` made it.

    Raises:
        UserError: it is not what the run had.
    """
    stored = {field.name for field in fields(ImageDataOptions)} & options.keys()
    chosen = ImageDataOptions(**{name: options[name] for name in stored - {"classes"}})
    if options.get("classes") is not None:
        chosen = replace(chosen, classes=Path(options["classes"]))
    _, images = load_images(
        chosen.data,
        test_share=chosen.test_share,
        seed=options["seed"],
        selection=chosen.selection(unlabelled=True),
        **reading,
    )
    file = trained.run / "split.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("test_sha256") != data_digest(images):
        raise UserError(
            f"{chosen.data} is what the run was trained on, and its images are no longer those that {file} was made from, so "
            "that trained ones may be among the test. Bring them back to what they were, or put test images into a folder of "
            "their own."
        )
    return images


def words(shape: tuple[int, int, int]) -> str:
    """A shape (C, H, W) as a person says it."""
    return f"{'grey' if shape[0] == 1 else 'in colour'}, {shape[1]}x{shape[2]}"


def class_rows(confusion: Tensor, class_names: tuple[str, ...]) -> list[list[str | int | float | None]]:
    """Name, images, accuracy in percent, and the commonest error, for each class."""
    rows: list[list[str | int | float | None]] = []
    for number, (name, counts) in enumerate(zip(class_names, confusion.tolist(), strict=True)):
        images, right = sum(counts), counts[number]
        wrong = [0 if other == number else count for other, count in enumerate(counts)]
        taken = f"{class_names[wrong.index(max(wrong))]} ({max(wrong)})" if max(wrong) else None
        rows.append([name, images, 100.0 * right / images if images else None, taken])
    return rows


def print_classes(rows: list[list[str | int | float | None]], folder: Path) -> None:
    """The table, of many classes the worst, and which of them no image belongs to."""
    print(table(COLUMNS, rows if len(rows) <= WORST else worst(rows)))
    if len(rows) > WORST:
        print(f"The {WORST} classes with the most errors; all {len(rows)} are in {folder / 'classes.txt'}.")
    missing = [str(name) for name, images, *_ in rows if not images]
    if missing:
        print(f"n/a (-): no image of {', '.join(missing[:WORST])}{' and so on' if len(missing) > WORST else ''}.")


def worst(rows: list[list[str | int | float | None]]) -> list[list[str | int | float | None]]:
    """The rows with the lowest accuracy, the lowest first."""
    return sorted(rows, key=lambda row: 101.0 if row[2] is None else float(row[2]))[:WORST]


def new_folder(parent: Path, name: str) -> Path:
    """A folder that is not there yet: the name, or with -2, -3 and so on behind it."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def as_json(
    found: Evaluation, rows: list[list[str | int | float | None]], *, data: str, what: str, skipped: int
) -> dict[str, Any]:
    """The numbers as JSON values: of a class without an image `right` is null."""
    return {
        "data": data,
        "tested_on": what,
        "numbers": {"accuracy": found.accuracy, "images": int(found.confusion.sum()), "images_left_out": skipped},
        "units": {"accuracy": "%", "right": "% of the class"},
        "classes": [{"class": name, "images": images, "right": right} for name, images, right, _ in rows],
        "confusion": found.confusion.tolist(),
    }


def write(folder: Path, found: Evaluation, text: str, *, trained: Trained, what: str, numbers: dict[str, Any]) -> None:
    """Write table, numbers and figure into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    head = f"accuracy: {found.accuracy:.2f} % of {what}\n\n"
    write_atomically(folder / "classes.txt", (head + text + "\n").encode())
    write_atomically(folder / "result.json", (json.dumps(numbers, indent=1) + "\n").encode())
    draw_confusion(folder / "confusion.png", found.confusion, title=trained.run.name, class_names=trained.class_names)
