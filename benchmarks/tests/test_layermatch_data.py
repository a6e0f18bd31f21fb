"""What layermatch's experiments cut out of the data files."""

import numpy
import pytest

from reproduce.layermatch import data
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import load_images

NAMES = ("shirt", "shoe", "bag")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small stand-in for Fashion-MNIST whose every image is filled with 3 i, i its place, and says its class in its corner."""
    monkeypatch.setattr(data, "POOL", 12)
    monkeypatch.setattr(data, "HELD_OUT", 6)
    (tmp_path / "images").mkdir()
    arrays = {}
    for part, count in (("train", 30), ("test", 9)):
        labels = (numpy.arange(count) * 7) % 3
        images = numpy.repeat(3 * numpy.arange(count), 28 * 28).reshape(count, 28, 28).astype(numpy.uint8)
        images[:, :2, :2] = (200 + labels)[:, None, None]
        arrays |= {f"x_{part}": images, f"y_{part}": labels.astype(numpy.uint8)}
    numpy.savez(tmp_path / data.FASHION, **arrays, class_names=numpy.array(NAMES))
    return tmp_path


def made(recipe, folder, seed, tmp_path):
    path = tmp_path / f"{seed}.npz"
    data.PREPARED[recipe].make(folder, seed, path)
    with numpy.load(path) as file:
        return {name: file[name] for name in file.files}


def test_halved_is_the_rounded_mean_of_each_four_pixels():
    images = numpy.array([[[1, 2, 10, 10], [3, 5, 10, 11], [0, 0, 255, 255], [0, 1, 255, 255]]], dtype=numpy.uint8)
    assert data.halved(images).tolist() == [[[3, 10], [0, 255]]]
    colour = numpy.stack([images, images[:, ::-1]], axis=-1)
    assert data.halved(colour)[..., 1].tolist() == [[[0, 255], [3, 10]]]


def test_pool_test_and_validation_images_of_fashion(folder, tmp_path):
    plain, chosen = (made(name, folder, 5, tmp_path) for name in ("fashion-14", "fashion-14-validation"))
    assert plain["x_train"].shape == (12, 14, 14)
    assert (plain["x_train"][:, 0, 0] - 200 == plain["y_train"]).all()
    assert len(set(plain["x_train"][:, 5, 5])) == 12  # no image twice
    assert plain["x_test"][:, 5, 5].tolist() == [0, 3, 6, 9, 12, 15]  # the first of the test images
    assert (chosen["x_train"] == plain["x_train"]).all()
    assert len(chosen["x_test"]) == 6
    assert not set(chosen["x_test"][:, 5, 5]) & set(plain["x_train"][:, 5, 5])
    assert (chosen["x_test"][:, 0, 0] - 200 == chosen["y_test"]).all()
    other = made("fashion-14", folder, 6, tmp_path)
    assert other["x_train"][:, 5, 5].tolist() != plain["x_train"][:, 5, 5].tolist()
    assert (other["x_test"] == plain["x_test"]).all()


def test_pairs_are_named_after_both_images_in_either_order(folder, tmp_path):
    arrays = made("fashion-pairs-14x28", folder, 5, tmp_path)
    assert arrays["x_train"].shape == (12, 14, 28)
    assert len(arrays["class_names"]) == 6
    orders = set()
    for part in ("train", "test"):
        for image, label in zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True):
            sides = [int(image[0, 0]) - 200, int(image[0, 14]) - 200]
            orders.add(sides[0] <= sides[1])
            assert arrays["class_names"][label] == " + ".join(NAMES[side] for side in sorted(sides))
    assert orders == {True, False}
    assert numpy.bincount(arrays["y_train"]).tolist() == [2] * 6
    assert (made("fashion-pairs-14x28", folder, 6, tmp_path)["x_test"] == arrays["x_test"]).all()


@pytest.mark.parametrize(("name", "classes", "side"), [("made-cifar100", 100, 32), ("made-stl10", 10, 96)])
def test_made_images_are_read_by_the_command(tmp_path, name, classes, side):
    made(name, None, 0, tmp_path)
    training, test = load_images(str(tmp_path / "0.npz"))
    assert len(training.class_names) == classes
    assert training.images.shape[1:] == (3, side, side)
    assert len(test) == 20
    assert int((training.labels < 0).sum()) == (20 if name == "made-stl10" else 0)


def test_missing_or_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"images/fashion_mnist\.npz is needed"):
        data.PREPARED["fashion-14"].make(None, 0, tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"fashion_mnist\.npz cannot be read as Fashion-MNIST"):
        data.PREPARED["fashion-14"].make(tmp_path, 0, tmp_path / "x.npz")
    (tmp_path / "images").mkdir()
    numpy.savez(tmp_path / data.FASHION, x_train=numpy.zeros(3))
    with pytest.raises(UserError, match=r"cannot be read as Fashion-MNIST"):
        data.PREPARED["fashion-14"].make(tmp_path, 0, tmp_path / "x.npz")
