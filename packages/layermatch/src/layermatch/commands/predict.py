"""`layermatch predict RUN IMAGES...`: the classes of new images, as CSV."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from layermatch.commands.notices import images, left_out
from layermatch.commands.options import PredictConfig
from layermatch.commands.trained import Trained, load_trained
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_decoding import attempt_all, decode, fit
from scarce_common_utils.image_folders import images_below
from scarce_common_utils.image_sets import first_line
from scarce_common_utils.images import Unreadable
from scarce_common_utils.run_folder import to_stderr

STANDARD = Path("-")  # standard input, or output
IMAGES_AT_ONCE = 256
BAD_SHOWN = 10


def predict(config: PredictConfig) -> dict[str, Any]:
    """Say which class each image belongs to, and with which confidence, by a trained run."""
    if len(config.words) < 2:
        raise UserError("Give a run folder and then images: layermatch predict RUN IMAGES...")
    trained = load_trained(Path(config.words[0]), device=config.device)
    if config.top > len(trained.class_names):
        raise UserError(f"--top is {config.top}, and the model knows {len(trained.class_names)} classes.")
    files, probabilities, bad = predict_files(trained, find_images(config.words[1:]), skip=config.skip_unreadable)
    rows = likeliest(files, probabilities, trained.class_names, top=config.top)
    text = as_csv(rows, top=config.top)
    if bad:
        to_stderr(f"layermatch: {left_out(bad)}")
    if config.output in (None, STANDARD):
        print(text, end="")
    else:
        write_atomically(config.output, text.encode())
        to_stderr(f"layermatch: {images(len(files))}, {config.output}")
    predictions = [
        {"path": row.file, "classes": [{"class": name, "confidence": value} for name, value in row.classes]}
        for row in rows
    ]
    return {"predictions": predictions, "left_out": [image.name for image in bad]}


def find_images(names: Sequence[str]) -> list[Path]:
    """The files named, and those below the folders named, each once and in that order; `-` stands for names on standard input.

    Raises:
        UserError: a name is neither file nor folder, a folder holds no image, or standard input no name.
    """
    files: list[Path] = []
    asked = [found for name in names for found in (listed() if Path(name) == STANDARD else [name])]
    for name in asked:
        path = Path(name)
        if not path.exists():
            raise UserError(f"{name} is neither a file nor a folder.")
        found = images_below(path) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{name} holds no image.")
        files += found
    return list(dict.fromkeys(files))


def listed() -> list[str]:
    """Paths on standard input, one a line."""
    found = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        raise UserError("IMAGES is -, and standard input is empty. Give paths there, one a line.")
    return found


def predict_files(
    trained: Trained, files: Sequence[Path], *, skip: bool = False
) -> tuple[list[Path], Tensor, list[Unreadable]]:
    """The N files that were read, Float32[N K], the probabilities of their classes, and the files that were left out.

    Raises:
        UserError: some files cannot be read, or do not fit the model, and `skip` is False or these are all; the first are
            listed, and nothing was written.
    """
    bad: list[Unreadable] = []
    found: list[Tensor] = []
    kept: list[Path] = []
    for start in range(0, len(files), IMAGES_AT_ONCE):
        part = files[start : start + IMAGES_AT_ONCE]
        pixels = []
        for index, image in attempt_all(part, lambda file: read(file, trained.shape)):
            if isinstance(image, Exception):
                bad.append(Unreadable(str(part[index]), f"{part[index]} ({first_line(image)})"))
            else:
                pixels.append(image)
                kept.append(part[index])
        if pixels and (skip or not bad):
            found.append(trained.probabilities(torch.stack(pixels)))
    if bad and not (skip and kept):
        more = f", and {len(bad) - BAD_SHOWN} more" if len(bad) > BAD_SHOWN else ""
        told = "; ".join(image.sentence for image in bad[:BAD_SHOWN])
        mend = "" if skip else ", or --skip-unreadable"
        raise UserError(
            f"{len(bad)} of {len(files)} images cannot be used: {told}{more}. Mend or leave them out{mend}."
        )
    return kept, torch.cat(found), bad


def read(file: Path, shape: tuple[int, int, int]) -> Tensor:
    """UInt8[C H W], brought to the size that the model was trained on as training brings its own.

    Raises:
        ValueError: it is in colour and the model was trained on grey images.
    """
    array = decode(file)
    if shape[0] == 1 and array.ndim == 3:
        if (array != array[:, :, :1]).any():
            raise ValueError("in colour, and the model was trained on grey images")
        array = array[:, :, 0]
    return torch.from_numpy(fit(array, shape=shape))


class Prediction(NamedTuple):
    """A `file` and its likeliest `classes`, each with its confidence, the likeliest first."""

    file: Path
    classes: list[tuple[str, float]]


def likeliest(
    files: Sequence[Path], probabilities: Tensor, class_names: tuple[str, ...], *, top: int
) -> list[Prediction]:
    """The `top` classes of each file, of probabilities Float32[N K]."""
    confidences, classes = probabilities.topk(top, dim=1)
    pairs = zip(files, confidences.tolist(), classes.tolist(), strict=True)
    return [
        Prediction(file, [(class_names[number], value) for number, value in zip(numbers, values, strict=True)])
        for file, values, numbers in pairs
    ]


def as_csv(rows: Sequence[Prediction], *, top: int) -> str:
    """Lines path, class, confidence, and class_2, confidence_2 and so on, with a head line."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    more = [f"{name}_{place}" for place in range(2, top + 1) for name in ("class", "confidence")]
    lines.writerow(["path", "class", "confidence", *more])
    for file, classes in rows:
        lines.writerow([file, *(cell for name, value in classes for cell in (name, f"{value:.4f}"))])
    return text.getvalue()
