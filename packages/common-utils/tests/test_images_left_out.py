"""Images that cannot be read are left out where a list takes them, the same on disk and in memory; and `labelled_images`."""

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils import image_reading
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import data_digest, labelled_images, load_images, open_images


@pytest.fixture
def photos(tmp_path):
    """Five images each of cat and dog, of which one cannot be read from its header on and one from its middle on."""
    pixels = numpy.random.default_rng(0).integers(0, 255, (10, 8, 8, 3), dtype=numpy.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / ("cat", "dog")[number % 2] / f"{number // 2}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "cat/1.png").write_bytes(b"no image")
    torn = tmp_path / "dog/3.png"
    torn.write_bytes(torn.read_bytes()[:100])
    return tmp_path


def test_images_that_cannot_be_read_join_the_list_and_the_others_stay(photos):
    unreadable = []
    train, test = load_images(str(photos), unreadable=unreadable)
    assert [image.name for image in unreadable] == ["cat/1.png", "dog/3.png"]
    assert unreadable[0].sentence.startswith(f"{photos}/cat/1.png (")
    kept = [f"cat/{number}.png" for number in (0, 2, 3, 4)] + [f"dog/{number}.png" for number in (0, 1, 2, 4)]
    assert sorted((*train.names, *test.names)) == kept
    (photos / "cat/1.png").unlink()
    (photos / "dog/3.png").unlink()
    assert data_digest(train) == data_digest(load_images(str(photos))[0])


def test_on_disk_all_are_read_through_so_that_the_same_are_left_out(photos, monkeypatch):
    monkeypatch.setattr(image_reading, "SECONDS_OF_READING_THROUGH", -1.0)
    unreadable = []
    stored = open_images(str(photos), in_memory=False, unreadable=unreadable)
    assert [image.name for image in unreadable] == ["cat/1.png", "dog/3.png"]
    kept = open_images(str(photos), in_memory=True, unreadable=[])
    for ours, theirs in zip(stored, kept, strict=True):
        assert ours.names == theirs.names
        assert torch.equal(ours.read(torch.arange(len(ours))), theirs.images)


def test_where_none_of_a_part_can_be_read_they_are_refused_all_the_same(photos):
    (photos / "train").mkdir()
    for name in ("cat", "dog"):
        (photos / name).rename(photos / "train" / name)
        (photos / "test" / name).mkdir(parents=True)
        (photos / "test" / name / "0.png").write_bytes(b"no image")
    unreadable = []
    with pytest.raises(UserError, match="4 of 12 images in"):
        load_images(str(photos), unreadable=unreadable)
    assert unreadable == []


def test_labelled_images_hold_nothing_out_and_take_few(photos):
    unreadable = []
    found, has_test_part = labelled_images(str(photos), unreadable=unreadable)
    assert (len(found), len(unreadable), has_test_part) == (8, 2, False)
    (photos / "fox").mkdir()
    Image.new("RGB", (8, 8)).save(photos / "fox/0.png")
    (photos / "owl").mkdir()
    found, _ = labelled_images(str(photos), unreadable=[])
    assert found.class_names == ("cat", "dog", "fox", "owl")
    assert torch.bincount(found.labels, minlength=4).tolist() == [4, 4, 1, 0]
    with pytest.raises(UserError, match="class 'owl' has none"):
        load_images(str(photos), unreadable=[])


def test_labelled_images_take_the_test_part_alone(photos):
    (photos / "train").mkdir()
    for name in ("cat", "dog"):
        (photos / name).rename(photos / "train" / name)
    Image.new("L", (8, 8), 9).save(photos / "test.png")
    (photos / "test/cat").mkdir(parents=True)
    (photos / "test.png").rename(photos / "test/cat/0.png")
    found, has_test_part = labelled_images(str(photos))
    assert (found.names, has_test_part, found.shape) == (("test/cat/0.png",), True, (1, 8, 8))
    (photos / "test/cat/0.png").rename(photos / "test/loose.png")
    with pytest.raises(UserError, match="no folder for each class"):
        labelled_images(str(photos))
