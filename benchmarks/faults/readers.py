"""Every place of the packages that reads a file which somebody else may have made, with a sound one, and what can be done to it.

    images of a folder, an npz, a list, a parquet file, a set of `datasets`, torchvision's old copies      layermatch, imwa
    the list of classes; of a run: config, split, metrics, result, holder of the lock, checkpoint          all three
    the trained model that `layermatch predict` loads; weights that `imwa train` begins from, those that `imwa average` takes
    of the detection recipe (benchmarks): the tar, its annotations and images, the backbone's weights      imwa
    FASTA, tables, GUE's folders, streams, the genome's cache, folders of models, the Trainer's folder     randommask

Data sets that are fetched (torchvision:NAME, hf:NAME) are verified by those who fetch them, and not looked at here.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from faults.payloads import JSON, LINES, LIST, NPZ, TORCH, UNCHANGED, Poison
from faults.pictures import IMAGES, png
from faults.watching import MARK
from scarce_common_utils.checkpoints import save_checkpoint


class Reader(NamedTuple):
    """A place that reads.

    Attributes:
        name: for faults.
        make: writes what is sound into a new folder, and returns the path that `read` is given.
        read: of that path, in a copy of the folder.
        inside: files of the folder (patterns of glob) and what may be done to each.
        lenient: what is wrong may be passed over in silence, since it is made anew.
        seal: called after a file was changed, as a forger would: digests are brought to what the files are.
        files: how many are harmed in a case.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    inside: Mapping[str, Sequence[Poison]]
    lenient: bool = False
    seal: Callable[[Path], None] = lambda folder: None
    files: int = 25


def small_png(number: int) -> bytes:
    """A picture of 8x8 pixels."""
    import zlib

    rows = b"".join(b"\0" + bytes((number * 37 + row * 11 + place) % 256 for place in range(24)) for row in range(8))
    return png(8, 8, data=zlib.compress(rows))


def image_folder(folder: Path) -> Path:
    """Two classes of four pictures."""
    for number in range(8):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(small_png(number))
    return folder / "images"


def npz(folder: Path) -> Path:
    """Twelve grey images of two classes with their names."""
    import numpy

    labels = numpy.arange(12) % 2
    numpy.savez(
        folder / "data.npz", x_train=numpy.zeros((12, 8, 8), numpy.uint8), y_train=labels, class_names=["a", "b"]
    )
    return folder / "data.npz"


def image_list(folder: Path, *, kind: str) -> Path:
    """A list of the pictures, as lines or as JSON."""
    names = sorted(path.relative_to(folder).as_posix() for path in image_folder(folder).rglob("*.png"))
    path = folder / f"train.{kind}"
    if kind == "txt":
        path.write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(names)))
    else:
        content = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
            "annotations": [{"image_id": number, "category_id": number % 2} for number in range(len(names))],
            "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
        }
        path.write_text(json.dumps(content))
    return path


def image_parquet(folder: Path) -> Path:
    """Eight pictures with labels as `datasets` writes them."""
    import pyarrow

    from faults.columns import written

    images = [{"bytes": small_png(number), "path": f"{number}.png"} for number in range(8)]
    path = folder / "data.parquet"
    path.write_bytes(written(pyarrow.table({"image": images, "label": [number % 2 for number in range(8)]})))
    return path


