"""Images with boxes from a folder in COCO's format, or from one tar of it, which is read where it lies.

Layouts   `annotations/<split>.json` with `images/<split>/`, or COCO's own `annotations/instances_train2017.json` with
          `train2017/`. Boxes are x, y, width, height in pixels of the stored image; crowds and empty boxes are left out.
Letters   n boxes of an image, K classes, H W pixels.
"""

import io
import json
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from scarce_common_utils.errors import UserError

SPLIT_NAMES = {
    "train": ("train", "instances_train2017", "instances_train2014"),
    "val": ("val", "instances_val2017", "instances_val2014"),
    "test": ("test",),
}
IMAGE_FOLDERS = {"train": ("train2017", "train2014"), "val": ("val2017", "val2014"), "test": ()}
KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # no PostScript, which Pillow gives to a program
LARGEST_IMAGE = 50_000_000  # pixels; more is refused before it is decoded


class Archive:
    """A folder, or a tar read without unpacking: the bytes of a file by its name inside.

    Args:
        path: a folder, or an uncompressed tar file.

    Raises:
        UserError: it is neither; it is named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, tuple[int, int]] | None = None
        if path.is_dir():
            return
        if not path.is_file():
            raise UserError(f"--data is {path}, which does not exist. Give a folder in COCO's format, or a tar of it.")
        try:
            with tarfile.open(path, "r:") as tar:
                self._members = {
                    member.name.removeprefix("./"): (member.offset_data, member.size)
                    for member in tar
                    if member.isreg() and not member.issparse()  # of a sparse one the bytes lie elsewhere
                }
        except tarfile.TarError as error:
            raise UserError(
                f"{path} cannot be read as an uncompressed tar ({error}). Unpack it, or make it anew."
            ) from error

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / name).is_file() if self._members is None else name in self._members

    def read(self, name: str) -> bytes:
        """The file's bytes."""
        if self._members is None:
            return (self.path / name).read_bytes()
        place, size = self._members[name]
        with self.path.open("rb") as file:
            file.seek(place)
            return file.read(size)


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Images of one split and their boxes.

    Attributes:
        archive: where the images are.
        names: of the image files, inside the archive.
        boxes: for each image Float32[n 4]: left, top, right, bottom in pixels.
        labels: for each image Int64[n] in 1..K; 0 is background.
        class_names: K names, in the order of COCO's category ids.
        left_out: boxes that were crowds or empty.
    """

    archive: Archive
    names: tuple[str, ...]
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    class_names: tuple[str, ...]
    left_out: int

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """UInt8[3 H W].

        Raises:
            UserError: the file is no image, or of an absurd size; it is named.
        """
        name = self.names[index]
        try:
            with Image.open(io.BytesIO(self.archive.read(name)), formats=KINDS) as picture:
                if picture.width * picture.height > LARGEST_IMAGE:
                    raise UserError(
                        f"{name} in {self.archive.path} has {picture.width}x{picture.height} pixels, too many."
                    )
                return pil_to_tensor(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{name} in {self.archive.path} cannot be decoded ({error}).") from error


def read_split(archive: Archive, split: str) -> Boxes:
    """One split of the archive.

    Args:
        archive: in COCO's format.
        split: train, val or test.

    Raises:
        UserError: the annotations are missing, no COCO JSON, or speak of images that are not there; named.
    """
    place = next(
        (f"annotations/{name}.json" for name in SPLIT_NAMES[split] if archive.has(f"annotations/{name}.json")), None
    )
    if place is None:
        wanted = " or ".join(f"annotations/{name}.json" for name in SPLIT_NAMES[split])
        raise UserError(f"{archive.path} has no {wanted}. Give a folder in COCO's format, or a tar of it.")
    try:
        content = json.loads(archive.read(place))
        categories = sorted(content["categories"], key=lambda category: category["id"])
        numbers = {category["id"]: number + 1 for number, category in enumerate(categories)}
        found, left_out = _boxes_by_image(content["annotations"], numbers)
        images = [(image["id"], _file_of(archive, split, image["file_name"])) for image in content["images"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{place} in {archive.path} is no COCO annotation file ({error!r}).") from error
    empty = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    pairs = [found.get(number, empty) for number, _ in images]
    return Boxes(
        archive=archive,
        names=tuple(name for _, name in images),
        boxes=tuple(boxes for boxes, _ in pairs),
        labels=tuple(labels for _, labels in pairs),
        class_names=tuple(str(category["name"]) for category in categories),
        left_out=left_out,
    )


def labelled_part(data: Boxes, percent: float, *, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Indices of the labelled and of the unlabelled images.

    The labelled ones are int(percent / 100 x images with a box), drawn without replacement among these; all others, without
    their boxes, are unlabelled (Unbiased Teacher's counts on COCO).

    Raises:
        UserError: that leaves no labelled or no unlabelled image; the numbers are named.
    """
    with_boxes = [index for index in range(len(data)) if len(data.boxes[index])]
    count = int(percent / 100.0 * len(with_boxes))
    if not 0 < count < len(data):
        raise UserError(
            f"--percent is {percent:g}: of {len(with_boxes)} images with a box that leaves {count} labelled and "
            f"{len(data) - count} unlabelled. Choose a share that leaves some of both."
        )
    drawn = torch.randperm(len(with_boxes), generator=generator)[:count].tolist()
    labelled = sorted(with_boxes[place] for place in drawn)
    rest = set(range(len(data))) - set(labelled)
    return labelled, sorted(rest)


def _boxes_by_image(
    annotations: list[dict[str, Any]], numbers: dict[int, int]
) -> tuple[dict[int, tuple[Tensor, Tensor]], int]:
    rows: dict[int, list[tuple[list[float], int]]] = defaultdict(list)
    left_out = 0
    for annotation in annotations:
        x, y, width, height = (float(value) for value in annotation["bbox"])
        if annotation.get("iscrowd") or not (width > 0 and height > 0):
            left_out += 1
        else:
            rows[annotation["image_id"]].append(([x, y, x + width, y + height], numbers[annotation["category_id"]]))
    found = {
        image: (torch.tensor([box for box, _ in pairs]), torch.tensor([number for _, number in pairs]))
        for image, pairs in rows.items()
    }
    return found, left_out


def _file_of(archive: Archive, split: str, name: str) -> str:
    tried = [f"images/{split}/{name}", *(f"{folder}/{name}" for folder in IMAGE_FOLDERS[split]), f"images/{name}", name]
    for place in tried:
        if ".." not in Path(place).parts and archive.has(place):
            return place
    raise UserError(f"{archive.path} has annotations for {name}, and no such image under images/{split}/.")
