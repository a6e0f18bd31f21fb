"""Data of layermatch's experiments, cut to size from the files of --data, or made where a trial needs none.

Every draw comes from the seed, so that a seed fixes pool, labels, start and views of all arms alike. Images are halved by the mean
of 2x2 pixels, as in the first look that fixed these settings.
Letters   N images, H W pixels.
"""

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy
import torch

from reproduce.protocol import Recipe
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream

POOL = 20_000  # training images, the labelled ones among them
HELD_OUT = 4_000  # test or validation images
FASHION = "images/fashion_mnist.npz"
CIFAR = ("images/cifar10_train.parquet", "images/cifar10_test.parquet")


class Arrays(NamedTuple):
    """Images UInt8[N H W] (or [N H W 3]) and labels Int64[N] of both parts, and the names of the classes."""

    x_train: numpy.ndarray
    y_train: numpy.ndarray
    x_test: numpy.ndarray
    y_test: numpy.ndarray
    class_names: numpy.ndarray


def halved(images: numpy.ndarray) -> numpy.ndarray:
    """UInt8[N H/2 W/2 ...]: the rounded mean of each 2x2 pixels."""
    count, height, width, *rest = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, *rest)
    return numpy.rint(blocks.mean(axis=(2, 4))).astype(numpy.uint8)


def drawn(count: int, wanted: int, *, seed: int) -> numpy.ndarray:
    """Int64[wanted] different numbers below `count`, from the stream "split", "pool"."""
    return torch.randperm(count, generator=stream(seed, "split", "pool"))[:wanted].numpy()


def fashion(data: Path | None, seed: int, path: Path, *, validation: bool = False) -> None:
    """Fashion-MNIST at 14x14: a pool of 20,000, and the first 4,000 test images.

    With `validation`, 4,000 training images outside the pool stand in the place of the test images, which are not read.
    """
    arrays = _fashion(data)
    chosen = drawn(len(arrays.x_train), POOL + HELD_OUT, seed=seed)
    pool, other = chosen[:POOL], chosen[POOL:]
    held_out = (
        (arrays.x_train[other], arrays.y_train[other])
        if validation
        else (arrays.x_test[:HELD_OUT], arrays.y_test[:HELD_OUT])
    )
    parts = Arrays(arrays.x_train[pool], arrays.y_train[pool], *held_out, arrays.class_names)
    _save(path, parts._replace(x_train=halved(parts.x_train), x_test=halved(parts.x_test)))


def fashion_pairs(data: Path | None, seed: int, path: Path) -> None:
    """Two Fashion-MNIST images side by side, 14x28; the class is the unordered pair of their classes: 55 classes.

    The mirror image of a pair belongs to the same class. Every class is as frequent as any other; training pairs are made of
    training images, test pairs of test images.
    """
    arrays = _fashion(data)
    kinds = len(arrays.class_names)
    pairs = [(a, b) for a in range(kinds) for b in range(a, kinds)]
    generator = stream(seed, "split", "pairs")
    x_train, y_train = _pairs(arrays.x_train, arrays.y_train, pairs=pairs, count=POOL, generator=generator)
    # The test pairs are the same for all seeds.
    generator = stream(0, "split", "test pairs")
    x_test, y_test = _pairs(arrays.x_test, arrays.y_test, pairs=pairs, count=HELD_OUT, generator=generator)
    names = numpy.array([f"{arrays.class_names[a]} + {arrays.class_names[b]}" for a, b in pairs])
    _save(path, Arrays(x_train, y_train, x_test, y_test, names))


def cifar(data: Path | None, seed: int, path: Path) -> None:
    """CIFAR-10 from JPEG copies at 16x16: a pool of 20,000, and the first 4,000 test images."""
    train, test = (_parquet(_file(data, name)) for name in CIFAR)
    pool = drawn(len(train[1]), POOL, seed=seed)
    x_train = numpy.stack([_decoded(train[0][place]) for place in pool])
    x_test = numpy.stack([_decoded(content) for content in test[0][:HELD_OUT]])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    _save(
        path,
        Arrays(halved(x_train), train[1][pool], halved(x_test), test[1][:HELD_OUT], numpy.array(names)),
    )


