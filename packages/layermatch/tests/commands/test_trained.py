"""`layermatch predict` and `layermatch evaluate` on a run of the digits, and what they refuse."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from layermatch.commands import main
from layermatch.commands import outcome as outcome_module
from scarce_common_utils.images import load_images

TRAIN = ["train", "digits", "--labels-per-class", "4", "--steps", "40", "--threshold", "0.5", "--batch-size", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outcome_module, "draw_figures", lambda folder, lines, **_: [])
        patched.setattr(outcome_module, "draw_views", lambda path, rows, **_: path)
        assert main([*TRAIN, "--tracker", "none", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outcome_module, "draw_figures", lambda folder, lines, **_: [])
    monkeypatch.setattr(outcome_module, "draw_views", lambda path, rows, **_: path)


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
    assert {path.name for path in folder.iterdir()} == {"classes.txt", "result.json", "confusion.png"}
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


def test_predict_reads_a_list_from_standard_input_and_writes_json_or_csv_to_standard_output(
    run, capsys, test_images, monkeypatch
):
    write_images(test_images, count=3)
    monkeypatch.setattr("sys.stdin", io.StringIO("new/002.png\n\nnew/000.png\n"))
    assert main(["predict", str(run), "-", "-o", "-"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["path"] for row in rows] == ["new/002.png", "new/000.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO("new/002.png\n"))
    assert main(["predict", str(run), "-", "--json", "--top", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left_out"] == []
    assert found["predictions"][0]["path"] == "new/002.png"
    first, second = found["predictions"][0]["classes"]
    assert (first["class"], f"{first['confidence']:.4f}") == (rows[0]["class"], rows[0]["confidence"])
    assert second["confidence"] <= first["confidence"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["predict", str(run), "-"]) == 2
    assert "standard input is empty" in capsys.readouterr().err


def test_evaluate_prints_its_result_as_json(run, capsys):
    assert main(["evaluate", str(run), "digits", "--json", "--quiet", "--out", "here"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["written"] == "here"
    assert found["numbers"]["accuracy"] == last_accuracy(run)
    assert found | {"written": None} == json.loads(Path("here/result.json").read_text()) | {"written": None}
    assert found["command_line"].startswith("layermatch evaluate ")
    assert "/" not in found["command_line"]


COLOURS = {"otter": (200, 30, 30), "seal": (30, 30, 200)}
WITH_BAD = [
    "--labels-per-class",
    "2",
    "--steps",
    "2",
    "--batch-size",
    "2",
    "--unlabelled-ratio",
    "1",
    "--tracker",
    "none",
]


def write_photos(folder, *, counts=(6, 6)):
    rng = numpy.random.default_rng(0)
    for (name, colour), count in zip(COLOURS.items(), counts, strict=True):
        Path(folder, name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(size=(9, 9, 3)) * 30 + numpy.array(colour)
            Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(Path(folder, name, f"{number}.png"))


@pytest.fixture(scope="module")
def photos_run(tmp_path_factory):
    """A run on twelve photographs and two files that are none, which it was told to leave out; run and data."""
    root = tmp_path_factory.mktemp("photos")
    data = root / "photos"
    write_photos(data)
    whole = (data / "otter/0.png").read_bytes()
    (data / "otter/torn.png").write_bytes(whole[: len(whole) // 2])
    (data / "seal/none.jpg").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outcome_module, "draw_figures", lambda folder, lines, **_: [])
        patched.setattr(outcome_module, "draw_views", lambda path, rows, **_: path)
        assert main(["train", str(data), *WITH_BAD, "--skip-unreadable", "--out", str(root / "run")]) == 0
    return root / "run", data


def test_unreadable_images_are_left_out_where_asked_counted_and_named(photos_run, capsys):
    run, data = photos_run
    assert json.loads((run / "split.json").read_text())["unreadable"] == ["otter/torn.png", "seal/none.jpg"]
    assert json.loads((run / "result.json").read_text())["numbers"]["images_left_out"] == 2
    assert main(["train", "--resume", str(run)]) == 0  # the same images are left out, or it would be refused
    out, err = capsys.readouterr()
    assert "left out: 2 images that cannot be read; split.json names them." in out
    assert f"layermatch: 2 images that cannot be read left out:\n  {data}/otter/torn.png (" in err
    assert f"  {data}/seal/none.jpg (" in err
    for words in (
        ["evaluate", str(run), str(data), "--out", "here"],
        ["predict", str(run), str(data), "--skip-unreadable"],
    ):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert "2 images that cannot be read left out:" in err
    assert len(out.splitlines()) == 13
    assert "torn" not in out
    assert json.loads(Path("here/result.json").read_text())["numbers"]["images_left_out"] == 2
    assert main(["predict", str(run), str(data / "seal/none.jpg"), "--skip-unreadable"]) == 2
    assert "1 of 1 images cannot be used" in capsys.readouterr().err


def test_images_left_out_on_disk_and_in_memory_are_the_same(photos_run):
    run, data = photos_run
    words = ["train", str(data), *WITH_BAD, "--skip-unreadable", "--no-in-memory", "--workers", "0"]
    assert main([*words, "--out", "disk"]) == 0
    assert Path("disk/split.json").read_text() == (run / "split.json").read_text()
    assert Path("disk/metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()


def test_without_the_option_unreadable_images_are_refused(photos_run, capsys):
    run, data = photos_run
    shutil.copytree(data, "others")
    for words, fragment in [
        (["train", "others", *WITH_BAD], "2 of 14 images in others cannot be read"),
        (["evaluate", str(run), "others"], "2 of 14 images in others cannot be read"),
        (["predict", str(run), "others"], "2 of 14 images cannot be used: "),
    ]:
        assert main(words) == 2
        assert fragment in capsys.readouterr().err
    assert not Path("runs").exists()
    assert main(["train", "others", *WITH_BAD, "--skip-unreadable", "--resume", str(run)]) == 2


def test_a_model_on_colour_images_takes_grey_ones(photos_run, capsys):
    run, _ = photos_run
    write_photos("photos")
    Image.new("L", (9, 9), 77).save("grey.png")
    assert main(["predict", str(run), "grey.png", "photos"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 14
    assert main(["evaluate", str(run), "photos", "--out", "here"]) == 0
    assert "of all 12 labelled images" in capsys.readouterr().out
    Path("photos/seal").rename("photos/walrus")
    assert main(["evaluate", str(run), "photos", "--out", "there"]) == 2
    assert "has the class 'walrus', which the model does not know" in capsys.readouterr().err
    assert main(["evaluate", str(run), "digits", "--out", "there"]) == 2
    assert "digits has the class '0', which the model does not know (10 such)" in capsys.readouterr().err
    assert not Path("there").exists()


@pytest.mark.parametrize("counts", [(3, 1), (3, 0)], ids=["a class of one image", "a class of none"])
@pytest.mark.parametrize("parts", [True, False], ids=["test part", "no parts"])
def test_evaluate_takes_a_class_with_one_image_or_none(counts, parts, photos_run, capsys):
    run, _ = photos_run
    write_photos("others/test" if parts else "others", counts=counts)
    if parts:
        write_photos("others/train")
    assert main(["evaluate", str(run), "others", "--out", "here"]) == 0
    out = capsys.readouterr().out
    count = sum(counts)
    assert f"{count} test images" in out if parts else f"all {count} labelled images" in out
    assert ("n/a (-): no image of seal." in out) == (counts[1] == 0)
    found = json.loads(Path("here/result.json").read_text())
    assert [entry["class"] for entry in found["classes"]] == ["otter", "seal"]
    assert [entry["images"] for entry in found["classes"]] == list(counts)
    assert (found["classes"][1]["right"] is None) == (counts[1] == 0)
    assert [sum(row) for row in found["confusion"]] == list(counts)
    right = found["confusion"][0][0] + found["confusion"][1][1]
    assert found["numbers"] == {"accuracy": pytest.approx(100 * right / count), "images": count, "images_left_out": 0}
    assert f"accuracy: {found['numbers']['accuracy']:.2f} %" in out


def test_evaluate_takes_one_class_alone(photos_run, capsys):
    run, _ = photos_run
    write_photos("others")
    shutil.rmtree("others/otter")
    assert main(["evaluate", str(run), "others", "--out", "here"]) == 0
    assert "n/a (-): no image of otter." in capsys.readouterr().out


def test_evaluate_reads_the_run_s_own_data_as_the_run_did(capsys):
    write_photos("photos")
    Path("photos/other").mkdir()
    shutil.copy("photos/seal/0.png", "photos/other")
    Path("names.txt").write_text("seal\notter\n")
    assert main(["train", "photos", *WITH_BAD, "--classes", "names.txt", "--seed", "3", "--out", "run"]) == 0
    last = json.loads(Path("run/result.json").read_text())["numbers"]["last_accuracy"]
    capsys.readouterr()
    assert main(["evaluate", "run", "photos", "--out", "here"]) == 0
    assert f"{last:.2f} % of 2 images that the run held out" in capsys.readouterr().out
    Path("photos/otter/5.png").rename("photos/otter/9.png")
    assert main(["evaluate", "run", "photos", "--out", "there"]) == 2
    assert "its images are no longer those that run/split.json was made from" in capsys.readouterr().err
    assert not Path("there").exists()
    Path("run/model").rename("moved")  # a model that was taken elsewhere knows nothing of its data
    shutil.rmtree("photos/other")
    assert main(["evaluate", "moved", "photos", "--out", "there"]) == 0
    assert "of all 12 labelled images" in capsys.readouterr().out


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
    shutil.copytree(run, "halved")
    tensors = {name: value.half() for name, value in load_file("halved/model/model.safetensors").items()}
    save_file(tensors, "halved/model/model.safetensors")
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
        (["predict", "halved", "new"], "is of another model: "),
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
