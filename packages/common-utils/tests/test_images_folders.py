"""Layouts of folders and lists of classes: what is labelled, what is not, what is the test part, and each refusal."""

import pytest
from PIL import Image

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_folders import from_folder, images_below, read_class_list
from scarce_common_utils.images import load_images


def paint(root, *names, count=3):
    for name in names:
        for number in range(count):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return root


def counts(raw):
    return {name: raw.labels.count(number) for number, name in enumerate([*raw.class_names])} | {
        None: raw.labels.count(-1)
    }


def test_loose_images_beside_class_folders_have_no_label(tmp_path):
    paint(tmp_path, "cat", "dog")
    paint(tmp_path.parent, tmp_path.name, count=2)
    train, test = from_folder(tmp_path)
    assert test is None
    assert counts(train) == {"cat": 3, "dog": 3, None: 2}
    assert train.names[-2:] == ("0.png", "1.png")
    assert train.names[0] == "cat/0.png"
    train, test = load_images(str(tmp_path))
    assert int((train.labels < 0).sum()) == 2
    assert {"0.png", "1.png"} < set(train.names)
    assert all(name.startswith(("cat/", "dog/")) for name in test.names)


@pytest.mark.parametrize(("labelled", "unlabelled"), [("labelled", "unlabelled"), ("labeled", "unlabeled")])
def test_labelled_and_unlabelled_apart(tmp_path, labelled, unlabelled):
    paint(tmp_path, f"{labelled}/cat", f"{labelled}/dog", f"{unlabelled}/deep/er", "test/cat", "test/dog")
    train, test = from_folder(tmp_path)
    assert counts(train) == {"cat": 3, "dog": 3, None: 3}
    assert test is not None
    assert counts(test) == {"cat": 3, "dog": 3, None: 0}
    assert f"{unlabelled}/deep/er/0.png" in train.names


def test_labelled_without_a_test_part_holds_some_out(tmp_path):
    paint(tmp_path, "labelled/cat", "labelled/dog", "unlabelled")
    train, test = load_images(str(tmp_path))
    assert (len(train), len(test)) == (7, 2)
    assert train.class_names == ("cat", "dog")


def test_unlabelled_may_stand_beside_train_or_in_it(tmp_path):
    paint(tmp_path, "train/cat", "train/dog", "train/unlabelled", "unlabelled", "val/cat", "val/dog")
    train, test = from_folder(tmp_path)
    assert counts(train)[None] == 6
    assert test is not None
    assert test.names[0] == "val/cat/0.png"


def test_train_may_be_in_labelled_form(tmp_path):
    paint(tmp_path, "train/labelled/cat", "train/labelled/dog", "train/unlabelled", "test/cat", "test/dog")
    assert counts(from_folder(tmp_path)[0]) == {"cat": 3, "dog": 3, None: 3}


def test_a_test_folder_beside_the_classes_is_the_test_part_only_if_it_has_them_in_it(tmp_path):
    paint(tmp_path / "a", "cat", "dog", "test/cat", "test/dog")
    train, test = from_folder(tmp_path / "a")
    assert train.class_names == ("cat", "dog")
    assert test is not None
    paint(tmp_path / "b", "exam", "test")
    train, test = from_folder(tmp_path / "b")
    assert train.class_names == ("exam", "test")
    assert test is None


def test_what_would_be_left_out_in_silence_is_refused(tmp_path):
    paint(tmp_path, "labelled/cat", "labelled/dog", "fox")
    with pytest.raises(UserError, match=r"has labelled/ and beside it fox/, whose images would not be used"):
        from_folder(tmp_path)
    paint(tmp_path / "other", "labelled/cat", "labelled/dog", "labelled", count=1)
    with pytest.raises(UserError, match=r"labelled/0\.png is in no class folder"):
        from_folder(tmp_path / "other")


def test_a_class_without_an_image_and_unlabelled_images_alone(tmp_path):
    paint(tmp_path, "labelled/cat", "unlabelled")
    (tmp_path / "labelled" / "dog").mkdir()
    with pytest.raises(UserError, match=r"labelled/dog holds no image, so class 'dog' has none\. Add images"):
        from_folder(tmp_path)
    paint(tmp_path / "b", "unlabelled")
    with pytest.raises(UserError, match="holds images, but no folder for each class"):
        from_folder(tmp_path / "b")


def test_hidden_folders_are_passed_over_and_the_order_is_that_of_the_parts(tmp_path):
    paint(tmp_path, "cat/a", "cat/a-b", "cat/.ipynb_checkpoints", ".git/dog", count=1)
    assert [file.relative_to(tmp_path).as_posix() for file in images_below(tmp_path)] == [
        "cat/a/0.png",
        "cat/a-b/0.png",
    ]


def test_a_list_of_classes_keeps_these_in_its_order(tmp_path):
    data = paint(tmp_path / "set", "train/n01", "train/n02", "train/n03", "val/n01", "val/n02", "val/n03")
    file = tmp_path / "some.txt"
    file.write_text("# two of three\nn03\n\n  n01  \n")
    classes = read_class_list(file)
    assert classes == ("n03", "n01")
    train, test = from_folder(data, classes=classes)
    assert test is not None
    for part in (train, test):
        assert part.class_names == ("n03", "n01")
        assert [name.split("/")[1] for name in part.names] == ["n03"] * 3 + ["n01"] * 3
        assert list(part.labels) == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UserError, match=r"--classes names 'n04', which is no class of .*train \(1 missing\)\. Did you"):
        from_folder(data, classes=("n01", "n04"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n01\nn02\nn01\n", "names 'n01' twice"),
        ("# none\n", "names 0 class"),
        (None, "No such file"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_lists_that_cannot_be_used_are_named(tmp_path, text, said):
    file = tmp_path / "list.txt"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"--classes is .*list\.txt, which.*{said}"):
        read_class_list(file)
