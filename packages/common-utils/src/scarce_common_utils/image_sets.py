"""Sets of images: in memory as one uint8 tensor, or on disk and decoded when asked for.

Letters   N images, n of them, C channels (1 where every image is grey, else 3), H W pixels, K classes.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_decoding import decode, fit, read_items
from scarce_common_utils.streams import stream

IMAGES_IN_DIGEST = 64
STATISTICS_BYTES = 2**28  # all of CIFAR or Fashion-MNIST, 1,783 images of 224x224


@dataclass(frozen=True)
class ImageSet:
    """Images in memory.

    Attributes:
        images: UInt8[N C H W], on the CPU.
        labels: Int64[N], on the CPU; -1 where an image has no label.
        class_names: K names, sorted as the data have them.
        place: where they come from, for messages.
        mirrored: whether an image and its mirror image belong to the same class.
        names: N names: a file's path relative to the data folder, else the image's number in its part of the data.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    place: str
    mirrored: bool = True
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, indices: Tensor) -> "ImageSet":
        """The images at `indices`, Int64, in that order."""
        names = _taken(self.names, indices)
        return replace(self, images=self.images[indices], labels=self.labels[indices], names=names)

    def read(self, indices: Tensor) -> Tensor:
        """UInt8[n C H W], the pixels at `indices`, Int64[n]."""
        return self.images[indices]


@dataclass(frozen=True)
class StoredImages:
    """Images that are decoded when asked for; it can be sent to another process.

    Attributes:
        items: of the source, see `RawSet`.
        numbers: Int64[N], the places in `items`.
        shape: C, H, W, to which each is brought.
        labels, class_names, place, mirrored, names: as in `ImageSet`.
    """

    items: Any
    numbers: Tensor
    shape: tuple[int, int, int]
    labels: Tensor
    class_names: tuple[str, ...]
    place: str
    mirrored: bool = True
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, indices: Tensor) -> "StoredImages":
        """The images at `indices`, Int64, in that order; nothing is decoded."""
        names = _taken(self.names, indices)
        return replace(self, numbers=self.numbers[indices], labels=self.labels[indices], names=names)

    def read(self, indices: Tensor) -> Tensor:
        """UInt8[n C H W], the pixels at `indices`, Int64[n], decoded here and now.

        Raises:
            UserError: an image cannot be decoded; it is named.
        """
        different, back = indices.unique(return_inverse=True)
        numbers = self.numbers[different].tolist()
        pixels = torch.empty((len(numbers), *self.shape), dtype=torch.uint8)
        for row, item in enumerate(read_items(self.items, numbers)):
            try:
                pixels[row] = torch.from_numpy(fit(decode(item), shape=self.shape))
            except Exception as error:  # a decoder raises what it likes; the person needs the file
                raise UserError(
                    f"{item_name(item, self.names[int(different[row])], place=self.place)} cannot be read any more ({first_line(error)}). "
                    "Mend or replace it, then go on with --resume."
                ) from error
        return pixels[back]


AnyImages = ImageSet | StoredImages
SomeImages = TypeVar("SomeImages", ImageSet, StoredImages)


def data_digest(images: AnyImages) -> str:
    """SHA-256 over class names, names, labels, shape, and the pixels of 64 images spread evenly over all.

    The same for images in memory and on disk. It sees files that came, went or were renamed, other labels, another size
    and another decoding; a single image that was painted over among many it may not see.
    """
    digest = hashlib.sha256(repr((images.class_names, images.names, images.shape)).encode())
    digest.update(images.labels.numpy().tobytes())
    digest.update(some_images(images, IMAGES_IN_DIGEST).contiguous().numpy().tobytes())
    return digest.hexdigest()


def some_images(images: AnyImages, count: int) -> Tensor:
    """UInt8[min(count, N) C H W], images spread evenly over all, for a look or for statistics."""
    count = min(count, len(images))
    return images.read(torch.arange(count) * len(images) // max(count, 1))


def images_for_statistics(images: AnyImages) -> Tensor:
    """UInt8[n C H W]: all images where they take at most a quarter of a GiB, else as many, spread evenly over all.

    The same for images in memory and on disk, so that a mean over them is too.
    """
    channels, height, width = images.shape
    if isinstance(images, ImageSet) and images.images.numel() <= STATISTICS_BYTES:
        return images.images
    return some_images(images, max(1, STATISTICS_BYTES // (channels * height * width)))


def hold_out(images: SomeImages, *, share: float, seed: int) -> tuple[SomeImages, SomeImages]:
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


def count_by_class(labels: Tensor, classes: int) -> list[int]:
    """How many of each class, K integers; images without a label are not counted."""
    return torch.bincount(labels[labels >= 0], minlength=classes).tolist()


def item_name(item: Any, name: str, *, place: str) -> str:
    """What a message calls an image: its path, else its number and where it is."""
    if isinstance(item, dict) and item.get("bytes") is None:
        item = Path(item["path"]) if item.get("path") else None
    return str(item) if isinstance(item, str | Path) else f"image {name} of {place}"


def first_line(error: Exception) -> str:
    """Of an exception's message, at most 80 characters, without a full stop; its kind where it has none."""
    return str(error).splitlines()[0][:80].rstrip(".") if str(error) else type(error).__name__


def _taken(names: tuple[str, ...], indices: Tensor) -> tuple[str, ...]:
    return tuple(names[index] for index in indices.tolist()) if names else ()