def made(data: Path | None, seed: int, path: Path, *, side: int, classes: int, unlabelled: int = 0) -> None:
    """Made images: coloured noise around a colour of each class, two of each for training, 20 for testing; some without a label."""
    generator = stream(seed, "split", "made")
    colours = torch.randint(64, 192, (classes, 1, 1, 3), generator=generator)

    def images(labels: torch.Tensor) -> numpy.ndarray:
        noise = torch.randint(-64, 64, (len(labels), side, side, 3), generator=generator)
        return (colours[labels] + noise).to(torch.uint8).numpy()

    labels = torch.arange(classes).repeat(2)
    hidden = torch.full((unlabelled,), -1)
    y_train = torch.cat([labels, hidden])
    x_train = images(torch.cat([labels, torch.arange(unlabelled) % classes]))
    y_test = torch.arange(20) % classes
    names = numpy.array([f"made {number:03d}" for number in range(classes)])
    _save(path, Arrays(x_train, y_train.numpy(), images(y_test), y_test.numpy(), names))


PREPARED = {
    "fashion-14": Recipe(fashion),
    "fashion-14-validation": Recipe(partial(fashion, validation=True)),
    "fashion-pairs-14x28": Recipe(fashion_pairs),
    "cifar10-jpeg-16": Recipe(cifar),
    "made-cifar10": Recipe(partial(made, side=32, classes=10), every_seed=False),
    "made-cifar100": Recipe(partial(made, side=32, classes=100), every_seed=False),
    "made-svhn": Recipe(partial(made, side=32, classes=10), every_seed=False),
    "made-stl10": Recipe(partial(made, side=96, classes=10, unlabelled=20), every_seed=False),
    "made-imagenet100": Recipe(partial(made, side=224, classes=100), every_seed=False),
}


def _file(data: Path | None, name: str) -> Path:
    if data is None:
        raise UserError(f"{name} is needed; give its folder as --data.")
    return data / name


def _fashion(data: Path | None) -> Arrays:
    path = _file(data, FASHION)
    try:
        with numpy.load(path, allow_pickle=False) as file:
            return Arrays(**{name: file[name] for name in Arrays._fields})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as Fashion-MNIST ({error}).") from error


def _pairs(
    images: numpy.ndarray,
    labels: numpy.ndarray,
    *,
    pairs: list[tuple[int, int]],
    count: int,
    generator: torch.Generator,
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """UInt8[count 14 28] and Int64[count]: class after class in turn, its two images drawn, in either order."""
    members = [numpy.flatnonzero(labels == number) for number in range(1 + max(b for _, b in pairs))]
    numbers = numpy.arange(count) % len(pairs)
    uniform = torch.rand(3, count, generator=generator, dtype=torch.float64).numpy()
    sides = []
    for place in (0, 1):
        kinds = [pairs[number][place] for number in numbers]
        sides.append(
            [members[kind][int(u * len(members[kind]))] for kind, u in zip(kinds, uniform[place], strict=True)]
        )
    swapped = uniform[2] < 0.5
    left, right = (numpy.where(swapped, sides[1 - place], sides[place]) for place in (0, 1))
    small = halved(images)
    return numpy.concatenate([small[left], small[right]], axis=2), numbers


def _parquet(path: Path) -> tuple[list[bytes], numpy.ndarray]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("Reading parquet files needs pyarrow: pip install layermatch[hf]") from error
    rows = parquet.read_table(path).to_pydict()
    image = rows.get("image") or [{"bytes": content} for content in rows["bytes"]]
    return [entry["bytes"] for entry in image], numpy.array(rows["label"], dtype=numpy.int64)


def _decoded(content: bytes) -> numpy.ndarray:
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return numpy.asarray(image.convert("RGB"))


def _save(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        numpy.savez(file, **arrays._asdict())
