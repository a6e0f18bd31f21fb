"""Torchvision's and Hugging Face's sets, built small on disk; labels of any kind; options that a source has no use for."""

import pickle

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import Selection, number_labels
from scarce_common_utils.images import StoredImages, data_name, load_images, open_images

rng = numpy.random.default_rng(0)


@pytest.fixture
def vision(monkeypatch):
    """torchvision's sets without the check of their files' digests."""
    pytest.importorskip("torchvision", reason="torchvision is an extra of these packages")
    from torchvision.datasets import cifar, stl10, svhn

    for module in (cifar, stl10, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda *_: True)


def write_cifar(folder, name, per_file, classes):
    base = folder / {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}[name]
    base.mkdir()
    key, meta_key = ("labels", "label_names") if name == "CIFAR10" else ("fine_labels", "fine_label_names")
    names = ["train", "test"] if name == "CIFAR100" else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    written = []
    for file in names:
        data = rng.integers(0, 256, (per_file, 3072), dtype=numpy.uint8)
        labels = [number % classes for number in range(per_file)]
        (base / file).write_bytes(pickle.dumps({"data": data, key: labels}))
        written.append(data)
    meta = {meta_key: [f"class {number}" for number in range(classes)]}
    (base / ("meta" if name == "CIFAR100" else "batches.meta")).write_bytes(pickle.dumps(meta))
    return numpy.concatenate(written)


@pytest.mark.parametrize(("name", "classes", "train"), [("CIFAR10", 10, 100), ("CIFAR100", 100, 200)])
def test_cifar_by_name(vision, tmp_path, name, classes, train):
    data = write_cifar(tmp_path, name, 20 if name == "CIFAR10" else 200, classes)
    training, test = load_images(f"torchvision:{name}", download=False, data_folder=tmp_path)
    assert training.shape == (3, 32, 32)
    assert len(training) == train
    assert torch.equal(training.images.reshape(train, -1), torch.from_numpy(data[:train]))
    assert torch.equal(test.images.reshape(len(test), -1), torch.from_numpy(data[train:]))
    assert training.class_names[:2] == ("class 0", "class 1")
    assert training.names[7] == "7"
    assert training.mirrored
    chosen = Selection(classes=("class 3", "class 1"))
    few, few_test = load_images(f"torchvision:{name}", download=False, data_folder=tmp_path, selection=chosen)
    assert few.class_names == few_test.class_names == ("class 3", "class 1")
    places = [int(place) for place in few.names]
    assert torch.equal(few.images, training.images[places])
    assert few.labels.tolist() == [{3: 0, 1: 1}[int(label)] for label in training.labels[places]]


def test_svhn_with_and_without_its_extra_images(vision, tmp_path):
    savemat = pytest.importorskip("scipy.io", reason="torchvision's SVHN needs scipy").savemat
    counts = {"train": 20, "test": 10, "extra": 30}
    pixels = {}
    for name, count in counts.items():
        pixels[name] = rng.integers(0, 256, (32, 32, 3, count), dtype=numpy.uint8)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": pixels[name], "y": (numpy.arange(count) % 10 + 1)[:, None]})
    options = {"download": False, "data_folder": tmp_path}
    plain, test = load_images("torchvision:SVHN", **options)
    assert (len(plain), len(test), plain.mirrored) == (20, 10, False)
    assert plain.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    more, _ = load_images("torchvision:SVHN", **options, selection=Selection(extra=True))
    assert len(more) == 50
    assert torch.equal(more.images[20:], torch.from_numpy(pixels["extra"].transpose(3, 2, 0, 1).copy()))
    assert torch.equal(more.images[:20], plain.images)


@pytest.fixture
def stl10(vision, tmp_path):
    base = tmp_path / "stl10_binary"
    base.mkdir()
    for name, count in (("train", 30), ("test", 20), ("unlabeled", 7)):
        rng.integers(0, 256, (count, 3, 96, 96), dtype=numpy.uint8).tofile(base / f"{name}_X.bin")
        if name != "unlabeled":
            (numpy.arange(count) % 10 + 1).astype(numpy.uint8).tofile(base / f"{name}_y.bin")
    (base / "class_names.txt").write_text("\n".join(f"c{number}" for number in range(10)))
    (base / "fold_indices.txt").write_text("\n".join(f"{n} {n + 10} {n + 20} " for n in range(10)) + "\n")
    return {"data": "torchvision:STL10", "download": False, "data_folder": tmp_path}


def test_stl10_with_its_unlabelled_part_and_its_folds(stl10):
    labelled, test = load_images(**stl10)
    assert (len(labelled), len(test), labelled.shape) == (30, 20, (3, 96, 96))
    assert labelled.class_names[9] == "c9"
    whole, _ = load_images(**stl10, selection=Selection(unlabelled=True))
    assert (len(whole), int((whole.labels < 0).sum())) == (37, 7)
    assert torch.equal(whole.images[:30], labelled.images)
    fold, _ = load_images(**stl10, selection=Selection(unlabelled=True, fold=4))
    assert len(fold) == 37
    assert (fold.labels >= 0).nonzero().flatten().tolist() == [4, 14, 24]
    assert torch.equal(fold.images, whole.images)


