"""Files that were made to mislead: nothing of them is run, nothing is written elsewhere, and the refusal is a sentence."""

import io
import json
import os
import pickle
import subprocess
import zipfile

import numpy
import pytest
import torch

from scarce_common_utils.checkpoints import save_checkpoint, write_atomically
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_lists import from_list
from scarce_common_utils.image_sources import from_npz, from_torchvision
from scarce_common_utils.images import load_images, open_images
from scarce_common_utils.locks import HOLDER, LOCK, hold
from scarce_common_utils.records import read_record
from scarce_common_utils.run_folder import RunFolder

DEEP = "[" * 100_000


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes; `a/0.png` is for the test."""
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with an extra")
    for name in ("a/0", "a/1", "b/0", "b/1"):
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (8, 8)).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("in_memory", [True, False])
def test_postscript_goes_to_no_program(pictures, monkeypatch, in_memory):
    """Pillow gives it to Ghostscript, whatever the file is called."""
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: started.append(words))
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    (pictures / "a" / "0.png").write_bytes(head + b"showpage\n%%EOF\n")
    with pytest.raises(UserError, match=r"1 of 4 images .* cannot be read(.|\n)*0.png \(cannot identify image file"):
        open_images(str(pictures), in_memory=in_memory)
    assert not started


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_pipe_is_not_waited_for(pictures, in_memory):
    os.unlink(pictures / "a" / "0.png")
    os.mkfifo(pictures / "a" / "0.png")
    with pytest.raises(UserError, match=r"0.png \(it is a device, a pipe or a folder, and no file\)"):
        open_images(str(pictures), in_memory=in_memory)


def archive_of(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return content.getvalue()


def array(values):
    content = io.BytesIO()
    numpy.save(content, values)
    return content.getvalue()


IMAGES, LABELS = array(numpy.zeros((4, 8, 8), numpy.uint8)), array(numpy.arange(4) % 2)
ARCHIVES = {
    "an archive that is cut": (archive_of(x_train=IMAGES, y_train=LABELS)[:-30], "not a zip file"),
    "one array alone": (IMAGES, "not a zip file"),
    "a pickle": (pickle.dumps(print), "not a zip file"),
    "an array that is none": (archive_of(x_train=b"nothing", y_train=LABELS), "has no array 'x_train'"),
    "objects": (archive_of(x_train=IMAGES, y_train=array(numpy.array([None] * 4))), "Object arrays cannot be loaded"),
    "labels in two rows": (archive_of(x_train=IMAGES, y_train=array(numpy.zeros((4, 2)))), "one a label, are needed"),
    "images of five channels": (archive_of(x_train=array(numpy.zeros((4, 8, 8, 5), numpy.uint8)), y_train=LABELS), r"\(4, 8, 8, 5\)"),
    "images without a pixel": (archive_of(x_train=array(numpy.zeros((4, 0, 0), numpy.uint8)), y_train=LABELS), r"\(4, 0, 0\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_mislead(tmp_path, name):
    raw, sentence = ARCHIVES[name]
    (tmp_path / "data.npz").write_bytes(raw)
    with pytest.raises(UserError, match=rf"(data.npz(.|\n)*){sentence}"):
        from_npz(tmp_path / "data.npz")


def test_an_archive_of_zeros_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("scarce_common_utils.unpacking.ALWAYS", 2**16)
    numpy.savez_compressed(
        tmp_path / "data.npz", x_train=numpy.zeros((4000, 8, 8), numpy.uint8), y_train=numpy.arange(4000) % 2
    )
    monkeypatch.setattr(numpy, "load", lambda *words, **options: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"data.npz has \d+ bytes and unpacks to"):
        from_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, '{"categories": [{"id": 1e400, "name": "a"}]}', "9" * 5000])
def test_json_that_misleads_is_refused_where_it_is_read(tmp_path, text):
    for name, read in (
        ("train.json", from_list),
        ("seed-000.json", read_record),
        ("config.json", lambda path: RunFolder.reopen(path.parent, package="imwa", command="train")),
        ("split.json", lambda path: RunFolder(path.parent, package="imwa", command="train", config={}).read_json(path.name)),
        ("metrics.jsonl", lambda path: RunFolder(path.parent, package="imwa", command="train", config={}).metrics()),
    ):  # fmt: skip
        path = tmp_path / name
        path.write_text(text + "\n")
        if name != "split.json" or not text.startswith('{"cat'):  # which is JSON, and compared
            with pytest.raises(UserError, match=name):
                read(path)


@pytest.mark.parametrize("line", ["[]", '{"step": []}', '{"loss": 1}', "5", "\xff"])
def test_lines_of_metrics_that_are_none(tmp_path, line):
    run = RunFolder(tmp_path, package="imwa", command="train", config={})
    run.metrics_file.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=r"metrics.jsonl cannot be read .* is not whole"):
        run.cut_metrics(4)


@pytest.mark.parametrize("text", [DEEP, '{"process": 1e400}', '{"process": 1' + "0" * 40 + "}"])
def test_a_holder_that_misleads_holds_nothing(tmp_path, text):
    (tmp_path / HOLDER).write_text(text)
    hold(tmp_path).release()


@pytest.mark.parametrize("name", [LOCK, HOLDER])
def test_no_lock_is_written_through_a_link(tmp_path, name):
    folder, mine = tmp_path / "run", tmp_path / "thesis.txt"
    folder.mkdir()
    mine.write_text("mine")
    (folder / name).symlink_to(mine)
    with pytest.raises(UserError, match=rf"{name} is a link, which no run writes"):
        hold(folder)
    assert mine.read_text() == "mine"


def test_nothing_is_written_through_a_link_laid_beside(tmp_path):
    mine = tmp_path / "thesis.txt"
    mine.write_text("mine")
    (tmp_path / "split.json.part").symlink_to(mine)
    write_atomically(tmp_path / "split.json", b"{}")
    (tmp_path / "step-00000001.pt.part").symlink_to(mine)
    save_checkpoint(tmp_path, step=1, state={"step": 1})
    assert mine.read_text() == "mine"
    assert json.loads((tmp_path / "split.json").read_text()) == {}


def mnist(folder, content):
    """MNIST as torchvision before 0.8 kept it, in files of torch."""
    for name in ("training", "test"):
        path = folder / "MNIST" / "processed" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    return folder


def test_torchvisions_mnist_has_its_labels_in_a_tensor(tmp_path):
    """Found by these files: each label was refused, as neither a whole number nor a word."""
    pytest.importorskip("torchvision", reason="torchvision comes with an extra")
    folder = mnist(tmp_path, (torch.zeros(20, 8, 8, dtype=torch.uint8), torch.arange(20) % 10))
    training, _ = load_images("torchvision:MNIST", download=False, data_folder=folder)
    assert training.labels.tolist() == [*range(10), *range(10)]


def test_a_pickle_in_torchvisions_copy_is_refused(tmp_path):
    pytest.importorskip("torchvision", reason="torchvision comes with an extra")
    with pytest.raises(UserError, match="torchvision:MNIST cannot be loaded into"):
        from_torchvision("MNIST", download=False, folder=mnist(tmp_path, {"a": print}))