def saved_set(folder: Path) -> Path:
    """The same, written by `save_to_disk`."""
    import datasets

    image = [{"bytes": small_png(number), "path": None} for number in range(8)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    found = datasets.Dataset.from_dict({"image": image, "label": [0, 1] * 4}, features=features)
    found.save_to_disk(str(folder / "saved"), num_proc=None)
    return folder / "saved"


def run_folder(folder: Path, *, package: str) -> Path:
    """A run that was stopped: its small files and a checkpoint."""
    run = folder / "run"
    run.mkdir()
    options = {"seed": 0, "out": "runs/x", "device": "cpu", "steps": 20}
    (run / "config.json").write_text(json.dumps({"package": package, "command": JOB[package], "options": options}))
    (run / "split.json").write_text(json.dumps({"test_sha256": "0", "counts": {"train": 8}, "content_hash": "1"}))
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    record = {
        "experiment": "x",
        "arm": "y",
        "seed": 0,
        "numbers": {"accuracy": 1.0},
        "units": {"accuracy": "%"},
        "digest": "0",
    }
    record |= {"versions": {"torch": "2"}, "seconds": 1.0, "threads": 1, "device": "cpu"}
    (run / "result.json").write_text(json.dumps(record))
    (run / ".holder.json").write_text('{"process": 999999999, "since": "2026-01-01 00:00:00"}')
    save_checkpoint(run / "checkpoints", step=4, state={"step": 4, "model": {"weight": torch.zeros(8, 8)}})
    return run


JOB = {"layermatch": "train", "imwa": "train", "randommask": "pretrain"}


def sealed_file(folder: Path) -> None:
    """The digest beside each checkpoint file is its own."""
    for path in folder.rglob("step-*.pt"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")


def linked(folder: Path) -> None:
    """One of the files that a resume writes, each in turn, is a link to somebody else's."""
    outside, run = folder.parent.with_name(f"{folder.parent.name}-{MARK}"), folder / "run"
    turn = len(list(folder.parent.glob("turn-*")))
    (folder.parent / f"turn-{turn}").touch()
    names = (".lock", ".holder.json", "metrics.jsonl.part", "metrics.jsonl")
    (run / names[turn % len(names)]).unlink(missing_ok=True)
    (run / names[turn % len(names)]).symlink_to(outside)


def sealed_folder(folder: Path) -> None:
    """The digests within each checkpoint folder are its files'."""
    for sums in folder.rglob("SHA256SUMS"):
        files = sorted(path for path in sums.parent.rglob("*") if path.is_file() and path != sums)
        lines = [
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(sums.parent).as_posix()}"
            for file in files
        ]
        sums.write_text("\n".join(lines) + "\n")


def read_images(path: Path, *, on_disk: bool = False) -> None:
    """As the commands do, every pixel."""
    from scarce_common_utils.images import StoredImages, open_images

    for part in open_images(str(path), in_memory=False if on_disk else None):
        if isinstance(part, StoredImages):
            part.read(torch.arange(len(part)))


def read_run(path: Path, *, package: str) -> None:
    """What a resume reads before it has built anything."""
    from scarce_common_utils.resumption import check_split, load_newest
    from scarce_common_utils.run_folder import RunFolder

    run, weights = RunFolder.reopen(path, package=package, command=JOB[package]), torch.nn.Linear(8, 8, bias=False)
    with run:
        run.hold()
        check_split(run, run.read_json("split.json"), place="here")
        run.cut_metrics(4)

        def load(state: dict[str, Any]) -> None:
            weights.load_state_dict(state["model"])

        load_newest(run, load)


def read_result(path: Path) -> None:
    """As tables and `overlap` do."""
    from scarce_common_utils.records import read_record

    read_record(path / "result.json")


def read_classes(path: Path) -> None:
    """The file of --classes."""
    from scarce_common_utils.image_folders import read_class_list

    read_class_list(path)


def read_mnist(path: Path) -> None:
    """A copy of MNIST as torchvision before 0.8 kept it."""
    from scarce_common_utils.image_sources import from_torchvision

    from_torchvision("MNIST", download=False, folder=path)


def mnist(folder: Path) -> Path:
    """Two files of tensors."""
    for name in ("training", "test"):
        path = folder / "MNIST" / "processed" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save((torch.zeros(4, 8, 8, dtype=torch.uint8), torch.arange(4)), path)
    return folder


def tar_of(folder: Path) -> Path:
    """Pictures with a box each in COCO's format, in a tar."""
    found = folder / "data.tar"
    with tarfile.open(found, "w") as tar:
        boxes = [{"image_id": number, "category_id": 1, "bbox": [1, 1, 4, 4]} for number in range(4)]
        images = [{"id": number, "file_name": f"{number}.png"} for number in range(4)]
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
        members = {f"images/train/{number}.png": small_png(number) for number in range(4)}
        for name, data in (members | {"annotations/train.json": json.dumps(content).encode()}).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return found


def coco_folder(folder: Path) -> Path:
    """The same, unpacked."""
    with tarfile.open(tar_of(folder)) as tar:
        tar.extractall(folder / "coco", filter="data")
    return folder / "coco"


def read_coco(path: Path) -> None:
    """Annotations and every image."""
    from reproduce.imwa.detection.coco import Archive, read_split

    boxes = read_split(Archive(path), "train")
    for index in range(len(boxes)):
        boxes.image(index)


def shared_readers(package: str) -> list[Reader]:
    """What layermatch and imwa have from common-utils."""
    from faults.columns import PARQUET

    def classes(folder: Path) -> Path:
        (folder / "classes.txt").write_text("a\nb\n")
        return folder / "classes.txt"

    names = {"images/a/0.png": IMAGES, "images/b/3.png": IMAGES}
    arrow = {"saved/state.json": JSON, "saved/dataset_info.json": JSON, "saved/data-00000-of-00001.arrow": PARQUET[-1:]}
    found = [
        Reader("images of a folder", image_folder, read_images, names),
        Reader("images left on disk", image_folder, partial(read_images, on_disk=True), names),
        Reader("npz", npz, read_images, {"data.npz": NPZ}),
        Reader(
            "list of images",
            partial(image_list, kind="txt"),
            read_images,
            {"train.txt": LIST, "images/a/0.png": IMAGES},
        ),
        Reader("list as JSON", partial(image_list, kind="json"), read_images, {"train.json": JSON}),
        Reader("parquet of images", image_parquet, read_images, {"data.parquet": PARQUET}),
        Reader("saved set", saved_set, read_images, arrow),
        Reader("list of classes", classes, read_classes, {"classes.txt": LIST[:1]}),
        Reader("torchvision's old copies", mnist, read_mnist, {"MNIST/processed/training.pt": TORCH}),
    ]
    return [*found, *run_readers(package)]


def run_readers(package: str) -> list[Reader]:
    """What every package has of its run folders."""
    make, read = partial(run_folder, package=package), partial(read_run, package=package)
    small = {"run/config.json": JSON, "run/split.json": JSON, "run/metrics.jsonl": LINES}
    return [
        Reader("files of a run", make, read, small),
        Reader("links in a run", make, read, {"run/split.json": UNCHANGED}, seal=linked, lenient=True),
        Reader("holder of a lock", make, read, {"run/.holder.json": JSON}, lenient=True),
        Reader("result of a run", make, read_result, {"run/result.json": JSON}),
        Reader("checkpoint", make, read, {"run/checkpoints/step-00000004.pt": TORCH}, seal=sealed_file, lenient=False),
    ]
