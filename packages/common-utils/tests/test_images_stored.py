"""Images on disk against images in memory: the same parts, names, pixels and digest; which is chosen; what is seen when."""

import pickle

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils import image_reading, image_sets
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import (
    ImageSet,
    StoredImages,
    data_digest,
    images_for_statistics,
    load_images,
    open_images,
    some_images,
)


@pytest.fixture
def photos(tmp_path):
    """Two classes of twelve, of differing sizes, forms and kinds, and three images without a label."""
    rng = numpy.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (20 + number, 40 - number, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    for number in range(3):
        Image.new("L", (9, 9), number).save(tmp_path / f"loose-{number}.png")
    return tmp_path


@pytest.mark.parametrize("image_size", [None, 12])
def test_on_disk_and_in_memory_agree_to_the_bit(photos, image_size):
    memory = open_images(str(photos), image_size=image_size, seed=3)
    disk = open_images(str(photos), image_size=image_size, seed=3, in_memory=False)
    for kept, stored in zip(memory, disk, strict=True):
        assert isinstance(kept, ImageSet)
        assert isinstance(stored, StoredImages)
        assert stored.shape == kept.shape == (3, *[image_size or 64] * 2)
        assert (stored.names, stored.class_names, stored.mirrored) == (kept.names, kept.class_names, kept.mirrored)
        assert torch.equal(stored.labels, kept.labels)
        assert torch.equal(stored.read(torch.arange(len(stored))), kept.images)
        places = torch.tensor([3, 0, 3, 1])
        assert torch.equal(stored.read(places), kept.read(places))
        assert torch.equal(stored.take(places).read(torch.arange(4)), kept.take(places).images)
        assert stored.take(places).names == kept.take(places).names
        assert data_digest(stored) == data_digest(kept)
        assert torch.equal(some_images(stored, 5), some_images(kept, 5))
        assert torch.equal(images_for_statistics(stored), images_for_statistics(kept))
        again = pickle.loads(pickle.dumps(stored))
        assert torch.equal(again.read(places), kept.read(places))
    for kept, loaded in zip(memory, load_images(str(photos), image_size=image_size, seed=3), strict=True):
        assert isinstance(kept, ImageSet)
        assert torch.equal(kept.images, loaded.images)


def test_the_budget_decides_and_can_be_overruled(photos, monkeypatch):
    assert isinstance(open_images(str(photos), image_size=8)[0], ImageSet)
    monkeypatch.setattr(image_reading, "MEMORY_BUDGET", 27 * 3 * 8 * 8)
    assert isinstance(open_images(str(photos), image_size=8)[0], ImageSet)
    monkeypatch.setattr(image_reading, "MEMORY_BUDGET", 27 * 3 * 8 * 8 - 1)
    assert isinstance(open_images(str(photos), image_size=8)[0], StoredImages)
    assert isinstance(open_images(str(photos), image_size=8, in_memory=True)[0], ImageSet)
    assert isinstance(open_images("digits")[0], ImageSet)
    stored, kept = open_images("digits", in_memory=False)[0], load_images("digits")[0]
    assert torch.equal(stored.read(torch.arange(100)), kept.images[:100])
    assert kept.names[:2] == stored.names[:2]


def test_a_sample_for_statistics_is_the_same_whatever_the_place(photos, monkeypatch):
    monkeypatch.setattr(image_sets, "STATISTICS_BYTES", 10 * 3 * 12 * 12 + 5)
    memory, disk = (open_images(str(photos), image_size=12, in_memory=where)[0] for where in (True, False))
    assert len(images_for_statistics(memory)) == 10
    assert torch.equal(images_for_statistics(memory), images_for_statistics(disk))


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("in_memory", [True, False])
def test_all_bad_images_are_counted_and_twenty_shown(photos, in_memory):
    for number in range(12):
        damage(photos / "cat" / f"{number}.{'png' if number % 2 else 'jpg'}")
    for number in range(12):
        (photos / "dog" / f"{number}.{'png' if number % 2 else 'jpg'}").write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"24 of 27 images in .* cannot be read\. Mend them, or take them away:"
    ) as caught:
        open_images(str(photos), image_size=16, in_memory=in_memory)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 4 more"
    assert lines[1].startswith(f"  {photos}/cat/0.jpg (")
    assert sum("/cat/" in line for line in lines) == 12


def test_bad_images_of_both_parts_stand_in_one_list(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    for name in ("train", "test"):
        for kind in ("cat", "dog"):
            (root / name / kind).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(root / name / kind / "0.png")
        (root / name / "dog" / "bad.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="2 of 6 images") as caught:
        load_images(str(root))
    assert "train/dog/bad.jpg" in str(caught.value)
    assert "test/dog/bad.jpg" in str(caught.value)


def test_an_image_that_goes_bad_later_is_named(photos):
    stored, _ = open_images(str(photos), image_size=16, in_memory=False)
    place = stored.names.index("dog/3.png") if "dog/3.png" in stored.names else stored.names.index("dog/5.png")
    path = photos / stored.names[place]
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} cannot be read any more .*Mend or replace it"):
        stored.read(torch.tensor([0, place]))


def test_time_for_reading_through_is_bounded_but_headers_are_all_read(photos, monkeypatch):
    monkeypatch.setattr(image_reading, "SECONDS_OF_READING_THROUGH", -1.0)
    damage(photos / "cat" / "1.png")
    assert len(open_images(str(photos), image_size=16, in_memory=False)[0])
    (photos / "cat" / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 27 images") as caught:
        open_images(str(photos), image_size=16, in_memory=False)
    assert "cat/3.png" in str(caught.value)


def test_the_digest_sees_other_files_labels_and_pixels(photos):
    def digest(**options):
        return data_digest(open_images(str(photos), **({"image_size": 16} | options))[0])

    first = digest()
    assert digest(in_memory=False) == first
    assert digest(image_size=17) != first
    assert digest(seed=1) != first
    (photos / "loose-2.png").rename(photos / "loose-9.png")  # the order stays
    renamed = digest()
    assert renamed != first
    Image.new("L", (9, 9), 200).save(photos / "loose-9.png")
    assert digest() != renamed
