"""`layermatch evaluate RUN DATA`: how often a trained run is right on labelled images, class by class."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from layermatch.commands.trained import Trained, load_trained
from layermatch.training.evaluation import IMAGES_AT_ONCE, Evaluation
from layermatch.training.evaluation import evaluate as evaluate_model
from layermatch.training.report import draw_confusion
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Operands, Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.images import ImageSet, data_name, load_images
from scarce_common_utils.run_folder import RunFolder

WORST = 20


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `layermatch evaluate`."""

    words: Annotated[
        tuple[str, ...], Operands("RUN DATA", "A finished run's folder, then data as in `layermatch train`")
    ] = ()
    out: Annotated[
        Path | None, Option("New folder for table and figure; by default one in the run's `evaluations`")
    ] = None
    download: Annotated[bool, Option("Let torchvision:NAME fetch its files")] = True
    data_folder: Annotated[Path, Option("Where torchvision:NAME keeps its files")] = Path("data")
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    given: frozenset[str] = frozenset()


def evaluate(config: EvaluateConfig) -> None:
    """Test a trained run on labelled images: accuracy, a table of the classes, a confusion matrix."""
    if len(config.words) != 2:
        raise UserError("Give a run folder and data: layermatch evaluate RUN DATA")
    trained = load_trained(Path(config.words[0]), device=config.device)
    images, what = find_images(trained, config)
    found = evaluate_model(
        trained.model,
        zip(images.images.split(IMAGES_AT_ONCE), images.labels.split(IMAGES_AT_ONCE), strict=True),
        classes=len(trained.class_names),
        constants=trained.constants,
        channels=trained.channels,
        autocast=nullcontext(),
    )
    rows = class_rows(found.confusion, trained.class_names)
    text = table(["class", "images", "right %", "mostly taken for"], rows)
    folder = new_folder(trained.run / "evaluations", data_name(config.words[1])) if config.out is None else config.out
    write(folder, found, text, trained=trained, what=what)
    print(text if len(rows) <= WORST else table(["class", "images", "right %", "mostly taken for"], worst(rows)))
    if len(rows) > WORST:
        print(f"The {WORST} classes with the most errors; all {len(rows)} are in {folder / 'classes.txt'}.")
    print(f"accuracy: {found.accuracy:.2f} % of {what}\nWritten: {folder}")


def find_images(trained: Trained, config: EvaluateConfig) -> tuple[ImageSet, str]:
    """The labelled images to test on, their labels numbered as the model's classes are, and what they are in words.

    That is the test part of DATA; where it has none, all of its labelled images. Of the data that the run was trained
    on it is what the run held out.

    Raises:
        UserError: the images have another number of channels or other classes than the model knows; they are named.
    """
    data = config.words[1]
    options = RunFolder.reopen(trained.run, package="layermatch", command="train").config
    own = {data, str(Path(data).resolve())} & {options["data"]}
    channels, height, width = trained.shape
    first, second = load_images(
        data,
        image_size=height if height == width else None,
        test_share=options["test_share"],
        seed=options["seed"],
        download=config.download,
        data_folder=config.data_folder,
    )
    images, what = second, f"{len(second)} test images"
    if own:
        what = f"{len(second)} images that the run held out"
    elif first.place == second.place:  # a part was held out of one set; here nothing is trained, so all of it counts
        known = first.take((first.labels >= 0).nonzero().flatten())
        images = ImageSet(
            torch.cat([known.images, second.images]),
            torch.cat([known.labels, second.labels]),
            second.class_names,
            second.place,
        )
        what = f"all {len(images)} labelled images"
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
    return ImageSet(pixels, numbers[images.labels], trained.class_names, images.place), what


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


def write(folder: Path, found: Evaluation, text: str, *, trained: Trained, what: str) -> None:
    """Write the table and the figure into a new folder.

    Raises:
        UserError: the folder holds something already.
    """
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"--out is {folder}, which already holds files. Name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    head = f"accuracy: {found.accuracy:.2f} % of {what}\n\n"
    write_atomically(folder / "classes.txt", (head + text + "\n").encode())
    draw_confusion(folder / "confusion.png", found.confusion, title=trained.run.name, class_names=trained.class_names)
