"""Images by name or path: layouts of folders, grey and colour, sizes, and a sentence for each thing that can be wrong."""

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils import image_sources
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import torchvision_model
from scarce_common_utils.images import count_by_class, data_name, load_images


def paint(path, size=(8, 8), mode="RGB", value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(
        mode, size, value if mode in ("L", "I;16") else (value, 0, 255 - value)[: len(mode)] + (255,) * (len(mode) - 3)
    ).save(path)


def folder(root, classes=("cat", "dog"), count=5, **options):
    for number, name in enumerate(classes):
        for index in range(count):
            paint(root / name / f"{index}.png", value=40 * number + index, **options)
    return root


def test_digits_are_scikit_learns(tmp_path):
    train, test = load_images("digits")
    assert len(train) + len(test) == 1797
    assert train.images.dtype == torch.uint8
    assert train.images.shape[1:] == (1, 8, 8)
    assert int(train.images.max()) == 255
    assert not train.mirrored
    assert min(count_by_class(test.labels, 10)) >= 34


def test_class_folders_without_a_test_part_give_a_stratified_fifth(tmp_path):
    train, test = load_images(str(folder(tmp_path, count=10)))
    assert (len(train), len(test)) == (16, 4)
    assert count_by_class(test.labels, 2) == [2, 2]
    assert train.class_names == ("cat", "dog")
    assert train.images.shape[1:] == (3, 8, 8)
    again = load_images(str(tmp_path), seed=0)[1]
    assert torch.equal(test.images, again.images)
    assert not torch.equal(test.images, load_images(str(tmp_path), seed=1)[1].images)


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_test_folders_are_taken_as_they_are(tmp_path, name):
    folder(tmp_path / "train", count=3)
    folder(tmp_path / name, count=2)
    train, test = load_images(str(tmp_path))
    assert (len(train), len(test)) == (6, 4)


def test_images_without_a_label_are_minus_one_and_stay_in_training(tmp_path):
    folder(tmp_path / "train", classes=("cat", "dog", "unlabelled"))
    train, test = load_images(str(tmp_path))
    assert train.class_names == ("cat", "dog")
    assert int((train.labels == -1).sum()) == 5
    assert int((test.labels == -1).sum()) == 0


def test_grey_stays_one_channel_and_mixed_becomes_three(tmp_path):
    assert load_images(str(folder(tmp_path / "grey", mode="L")))[0].images.shape[1] == 1
    mixed = folder(tmp_path / "mixed", mode="L")
    paint(mixed / "cat" / "colour.png", mode="RGBA")
    assert load_images(str(mixed))[0].images.shape[1] == 3


def test_sizes_are_kept_where_common_and_brought_to_one_where_not(tmp_path):
    folder(tmp_path)
    assert load_images(str(tmp_path))[0].images.shape[2:] == (8, 8)
    paint(tmp_path / "cat" / "wide.png", size=(30, 10))
    assert load_images(str(tmp_path))[0].images.shape[2:] == (64, 64)
    assert load_images(str(tmp_path), image_size=16)[0].images.shape[2:] == (16, 16)


def test_npz(tmp_path):
    path = tmp_path / "set.npz"
    images = numpy.arange(10 * 6 * 6, dtype=numpy.uint8).reshape(10, 6, 6)
    numpy.savez(path, x_train=images, y_train=numpy.arange(10) % 2, x_test=images[:4], y_test=numpy.arange(4) % 2)
    train, test = load_images(str(path))
    assert (len(train), len(test), train.class_names) == (10, 4, ("0", "1"))
    assert numpy.array_equal(train.images[3, 0].numpy(), images[3])
    numpy.savez(path, x_train=images, y_train=numpy.array([{}] * 10, dtype=object))
    with pytest.raises(UserError, match=r"set\.npz cannot be read"):
        load_images(str(path))
    numpy.savez(path, pictures=images)
    with pytest.raises(UserError, match="no array 'x_train'"):
        load_images(str(path))


def test_parquet_and_saved_sets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is an extra of these packages")
    paths = sorted(folder(tmp_path / "images").rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict(
        {"image": [str(path) for path in paths], "label": [0] * 5 + [1] * 5}, features=features
    )
    made.to_parquet(tmp_path / "parquet" / "train.parquet")
    made.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "parquet", tmp_path / "parquet" / "train.parquet", tmp_path / "saved"):
        train, test = load_images(str(path))
        assert (len(train), len(test), train.class_names) == (8, 2, ("cat", "dog"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"broken\.parquet cannot be read as parquet"):
        load_images(str(tmp_path / "broken.parquet"))
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(UserError, match=r"no column 'image'; its columns are 'text', 'label'"):
        load_images(str(tmp_path / "text.parquet"))


def test_torchvision_by_name(tmp_path):
    pytest.importorskip("torchvision", reason="torchvision is an extra of these packages")
    with pytest.raises(UserError, match=r"no set 'CIFR10'. Did you mean torchvision:CIFAR10"):
        load_images("torchvision:CIFR10")
    with pytest.raises(UserError, match="torchvision:CIFAR10 cannot be loaded"):
        load_images("torchvision:CIFAR10", download=False, data_folder=tmp_path)


def test_a_wrong_path_an_empty_folder_and_folders_without_images_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="/no/such/folder is neither an existing path nor a known set"):
        load_images("/no/such/folder")
    with pytest.raises(UserError, match="DATA is missing"):
        load_images(None)
    with pytest.raises(UserError, match="is an empty folder"):
        load_images(str(tmp_path))
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UserError, match="holds no image"):
        load_images(str(tmp_path))
    with pytest.raises(UserError, match=r"notes\.md is a file of no kind"):
        load_images(str(tmp_path / "notes.md"))
    paint(tmp_path / "a.png")
    with pytest.raises(UserError, match="no folder for each class"):
        load_images(str(tmp_path))
    folder(tmp_path / "set", classes=("cat",))
    with pytest.raises(UserError, match="has 1 class"):
        load_images(str(tmp_path / "set"))
    (tmp_path / "set" / "dog").mkdir()
    with pytest.raises(UserError, match="class 'dog' has none"):
        load_images(str(tmp_path / "set"))