def test_a_fold_that_is_not_there_is_named(stl10):
    with pytest.raises(UserError, match="--fold is 10; STL-10's folds are 0 to 9"):
        load_images(**stl10, selection=Selection(fold=10))
    file = stl10["data_folder"] / "stl10_binary" / "fold_indices.txt"
    file.write_text("1 2 3\n")
    with pytest.raises(UserError, match=r"fold_indices\.txt has no line of whole numbers for fold 4"):
        load_images(**stl10, selection=Selection(fold=4))


def test_a_set_of_files_stays_on_disk(vision, tmp_path):
    base = tmp_path / "food-101"
    for name in ("apple_pie", "waffles"):
        (base / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (10 + number, 9), (number, 0, 0)).save(base / "images" / name / f"{number}.jpg")
    (base / "meta").mkdir()
    for part, numbers in (("train", "012"), ("test", "3")):
        files = {name: [f"{name}/{number}" for number in numbers] for name in ("apple_pie", "waffles")}
        (base / "meta" / f"{part}.json").write_text(str(files).replace("'", '"'))
    stored, test = open_images("torchvision:Food101", download=False, data_folder=tmp_path, in_memory=False)
    assert isinstance(stored, StoredImages)
    assert (len(stored), len(test)) == (6, 2)
    kept, _ = load_images("torchvision:Food101", download=False, data_folder=tmp_path)
    assert torch.equal(stored.read(torch.arange(6)), kept.images)


@pytest.mark.parametrize(
    ("data", "selection", "said"),
    [
        ("digits", Selection(fold=1), "--fold is given, but DATA is digits; only torchvision:STL10 has folds"),
        ("torchvision:CIFAR10", Selection(extra=True), "--extra is given, but DATA is torchvision:CIFAR10"),
        ("digits", Selection(label_column="y"), "--label-column is given, but digits has no columns"),
        ("digits", Selection(classes=("1", "ten")), "--classes names 'ten', which is no class of digits"),
    ],
)
def test_what_a_source_has_no_use_for_is_refused(data, selection, said):
    with pytest.raises(UserError, match=said):
        load_images(data, selection=selection)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The package datasets, offline, its cache below the test's folder."""
    datasets = pytest.importorskip("datasets", reason="datasets is an extra of these packages")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def pictures(datasets, count, *, image="image", label="label", labels=None, feature=None):
    values = [numpy.full((6, 8, 3), number, dtype=numpy.uint8) for number in range(count)]
    columns = {"text": ["x"] * count, image: [Image.fromarray(value) for value in values]}
    features = {"text": datasets.Value("string"), image: datasets.Image()}
    if labels is not None:
        columns[label] = labels
        features[label] = feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_saved_parts_columns_by_what_they_hold_and_an_unlabelled_part(hub, tmp_path):
    names = hub.ClassLabel(names=["cat", "dog"])
    parts = {
        name: pictures(hub, count, image="photo", label="kind", labels=labels, feature=names)
        for name, count, labels in (("train", 6, [0, 1] * 3), ("test", 2, [1, 0]))
    }
    parts["unlabelled"] = pictures(hub, 3, image="photo")
    hub.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    train, test = load_images(str(tmp_path / "set"))
    assert (len(train), test.labels.tolist(), train.class_names) == (6, [1, 0], ("cat", "dog"))
    assert train.images[:, 0, 0, 0].tolist() == list(range(6))
    more, _ = load_images(str(tmp_path / "set"), selection=Selection(unlabelled=True))
    assert more.labels.tolist() == [0, 1, 0, 1, 0, 1, -1, -1, -1]
    assert more.images[:, 0, 0, 0].tolist() == [*range(6), 0, 1, 2]
    stored, _ = open_images(f"hf:{tmp_path / 'set'}", selection=Selection(unlabelled=True), in_memory=False)
    assert isinstance(stored, StoredImages)
    assert torch.equal(pickle.loads(pickle.dumps(stored)).read(torch.arange(9)), more.images)


def test_labels_that_are_words_and_columns_by_name(hub, tmp_path):
    words = ["zebra", "ant", None, "zebra", "ant", ""]
    made = pictures(hub, 6, label="animal", labels=words, feature=hub.Value("string"))
    made.to_parquet(tmp_path / "train.parquet")
    made.select([1, 0]).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"no column 'label'; its columns are .*Name it with --label-column"):
        load_images(str(tmp_path))
    with pytest.raises(UserError, match=r"--label-column is 'animl', which .* Did you mean animal"):
        load_images(str(tmp_path), selection=Selection(label_column="animl"))
    train, test = load_images(str(tmp_path), selection=Selection(label_column="animal", image_column="image"))
    assert train.class_names == ("ant", "zebra")
    assert train.labels.tolist() == [1, 0, -1, 1, 0, -1]
    assert test.labels.tolist() == [0, 1]
    chosen = Selection(label_column="animal", classes=("zebra", "ant"))
    assert load_images(str(tmp_path), selection=chosen)[0].labels.tolist() == [0, 1, -1, 0, 1, -1]


