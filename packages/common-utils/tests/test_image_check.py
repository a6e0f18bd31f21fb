"""What `check` sees in a folder with a bad file, two sizes, and the same pixels in several files."""

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils import image_check
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_check import (
    advice,
    advice_in_words,
    class_rows,
    examine,
    faults_in_words,
    first_of_each,
    look_as_json,
    look_at_images,
    look_in_words,
    some_in_memory,
)
from scarce_common_utils.image_sources import RawSet
from scarce_common_utils.options import ImageDataOptions


def pixels(number, size=(8, 8)):
    return numpy.random.default_rng(number).integers(0, 256, size, dtype=numpy.uint8)


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    for part in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (place / part).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(pixels(len(part) * 100 + ord(part[-1]) + number)).save(place / part / f"{number}.png")
    return place


def look(place, **options):
    return look_at_images(ImageDataOptions(data=str(place), **options), seed=0, unlabelled=True, in_memory=None)


def test_clean_images(photos):
    looked = look(photos)
    assert (looked.count, looked.seen, len(looked.training), len(looked.test)) == (16, 16, 8, 8)
    assert looked.training.shape == (1, 8, 8)
    assert look_in_words(looked, data="photos") == [
        "photos: 16 images, grey; 8 of them the test part",
        "sizes: 8x8 (16)",
    ]
    assert faults_in_words(looked) == ["unreadable: none", "repeats by pixels: none"]
    assert advice(looked, skip=False, few=8) == []
    assert looked.memory == 16 * 64
    assert looked.in_memory


def test_sizes_and_the_size_that_is_trained_at(photos):
    Image.fromarray(pixels(1, (10, 12))).save(photos / "train/dog/wide.png")
    looked = look(photos)
    assert looked.training.shape == (1, 64, 64)
    lines = look_in_words(looked, data="photos")
    assert lines[1] == "sizes: 8x8 (16), 12x10 (1)"
    assert lines[2].startswith("trained at 64x64: the shorter side is resized")
    assert max(map(len, "\n".join(lines).splitlines())) <= 80
    assert look(photos, image_size=8).training.shape == (1, 8, 8)
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).save(
        photos / "train/dog/c.png"
    )
    assert look(photos, image_size=8).training.shape == (3, 8, 8)


def test_each_unreadable_file_is_named_with_its_path(photos):
    for name in ("train/dog/bad.png", "test/cat/bad.jpg"):
        (photos / name).write_bytes(b"no image")
    looked = look(photos)
    lines = faults_in_words(looked)
    assert lines[0] == "unreadable: 2"
    assert lines[1].startswith(f"  {photos}/train/dog/bad.png (")
    assert lines[2].startswith(f"  {photos}/test/cat/bad.jpg (")
    assert len(looked.training) == 8
    assert len(look_as_json(looked)["unreadable"]) == 2
    assert advice(looked, skip=False, few=1)[0].startswith("images that cannot be read stop `train`")
    assert advice(looked, skip=True, few=1) == []


def test_repeats_by_pixels_inside_and_across_parts_and_under_another_label(photos):
    first = pixels(len("train/cat") * 100 + ord("t"))
    Image.fromarray(first).convert("RGB").save(photos / "train/cat/again.bmp")  # grey, in colour, of another format
    Image.fromarray(first).save(photos / "test/dog/again.png")
    Image.fromarray(pixels(9)).save(photos / "test/cat/one.png")
    Image.fromarray(pixels(9)).save(photos / "test/cat/two.png")
    looked = look(photos)
    found = look_as_json(looked)["repeats"]
    assert found == {
        "within training": [{"image": "training/train/cat/again.bmp", "other": "training/train/cat/0.png"}],
        "within test": [{"image": "test/test/cat/two.png", "other": "test/test/cat/one.png"}],
        "of test in training too": [{"image": "test/test/dog/again.png", "other": "training/train/cat/0.png"}],
        "with another label": [{"image": "test/test/dog/again.png", "other": "training/train/cat/0.png"}],
    }
    told = "\n".join(faults_in_words(looked))
    assert "1 within training, 1 within test, 1 of test in training too, 1 with another label" in " ".join(told.split())
    assert "    test/dog/again.png (test) is train/cat/0.png (training)" in told
    sentences = advice(looked, skip=False, few=1)
    assert sentences[0].startswith("1 test images stand in the training part too")
    assert sentences[1].startswith("1 images have the pixels of another class's image")
    assert max(map(len, advice_in_words(sentences).splitlines())) <= 80


def test_repeats_across_a_test_part_that_is_held_out(tmp_path):
    numpy.savez(tmp_path / "same.npz", x_train=numpy.stack([pixels(0)] * 10), y_train=[0] * 5 + [1] * 5)
    looked = look(tmp_path / "same.npz", test_share=0.4)
    assert looked.held_out
    assert {kind: len(some) for kind, some in image_check.repeats_by_kind(looked).items()} == {
        "within training": 5,
        "of test in training too": 4,
        "with another label": 5,
    }


def test_large_data_are_looked_at_in_part_and_it_is_said(photos, monkeypatch):
    monkeypatch.setattr(image_check, "SECONDS", 0.0)
    monkeypatch.setattr(image_check, "FIRST", 3)
    monkeypatch.setattr(image_check, "RUN", 2)
    looked = look(photos)
    assert (looked.count, looked.seen) == (16, 6)  # a turn of each part
    assert look_in_words(looked, data="photos")[1].startswith("looked at 6 of them, spread evenly; what follows")
    assert len(looked.training) == 8  # counts and classes are those of all


def test_turns_go_on_to_the_end_while_there_is_time(monkeypatch):
    monkeypatch.setattr(image_check, "FIRST", 2)
    monkeypatch.setattr(image_check, "RUN", 3)
    part = RawSet(numpy.stack([pixels(number) for number in range(11)]), [0] * 11, ("a", "b"), "here")
    assert sorted(examine(part, seconds=60.0)) == list(range(11))


def test_data_none_of_which_can_be_read_are_refused(photos):
    for file in photos.glob("test/*/*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match="8 of 16 images in"):
        look(photos)


def test_some_are_decoded_with_those_that_are_wanted(photos, monkeypatch):
    looked = look(photos)
    some = some_in_memory(looked.training, looked, least=2, wanted=torch.tensor([7]))
    assert some.names[-1] == "train/dog/3.png"
    assert torch.equal(some.images, looked.training.read(looked.training.numbers))  # all eight: they are few
    monkeypatch.setattr(image_check, "SOME", 2)
    few = some_in_memory(looked.training, looked, least=3, wanted=torch.tensor([7]))
    assert few.names == tuple(looked.training.names[place] for place in (0, 2, 5, 7))
    (photos / "train/cat/0.png").write_bytes(b"no image")  # as one that was not seen before
    assert some_in_memory(looked.training, looked, least=3, wanted=torch.tensor([7])).names == few.names[1:]


def test_the_first_place_of_each_label():
    labels = torch.tensor([2, -1, 2, 0, 0, 1])
    assert first_of_each(labels, torch.tensor([5, 4, 3, 2])).tolist() == [2, 4, 5]


def test_a_table_of_many_classes_keeps_the_largest_and_the_smallest():
    counts = {"training": list(range(30)), "test": [1] * 30}
    rows = class_rows(counts, [f"c{number}" for number in range(30)])
    assert len(rows) == 21
    assert rows[0] == ["c29", 29, 1]
    assert rows[10] == ["(10 others)", "", ""]
    assert rows[-1] == ["c0", 0, 1]
    assert class_rows({"training": [1, 2]}, ["a", "b"]) == [["a", 1], ["b", 2]]
