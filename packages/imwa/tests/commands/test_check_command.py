"""`imwa check` on a small npz file and a folder with a bad file; its cost is measured on real steps of two replicas."""

import json

import numpy
import pytest
from PIL import Image

from imwa.commands import main

WORDS = ["--steps", "30", "--batch-size", "8", "--replicas", "3", "--episodes", "2"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    draw = numpy.random.default_rng(0)
    labels = numpy.repeat(numpy.arange(3), (20, 16, 12))
    pixels = draw.integers(0, 256, (48, 8, 8), dtype=numpy.uint8)
    pixels[1] = pixels[0]
    test = draw.integers(0, 256, (6, 8, 8), dtype=numpy.uint8)
    test[5] = pixels[40]
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    names = ["ape", "bee", "cat"]
    numpy.savez(path, x_train=pixels, y_train=labels, x_test=test, y_test=[0, 0, 1, 1, 2, 2], class_names=names)
    return path


def test_what_is_in_the_data_and_what_a_run_costs(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(pictures), "--imbalance", "10", *WORDS]) == 0
    printed = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert max(map(len, printed.splitlines())) <= 80
    lines = printed.splitlines()
    assert lines[:2] == ["pictures: 54 images, grey; 6 of them the test part", "sizes: 8x8 (54)"]
    assert "class  training  trained on  test" in lines
    assert "repeats by pixels: 1 within training, 1 of test in training too" in lines
    assert "    5 (test) is 40 (training)" in lines
    words = " ".join(printed.split())
    assert "cost of train --method imwa --model small at 8x8, measured here on" in words
    assert ": 90 steps, 34 evaluations of" in words
    assert "the plan 30 steps of each of 3 replicas, averages: 2" in words
    assert "of 3 classes have fewer than 5 training images: try --loss balanced-softmax" in words


def test_as_json(pictures, capsys):
    assert main(["check", str(pictures), "--method", "single", "--steps", "30", "--batch-size", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"]["cat"] == {"training": 12, "test": 2}
    assert found["training_used"] == 48
    cost = found["cost"]
    assert (cost["steps"], cost["evaluations"]) == (30, 12)
    assert cost["steps_measured"] == 3
    looking = 12 * cost["seconds_an_evaluation"] + 20 / 3 * cost["seconds_a_step"]
    assert cost["seconds"] == pytest.approx(
        cost["seconds_of_decoding_at_the_start"] + 30 * cost["seconds_a_step"] + looking
    )


def test_bad_files_are_named_and_it_refuses_what_train_would_refuse(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = numpy.random.default_rng(ord(name[0]) + number).integers(0, 256, (8, 8, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (tmp_path / "dog/bad.png").write_bytes(b"no image")
    assert main(["check", str(tmp_path), "--steps", "4", "--batch-size", "4", "--method", "single"]) == 0
    printed = capsys.readouterr().out
    assert f"  {tmp_path}/dog/bad.png (" in printed
    assert "* images that cannot be read stop `train` before its first step" in " ".join(printed.split())
    for words, told in {
        ("--class-order", "labels"): "without --imbalance no class is made rare",
        ("--resume", "run"): "Unknown option: --resume",
        ("--model", "resnet99"): "resnet99",
    }.items():
        assert main(["check", str(tmp_path), *words]) == 2
        assert told in capsys.readouterr().err
