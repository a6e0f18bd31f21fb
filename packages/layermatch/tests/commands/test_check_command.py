"""`layermatch check` on a folder with a bad file, repeats and few test images; its cost is measured on real steps."""

import json

import numpy
import pytest
from PIL import Image

from layermatch.commands import main

WORDS = ["--model", "cnn", "--batch-size", "4", "--unlabelled-ratio", "2", "--steps", "40"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    place = tmp_path_factory.mktemp("check") / "photos"
    draw = numpy.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (place / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (8, 8), dtype=numpy.uint8)
                Image.fromarray(pixels).save(place / part / name / f"{number}.png")
    (place / "train/dog/0.png").rename(place / "train/dog/first.png")
    (place / "test/dog/same.png").write_bytes((place / "train/cat/0.png").read_bytes())
    (place / "train/cat/bad.png").write_bytes(b"no image")
    return place


def files(place):
    return sorted(place.parent.rglob("*"))


def test_what_is_in_the_data_and_what_a_run_costs(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = files(photos)
    assert main(["check", str(photos), "--labels-per-class", "3", *WORDS]) == 0
    printed = capsys.readouterr().out
    assert files(photos) == before
    assert not list(tmp_path.iterdir())
    lines = printed.splitlines()
    assert [line for line in lines if len(line.replace(str(photos), "photos")) > 80] == []
    assert lines[0] == "photos: 18 images, grey; 5 of them the test part"
    assert lines[1] == "sizes: 8x8 (17)"
    assert "cat           6            3     2" in lines
    assert "unreadable: 1" in lines
    assert any(line.startswith(f"  {photos}/train/cat/bad.png (") for line in lines)
    assert "repeats by pixels: 1 of test in training too, 1 with another label" in lines
    assert "    test/dog/same.png (test) is train/cat/0.png (training)" in lines
    assert "cost of train --method layermatch --model cnn at 8x8," in lines
    words = " ".join(printed.split())
    assert "40 steps, 20 evaluations of" in words
    assert "* images that cannot be read stop `train` before its first step" in words
    assert "--skip-unreadable" in words
    assert "* the test part holds 5 images: chance moves the accuracy by up to 44 points to either side." in words


def test_as_json(photos, capsys):
    words = [
        "--labels-per-class",
        "3",
        "--method",
        "supervised",
        "--steps",
        "40",
        "--batch-size",
        "4",
        "--model",
        "cnn",
    ]
    assert main(["check", str(photos), *words, "--skip-unreadable", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"]["dog"] == {"training": 6, "labels used": 3, "test": 3}
    assert (found["images"], found["looked_at"], found["training"], found["test"]) == (18, 18, 12, 5)
    cost = found["cost"]
    assert cost["steps"] == 40
    assert 1 <= cost["steps_measured"] <= 9
    assert cost["seconds"] == pytest.approx(
        cost["seconds_of_decoding_at_the_start"] + 40 * cost["seconds_a_step"] + 20 * cost["seconds_an_evaluation"]
    )
    assert not any("cannot be read" in sentence for sentence in found["advice"])


def test_images_that_stay_on_disk_are_said(photos, capsys):
    words = ["--labels-per-class", "1", "--no-in-memory", "--json"]
    assert main(["check", str(photos), *words, *WORDS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["in_memory"]
    assert found["cost"]["seconds_of_decoding_a_step"] > 0
    assert found["cost"]["seconds_of_decoding_at_the_start"] == 0


def test_it_refuses_what_train_would_refuse(photos, tmp_path, capsys):
    refused = {
        ("--labels-per-class", "9"): "class 'cat' has 6",
        (): "has a label. Say how many of each class may be used",
        (
            "--labels-per-class",
            "2",
            "--method",
            "fixmatch",
            "--grad-relu",
            "off",
        ): "--grad-relu is an option of --method",
        ("--labels-per-class", "2", "--out", str(tmp_path / "run")): "Unknown option: --out",
        ("--labels-per-class", "2", "--batchsize", "2"): "Did you mean --batch-size",
    }
    for words, told in refused.items():
        assert main(["check", str(photos), *words]) == 2
        assert told in capsys.readouterr().err
    assert main(["check"]) == 2
    assert "DATA is missing." in capsys.readouterr().err
