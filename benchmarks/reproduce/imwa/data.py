"""Data of imwa's experiments, cut to size from the files of --data, and a pre-trained start.

Fashion-MNIST is halved to 14x14 and balanced: so many training images a class, drawn by the seed, and 400 test images a class, the
first of the test part. The long tail is `imwa train`'s own (`--imbalance`), which also draws which class is rare.
Letters   N images, H W pixels.
"""

from functools import partial
from pathlib import Path

import numpy
import torch

from imwa.commands import main as imwa
from reproduce.layermatch.data import CIFAR, FASHION, Arrays, cifar, halved, made
from reproduce.protocol import Recipe
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream

TEST_A_CLASS = 400
PRETRAINING = ("--steps", "1500", "--batch-size", "64", "--model", "small", "--threads", "1", "--device", "cpu")


def fashion(data: Path | None, seed: int, path: Path, *, a_class: int) -> None:
    """Fashion-MNIST at 14x14: `a_class` training images and 400 test images of each class, as npz."""
    if data is None:
        raise UserError(f"{FASHION} is needed; give its folder as --data.")
    try:
        with numpy.load(data / FASHION, allow_pickle=False) as file:
            arrays = Arrays(**{name: file[name] for name in Arrays._fields})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{data / FASHION} cannot be read as Fashion-MNIST ({error}).") from error
    order = torch.randperm(len(arrays.y_train), generator=stream(seed, "split", "pool")).numpy()
    training = _first_of_each(arrays.y_train, order, a_class)
    test = _first_of_each(arrays.y_test, numpy.arange(len(arrays.y_test)), TEST_A_CLASS)
    cut = arrays._replace(
        x_train=halved(arrays.x_train[training]),
        y_train=arrays.y_train[training],
        x_test=halved(arrays.x_test[test]),
        y_test=arrays.y_test[test],
    )
    with path.open("wb") as file:
        numpy.savez(file, **cut._asdict())


def pretrained_fashion(data: Path | None, seed: int, path: Path, *, a_class: int) -> None:
    """A folder: `images.npz` as `fashion`, and `model.safetensors`, the small net trained on grey CIFAR-10 at 14x14 (JPEG copies)."""
    path.mkdir(parents=True)
    fashion(data, seed, path / "images.npz", a_class=a_class)
    cifar(data, seed, path / "colour.npz")
    with numpy.load(path / "colour.npz", allow_pickle=False) as file:
        arrays = Arrays(**{name: file[name] for name in Arrays._fields})
    (path / "colour.npz").unlink()
    grey = arrays._replace(x_train=_grey(arrays.x_train), x_test=_grey(arrays.x_test))
    numpy.savez(path / "grey.npz", **grey._asdict())
    words = ["train", str(path / "grey.npz"), "--method", "single", *PRETRAINING]
    if imwa([*words, "--seed", str(seed), "--out", str(path / "pretraining")]) != 0:
        raise UserError(f"The pre-training for {path} failed.")
    (path / "pretraining" / "model" / "model.safetensors").replace(path / "model.safetensors")


def _first_of_each(labels: numpy.ndarray, order: numpy.ndarray, count: int) -> numpy.ndarray:
    """Places of the first `count` of each class in the given order, class by class."""
    return numpy.concatenate([order[labels[order] == number][:count] for number in range(int(labels.max()) + 1)])


def _grey(images: numpy.ndarray) -> numpy.ndarray:
    """UInt8[N 16 16 3] -> UInt8[N 14 14]: the mean of the channels without the outermost pixels."""
    return numpy.rint(images[:, 1:-1, 1:-1].mean(axis=3)).astype(numpy.uint8)


FILES_OF_FASHION = (FASHION,)
FILES_OF_PRETRAINING = (FASHION, *CIFAR)
PREPARED = {
    "fashion-14-1000-a-class": Recipe(partial(fashion, a_class=1000)),
    "fashion-14-250-a-class": Recipe(partial(fashion, a_class=250)),
    "fashion-14-pretrained": Recipe(partial(pretrained_fashion, a_class=1000), suffix=""),
    "made-cifar10": Recipe(partial(made, side=32, classes=10), every_seed=False),
    "made-cifar100": Recipe(partial(made, side=32, classes=100), every_seed=False),
    "made-imagenet": Recipe(partial(made, side=64, classes=20), every_seed=False),
}