def test_unreadable_images_are_listed_all_at_once(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    whole = (tmp_path / "dog" / "1.png").read_bytes()
    (tmp_path / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="2 of 10 images") as caught:
        load_images(str(tmp_path))
    assert "cat/0.png" in str(caught.value)
    assert "dog/1.png" in str(caught.value)


def test_parts_with_different_classes_and_single_images_are_named(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", classes=("cat", "fox"))
    with pytest.raises(UserError, match="different classes: 'dog', 'fox'"):
        load_images(str(tmp_path))
    single = folder(tmp_path / "single", count=1)
    with pytest.raises(UserError, match="Class 'cat' has 1 labelled image"):
        load_images(str(single))


def test_too_large_for_memory_is_refused_before_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("scarce_common_utils.image_reading.MOST_BYTES", 100)
    with pytest.raises(UserError, match="Choose a smaller --image-size"):
        load_images(str(folder(tmp_path)))


def test_holding_out_keeps_one_of_each_for_training():
    train, test = load_images("digits", test_share=0.999)
    assert min(count_by_class(train.labels, 10)) == 1
    assert len(test) == 1787


def test_torchvision_models_by_name():
    pytest.importorskip("torchvision", reason="torchvision is an extra of these packages")
    model = torchvision_model("resnet18", 3, ours=("small",), package="imwa")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(UserError, match=r"'resnet81', which is not known\. Did you mean resnet18"):
        torchvision_model("resnet81", 3, ours=("small",), package="imwa")
    with pytest.raises(UserError, match="Choose small or a torchvision model"):
        torchvision_model("zzz", 3, ours=("small",), package="imwa")


def test_a_torchvision_that_is_absent_or_does_not_load_is_told_apart(monkeypatch):
    monkeypatch.setattr(image_sources, "_is_installed", lambda name: False)
    with pytest.raises(UserError, match=r"pip install 'imwa\[vision\]'"):
        torchvision_model("resnet18", 3, ours=("wrn-28-2",), package="imwa")
    with pytest.raises(UserError, match=r"'wrn-29-2', which is not known\. Did you mean wrn-28-2"):
        torchvision_model("wrn-29-2", 3, ours=("wrn-28-2",), package="imwa")

    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.undo()
    monkeypatch.setattr(image_sources.importlib, "import_module", fail)
    monkeypatch.setattr(image_sources, "_is_installed", lambda name: True)
    with pytest.raises(
        UserError, match=r"\(operator torchvision::nms does not exist\)\. It was probably built for another torch"
    ):
        torchvision_model("resnet18", 3, ours=("small",), package="imwa")
    with pytest.raises(UserError, match="built for another torch"):
        load_images("torchvision:CIFAR10")


def test_names_for_folders(tmp_path):
    (tmp_path / "my photos (2)").mkdir()
    assert data_name(str(tmp_path / "my photos (2)")) == "my-photos-2"
    assert [data_name(name) for name in ("digits", "torchvision:CIFAR10", "hf:user/set", None)] == [
        "digits",
        "CIFAR10",
        "user-set",
        "data",
    ]


def test_a_test_part_without_labels_is_refused_and_single_ones_left_out(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", classes=("cat", "dog", "unlabelled"), count=2)
    assert len(load_images(str(tmp_path))[1]) == 4
