"""`imwa train LIST`: ImageNet-LT's and iNaturalist's forms, images on disk and in memory to the same bits, errors with their line."""

import json

import numpy
import pytest
from PIL import Image

from imwa.commands import main

RUN = [
    "--batch-size",
    "8",
    "--replicas",
    "2",
    "--episodes",
    "2",
    "--steps",
    "6",
    "--evaluate-every",
    "6",
    "--method",
    "imwa",
]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *arguments, **named: [])
    monkeypatch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)


@pytest.fixture
def lists(tmp_path):
    """24, 12 and 6 pictures of three kinds, 12 more to test on, with their lists and annotations; pictures lie elsewhere."""
    rng = numpy.random.default_rng(0)
    patterns = rng.integers(60, 190, (3, 10, 12, 3))
    content = {part: {"images": [], "annotations": [], "categories": []} for part in ("train", "val")}
    lines = {"train": [], "val": []}
    for part, counts in {"train": (24, 12, 6), "val": (4, 4, 4)}.items():
        folder = tmp_path / "pictures" / part
        folder.mkdir(parents=True)
        for kind, count in enumerate(counts):
            content[part]["categories"].append({"id": kind, "name": f"kind {kind}"})
            for _ in range(count):
                number = len(lines[part])
                pixels = patterns[kind] + rng.integers(-50, 51, patterns[kind].shape)
                Image.fromarray(pixels.astype(numpy.uint8)).save(folder / f"{number}.png")
                lines[part].append(f"{part}/{number}.png {kind}")
                content[part]["images"].append({"id": number, "file_name": f"{part}/{number}.png"})
                content[part]["annotations"].append({"image_id": number, "category_id": kind})
        (tmp_path / f"LT_{part}.txt").write_text("\n".join(lines[part]) + "\n")
        (tmp_path / f"{part}2018.json").write_text(json.dumps(content[part]))
    return tmp_path


def result(run):
    return json.loads((run / "result.json").read_text())["numbers"]


def test_a_list_trains_on_disk_as_in_memory_and_as_annotations_do(lists, capsys):
    root, runs = ["--image-root", str(lists / "pictures")], {}
    for name, words in {
        "memory": [str(lists / "LT_train.txt")],
        "disk": [str(lists / "LT_train.txt"), "--no-in-memory"],
        "json": [str(lists / "train2018.json")],
    }.items():
        runs[name] = lists / name
        assert (
            main(["train", *words, *root, *RUN, "--tau", "1", "--retrain-steps", "3", "--out", str(lists / name)]) == 0
        )
        told = capsys.readouterr()
        assert "42 training images (24 to 6 a class), 12 test images." in told.out
        assert ("54 images of 10x12 stay on disk; in memory they would take 1.8e-05 GiB" in told.err) is (
            name == "disk"
        )
    lines = [(run / "metrics.jsonl").read_text() for run in runs.values()]
    assert lines[0] == lines[1] == lines[2]
    assert result(runs["memory"]) == result(runs["disk"]) == result(runs["json"])
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in runs.values()]
    assert weights[0] == weights[1] == weights[2]


def test_a_run_from_disk_that_was_cut_goes_on_in_memory_to_the_same_bits(lists, monkeypatch):
    from imwa.training import loop

    words = [
        str(lists / "LT_train.txt"),
        "--image-root",
        str(lists / "pictures"),
        "--test-list",
        str(lists / "LT_val.txt"),
    ]
    words += ["--no-in-memory", "--checkpoint-every", "2", *RUN]
    whole, cut = lists / "whole", lists / "cut"
    assert main(["train", *words, "--out", str(whole)]) == 0
    plain, steps = loop.train_step, []

    def step(*arguments, **named):
        steps.append(named["step"])
        if len(steps) == 8:
            raise KeyboardInterrupt
        plain(*arguments, **named)

    monkeypatch.setattr(loop, "train_step", step)
    assert main(["train", *words, "--out", str(cut)]) == 130
    monkeypatch.setattr(loop, "train_step", plain)
    assert main(["train", "--resume", str(cut), "--in-memory"]) == 0
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()
    assert result(whole) == result(cut)


def test_errors_name_file_and_line_and_write_nothing(lists, capsys):
    run = ["--out", str(lists / "run"), *RUN]
    assert main(["train", str(lists / "LT_train.txt"), *run]) == 2
    told = capsys.readouterr().err
    assert "LT_train.txt, line 1: there is no file" in told
    assert "(42 of 42 images are missing). Give the folder that the paths start from: --image-root." in told
    (lists / "LT_train.txt").write_text("train/0.png 0\ntrain/1.png\n")
    assert main(["train", str(lists / "LT_train.txt"), "--image-root", str(lists / "pictures"), *run]) == 2
    assert "LT_train.txt, line 2: 'train/1.png' does not end with the number of a class" in capsys.readouterr().err
    assert main(["train", "digits", "--image-root", str(lists), *run]) == 2
    assert "--image-root is given, but DATA is digits" in capsys.readouterr().err
    assert not (lists / "run").exists()
