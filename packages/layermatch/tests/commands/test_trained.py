"""`layermatch predict` and `layermatch evaluate` on a run of the digits, and what they refuse."""

import csv
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from layermatch.commands import main
from layermatch.commands import outcome as outcome_module
from scarce_common_utils.images import load_images

TRAIN = ["train", "digits", "--labels-per-class", "4", "--steps", "40", "--threshold", "0.5", "--batch-size", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outcome_module, "draw_figures", lambda folder, lines, **_: [])
        assert main([*TRAIN, "--tracker", "none", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def test_images():
    return load_images("digits", seed=0)[1]


def write_images(test_images, count=12, folder="new"):
    Path(folder).mkdir()
    for number in range(count):
        Image.fromarray(test_images.images[number, 0].numpy()).save(Path(folder, f"{number:03d}.png"))


def last_accuracy(run):
    return json.loads((run / "result.json").read_text())["numbers"]["last_accuracy"]


def test_evaluate_on_the_run_s_own_data_gives_its_own_accuracy(run, capsys, test_images):
    assert main(["evaluate", str(run), "digits"]) == 0
    printed = capsys.readouterr().out
    assert f"accuracy: {last_accuracy(run):.2f} % of 359 images that the run held out" in printed
    folder = run / "evaluations/digits"
    assert {path.name for path in folder.iterdir()} == {"classes.txt", "confusion.png"}
    assert f"{last_accuracy(run):.2f} % of 359" in (folder / "classes.txt").read_text()
    counts = [line.split()[1] for line in printed.splitlines()[2:12]]
    assert counts == [str(int((test_images.labels == number).sum())) for number in range(10)]
    assert main(["evaluate", str(run / "model"), "digits"]) == 0
    assert (run / "evaluations/digits-2").is_dir()


def test_predict_agrees_with_evaluate_and_names_the_likeliest(run, capsys, test_images):
    write_images(test_images, count=359)
    assert main(["predict", str(run), "new", "--top", "3"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert list(rows[0]) == ["path", "class", "confidence", "class_2", "confidence_2", "class_3", "confidence_3"]
    assert [row["path"] for row in rows] == [f"new/{number:03d}.png" for number in range(359)]
    right = sum(row["class"] == str(label) for row, label in zip(rows, test_images.labels.tolist(), strict=True))
    assert 100.0 * right / 359 == pytest.approx(last_accuracy(run))
    for row in rows:
        values = [float(row[name]) for name in ("confidence", "confidence_2", "confidence_3")]
        assert values == sorted(values, reverse=True)
        assert 0 <= sum(values) <= 1.001
        assert len({row["class"], row["class_2"], row["class_3"]}) == 3


def test_predict_takes_files_of_other_sizes_and_grey_ones_in_rgb_and_writes_a_file(run, capsys, test_images):
    image = Image.fromarray(test_images.images[0, 0].numpy())
    image.save("one.png")
    image.convert("RGB").save("rgb.png")
    image.resize((31, 24)).save("large.png")
    assert main(["predict", str(run), "one.png", "rgb.png", "large.png", "one.png", "-o", "found.csv"]) == 0
    assert capsys.readouterr().out == ""
    rows = list(csv.reader(Path("found.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["path", "one.png", "rgb.png", "large.png"]
    assert rows[1][1:] == rows[2][1:]


def test_a_model_on_colour_images_takes_grey_ones(capsys):
    rng = numpy.random.default_rng(0)
    for name, colour in {"otter": (200, 30, 30), "seal": (30, 30, 200)}.items():
        Path("photos", name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.normal(size=(9, 9, 3)) * 30 + numpy.array(colour)
            Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(Path("photos", name, f"{number}.png"))
    words = [
        "train",
        "photos",
        "--labels-per-class",
        "2",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--unlabelled-ratio",
        "1",
    ]
    assert main([*words, "--tracker", "none", "--out", "run"]) == 0
    Image.new("L", (9, 9), 77).save("grey.png")
    capsys.readouterr()
    assert main(["predict", "run", "grey.png", "photos"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 14
    shutil.copytree("photos", "others")
    assert main(["evaluate", "run", "others", "--out", "here"]) == 0
    assert "of all 12 labelled images" in capsys.readouterr().out
    Path("others/seal").rename("others/walrus")
    assert main(["evaluate", "run", "others", "--out", "there"]) == 2
    assert "has the class 'walrus', which the model does not know" in capsys.readouterr().err
    assert main(["evaluate", "run", "digits", "--out", "there"]) == 2
    assert "digits has the class '0', which the model does not know (10 such)" in capsys.readouterr().err
    assert not Path("there").exists()


def test_grey_pictures_saved_in_colour_are_evaluated_as_grey(run, capsys, test_images):
    accuracies = []
    for mode in ("L", "RGB"):
        for number in range(60):
            folder = Path(mode, str(int(test_images.labels[number])))
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(test_images.images[number, 0].numpy())
            (picture.convert("RGBA") if number % 3 == 0 and mode == "RGB" else picture.convert(mode)).save(
                folder / f"{number}.png"
            )
        assert main(["evaluate", str(run), mode, "--out", f"out-{mode}"]) == 0
        accuracies.append(Path(f"out-{mode}", "classes.txt").read_text())
    assert accuracies[0] == accuracies[1]
    capsys.readouterr()


def test_what_predict_and_evaluate_refuse(run, capsys, test_images):
    write_images(test_images, count=2)
    Path("new/torn.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8), (200, 0, 0)).save("new/red.png")
    Path("empty").mkdir()
    shutil.copytree(run, "cut")
    Path("cut/model/model.safetensors").unlink()
    shutil.copytree(run, "damaged")
    weights = Path("damaged/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])
    for name in "01":
        Path("colour", name).mkdir(parents=True)
        for number in range(2):
            shutil.copy("new/red.png", f"colour/{name}/{number}.png")
    before = sorted(Path().rglob("*"))
    for words, fragment in [
        (["predict", str(run)], "Give a run folder and then images"),
        (
            ["predict", str(run), "new"],
            "2 of 4 images cannot be used: new/red.png (in colour, and the model was trained on grey",
        ),
        (["predict", str(run), "new"], "new/torn.png"),
        (["predict", str(run), "empty"], "empty holds no image"),
        (["predict", str(run), "nowhere"], "nowhere is neither a file nor a folder"),
        (["predict", "empty", "new"], "empty holds no trained model. Give the folder of a finished run"),
        (["predict", "cut", "new"], "Finish the run first: layermatch train --resume cut"),
        (["predict", "damaged", "new"], "damaged/model/model.safetensors cannot be loaded"),
        (["predict", str(run), "new", "--top", "11"], "--top is 11, and the model knows 10 classes"),
        (
            ["evaluate", str(run), "colour"],
            "The images of colour are in colour, 8x8, and the model was trained on grey, 8x8",
        ),
        (["evaluate", str(run)], "Give a run folder and data"),
        (["evaluate", str(run), "digits", "--out", "new"], "--out is new, which already holds files"),
    ]:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert fragment in err
        assert len(err.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_the_written_model_is_the_average_without_its_wrapper(run):
    from layermatch.commands.trained import load_trained

    trained = load_trained(run, device="cpu")
    state = torch.load(max(Path(run, "checkpoints").glob("*.pt")), weights_only=True)["average"]
    assert all(torch.equal(value, state[name]) for name, value in trained.model.state_dict().items())
    assert not trained.model.training