def test_labels_that_are_numbers_with_gaps_mean_the_same_class_in_both_parts(hub, tmp_path):
    made = pictures(hub, 4, labels=[3, 5, 5, 3], feature=hub.Value("int64"))
    made.to_parquet(tmp_path / "train.parquet")
    pictures(hub, 2, labels=[5, 3], feature=hub.Value("int64")).to_parquet(tmp_path / "test.parquet")
    train, test = load_images(str(tmp_path))
    assert (train.class_names, train.labels.tolist(), test.labels.tolist()) == (("3", "5"), [0, 1, 1, 0], [1, 0])


def test_several_columns_of_classes_must_be_chosen_from(hub, tmp_path):
    kind = hub.ClassLabel(names=["a", "b"])
    made = pictures(hub, 4, label="species", labels=[0, 1, 0, 1], feature=kind)
    made = made.add_column("genus", [0, 0, 1, 1], feature=kind)
    made.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"several label columns \(species, genus\)\. Choose one with --label-column"):
        load_images(str(tmp_path / "set"))
    train, _ = load_images(str(tmp_path / "set"), selection=Selection(label_column="genus"))
    assert len(train) == 2


def test_an_image_folder_with_its_own_metadata_by_path(hub, tmp_path):
    root = tmp_path / "pictures" / "train"
    root.mkdir(parents=True)
    lines = ["file_name,label"]
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{['cat', 'dog'][number % 2]}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    train, test = load_images(f"hf:{tmp_path / 'pictures'}")
    assert (len(train), len(test), train.class_names) == (4, 2, ("cat", "dog"))
    assert set(train.images[train.labels == 1][:, 0, 0, 0].tolist()) < {1, 3, 5}


def test_a_name_that_cannot_be_fetched_is_said(hub):
    with pytest.raises(UserError, match=r"hf:nobody/nothing:small cannot be loaded \("):
        load_images("hf:nobody/nothing:small")
    assert data_name("hf:nobody/nothing:small") == "nobody-nothing-small"


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        ([3, 5, 3, -1], [0, 1, 0, -1], ("3", "5")),
        ([2.0, float("nan"), 10.0], [0, -1, 1], ("2", "10")),
        (["b", None, "a", ""], [1, -1, 0, -1], ("a", "b")),
        ([True, False], [1, 0], ("False", "True")),
        (numpy.array([b"x", b"y"]), [0, 1], ("x", "y")),
        (numpy.array([10, 9], dtype=numpy.int16), [1, 0], ("9", "10")),
        ([7, "a", "7"], [0, 1, 0], ("7", "a")),
    ],
)
def test_labels_of_any_kind_become_numbers(values, numbers, names):
    assert number_labels(values, place="here") == (numbers, names)


def test_labels_against_names_that_are_declared():
    assert number_labels([1, "a", -1], place="here", class_names=["a", "b"]) == ([1, 0, -1], ("a", "b"))
    assert number_labels([5, 3], place="here", class_names=["3", "5"], by_number=False)[0] == [1, 0]
    with pytest.raises(UserError, match="here holds the label 2, but there are 2 classes: a, b"):
        number_labels([2], place="here", class_names=["a", "b"])
    with pytest.raises(UserError, match="here holds the label 'c', but there are 2 classes"):
        number_labels(["c"], place="here", class_names=["a", "b"])
    with pytest.raises(UserError, match=r"here holds the label 1\.5, which is neither a whole number nor a word"):
        number_labels([1.5], place="here")
    with pytest.raises(UserError, match="here holds the label -2; classes are numbered from 0, and -1 is no label"):
        number_labels([-2, 0], place="here")


def test_words_as_labels_of_an_npz_file(tmp_path):
    path = tmp_path / "set.npz"
    images = rng.integers(0, 256, (8, 6, 6, 3), dtype=numpy.uint8)
    words = numpy.array(["dog", "cat"] * 4)
    numpy.savez(path, x_train=images, y_train=words, x_test=images[:2], y_test=words[:2])
    train, test = load_images(str(path))
    assert train.class_names == ("cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0] * 4, [1, 0])
    numpy.savez(path, x_train=images, y_train=words, x_test=images[:2], y_test=numpy.array(["dog", "cow"]))
    with pytest.raises(UserError, match="holds the label 'cow', but there are 2 classes: cat, dog"):
        load_images(str(path))
