"""Lists of images as data: text and JSON, where the test part comes from, and every error with its file and line."""

import json
import re

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_lists import from_list
from scarce_common_utils.images import Selection, data_name, load_images, open_images


@pytest.fixture
def root(tmp_path):
    """Twelve images of 6x6, each of one value, in a folder of their own."""
    folder = tmp_path / "photos" / "a b"
    folder.mkdir(parents=True)
    for number in range(12):
        Image.fromarray(numpy.full((6, 6), 20 * number, dtype=numpy.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def written(path, numbers, labels=None):
    lines = [f"a b/{number}.png {number % 3 if labels is None else labels[number]}" for number in numbers]
    path.write_text("\n".join(["# a list", "", *lines]) + "\n")
    return path


def test_a_text_list_with_its_test_list_beside_it(root, tmp_path):
    train = written(tmp_path / "ImageNet_LT_train.txt", range(9))
    written(tmp_path / "ImageNet_LT_test.txt", range(9, 12))
    training, test = load_images(str(train), selection=Selection(image_root=root))
    assert training.class_names == test.class_names == ("0", "1", "2")
    assert training.labels.tolist() == [0, 1, 2] * 3
    assert training.images[:, 0, 0, 0].tolist() == [20 * number for number in range(9)]
    assert test.images[:, 0, 0, 0].tolist() == [180, 200, 220]
    assert training.names[4] == "a b/4.png"  # a path may have blanks in it
    assert data_name(str(train)) == "ImageNet-LT-train"
    stored, _ = open_images(str(train), selection=Selection(image_root=root), in_memory=False)
    assert torch.equal(stored.read(torch.arange(9)), training.images)


def test_the_root_is_the_lists_folder_and_without_a_test_list_a_share_is_held_out(root):
    training, test = load_images(str(written(root / "all.txt", range(12))), test_share=0.25)
    assert (len(training), len(test)) == (9, 3)
    other = written(root / "mine.txt", range(3))
    _, given = load_images(str(root / "all.txt"), selection=Selection(test_list=other))
    assert len(given) == 3


def test_labels_are_numbered_by_those_that_occur(root):
    train = written(root / "train.txt", range(4), labels=[7, 3, 7, 11])
    written(root / "val.txt", range(2), labels=[11, 3])
    training, test = load_images(str(train))
    assert training.class_names == ("3", "7", "11")
    assert training.labels.tolist() == [1, 0, 1, 2]
    assert test.labels.tolist() == [2, 0]


def annotated(path, numbers, *, categories=((5, "moss"), (2, "moth"))):
    content = {
        "images": [{"id": 100 + n, "file_name": f"a b/{n}.png", "width": 6} for n in numbers],
        "annotations": [
            {"id": n, "image_id": 100 + n, "category_id": (5, 2)[n % 2]} for n in reversed(numbers) if n != 0
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    path.write_text(json.dumps(content))
    return path


def test_inaturalists_annotations(root):
    train = annotated(root / "train2018.json", range(8))
    annotated(root / "val2018.json", range(8, 12))
    training, test = load_images(str(train))
    assert training.class_names == ("moth", "moss")  # by their ids
    assert training.labels.tolist() == [-1, 0, 1, 0, 1, 0, 1, 0]  # image 0 has no annotation
    assert test.labels.tolist() == [1, 0, 1, 0]
    twice, _ = from_list(annotated(root / "train.json", range(4), categories=((5, "moth"), (2, "moth"))))
    assert twice.class_names == ("moth (2)", "moth (5)")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a b/0.png 0\na b/1.png\n", r"train.txt, line 2: 'a b/1.png' does not end with the number of a class"),
        ("a b/0.png 0\n\na b/1.png -1\n", r"train.txt, line 3: 'a b/1.png -1' does not end"),
        ("a b/0.png 1.0\n", r"line 1: 'a b/0.png 1.0' does not end"),
        ("a b/0.png 0\na b/44.png 1\n", r"line 2: there is no file .*44.png \(missing\)\. Give .*--image-root"),
        ("x/0.png 0\nx/1.png 1\n", r"line 1: there is no file .*0.png \(2 of 2 images are missing\)"),
        ("# nothing\n", r"train.txt lists no image"),
        ("a b/0.png 0\na b/1.png 0\n", r"has 1 class; classification needs at least two"),
    ],
)
def test_errors_of_a_text_list_name_file_and_line(root, text, sentence):
    (root / "train.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_images(str(root / "train.txt"))


def test_a_test_label_that_training_has_not_is_named_with_its_line(root):
    train = written(root / "train.txt", range(6))
    written(root / "test.txt", range(6, 8), labels=dict.fromkeys(range(12), 9))
    with pytest.raises(UserError, match=r"test.txt, line 3: class 9 is none of the 3 classes of .*train.txt"):
        load_images(str(train))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda c: c["annotations"].append({"image_id": 1, "category_id": 5}),
            r"annotation 3: .* image with the id 1\b",
        ),
        (lambda c: c["annotations"].append({"image_id": 101, "category_id": 9}), r"annotation 3: .* category .* id 9"),
        (lambda c: c["annotations"].append({"image_id": 101, "category_id": 5}), r"image 101 has two classes, 2 and 5"),
        (lambda c: c.pop("categories"), r"has no images \(id, file_name\).*KeyError\('categories'\)"),
        (lambda c: c["images"].append({"id": 4}), r"KeyError\('file_name'\)"),
        (lambda c: c["images"].append({"id": 9, "file_name": "9.png"}), r"image 9: there is no file .*9.png"),
    ],
)
def test_errors_of_annotations_name_the_entry(root, spoil, sentence):
    path = annotated(root / "train.json", range(4))
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=sentence):
        from_list(path)
    path.write_text('{"images": [\n}')
    with pytest.raises(UserError, match=r"train.json, line 2: this is no JSON"):
        from_list(path)


def test_what_cannot_be_read_or_is_not_used_is_refused(root, tmp_path):
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        UserError, match=re.escape(f"{root / 'train.txt'} cannot be read as a list of images (not a text")
    ):
        load_images(str(root / "train.txt"))
    written(root / "train.txt", range(6))
    with pytest.raises(UserError, match=r"none.txt cannot be read as a list of images \(No such file"):
        load_images(str(root / "train.txt"), selection=Selection(test_list=tmp_path / "none.txt"))
    for option, selection in {
        "--image-root": Selection(image_root=root),
        "--test-list": Selection(test_list=root / "train.txt"),
    }.items():
        with pytest.raises(UserError, match=f"{option} is given, but DATA is digits, which is no list of images"):
            load_images("digits", selection=selection)
