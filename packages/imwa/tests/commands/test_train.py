"""`imwa train` end to end: outputs, resume to the same bits, a real kill, and every error sentence."""

import contextlib
import json
import re
import signal
import sys
import time

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from commands.stops import kept_as_killed, resumed
from forked import process_of
from imwa.commands import main
from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint
from scarce_common_utils.images import load_images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three kinds of 8x8 patterns under noise, 40, 30 and 24 a class, as an npz file with a test part."""
    draw = numpy.random.default_rng(0)
    patterns = draw.integers(0, 256, (3, 8, 8))

    def some(counts):
        labels = numpy.repeat(numpy.arange(3), counts)
        noise = draw.integers(-60, 61, (len(labels), 8, 8))
        return (patterns[labels] + noise).clip(0, 255).astype(numpy.uint8), labels

    (x_train, y_train), (x_test, y_test) = some([40, 30, 24]), some([10, 10, 10])
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    numpy.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=["ape", "bee", "cat"])
    return path


SMALL = ["--batch-size", "8", "--steps", "6", "--seed", "3"]
IMWA = ["--method", "imwa", "--replicas", "2", "--episodes", "3", *SMALL]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def leaves(tree, path=""):
    plain = isinstance(tree, list | tuple) and all(isinstance(item, int | float | str | tuple) for item in tree)
    if isinstance(tree, dict | list | tuple) and not plain:
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in pairs for name, leaf in leaves(value, f"{path}/{key}").items()}
    return {path: tree}


def final_state(run):
    return leaves(load_checkpoint(newest_checkpoint(run / "checkpoints", print)))


def assert_same_run(one, other):
    assert lines(one) == lines(other)
    here, there = final_state(one), final_state(other)
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert torch.equal(value, there[name]) if torch.is_tensor(value) else value == there[name], name
    first, second = (json.loads((run / "result.json").read_text()) for run in (one, other))
    assert first["numbers"] == second["numbers"]


@pytest.mark.parametrize(
    ("words", "cost", "averages"),
    [
        (["--method", "single"], 20, 1),
        (["--method", "mwa", "--replicas", "2"], 40, 1),
        (["--method", "imwa", "--replicas", "3", "--episodes", "4", "--optimizer-state", "local"], 60, 4),
    ],
)
def test_each_method_does_the_whole_job_on_digits(words, cost, averages, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "digits", "--imbalance", "20", "--steps", "20", *words, "--out", str(run)]) == 0
    printed = capsys.readouterr()
    assert f"Run folder: {run}" in printed.out
    assert re.search(rf"{words[1]} +20 +{cost} ", printed.out)
    assert max(len(line) for line in printed.out.splitlines() if str(run) not in line) <= 80, printed.out
    assert ("BatchNorm statistics averaged" in printed.out) == (words[1] != "single")
    assert ("BatchNorm statistics as trained" in printed.out) == (words[1] == "single")
    assert "(139 to 6 a class)" in printed.out
    assert f"{cost}/{cost} steps" in printed.err
    for name in (
        "config.json",
        "environment.json",
        "split.json",
        "result.json",
        "by_class.json",
        "figures/accuracy_by_class.png",
    ):
        assert (run / name).stat().st_size > 0
    assert (run / "figures/gain_by_episode.png").exists() == (words[1] != "single")
    record = json.loads((run / "result.json").read_text())
    assert record["arm"] == words[1]
    assert (record["numbers"]["last_gain"] is None) == (words[1] == "single")
    assert 0 <= record["numbers"]["accuracy"] <= 100
    assert {"head", "middle", "tail", "many", "medium", "few", "accuracy_recomputed"} <= record["numbers"].keys()
    means = [line for line in lines(run) if "gain" in line]
    assert len(means) == averages
    for line in means:
        ends = [one for one in lines(run) if one.get("replica") is not None and one["episode"] == line["episode"]]
        ends = [one["accuracy"] for one in ends if one["global_step"] == line["global_step"]]
        assert len(ends) == cost // 20
        assert line["replica_accuracy"] == pytest.approx(sum(ends) / len(ends))
        assert line["gain"] == pytest.approx(line["average_accuracy"] - line["replica_accuracy"])
    counts = sorted(
        (value["training"] for value in json.loads((run / "by_class.json").read_text()).values()), reverse=True
    )
    assert counts == [139, 99, 71, 51, 36, 26, 18, 13, 9, 6]


def follow_the_card(run, data):
    """Accuracy in percent of the written model, loaded by the code of its own card."""
    code = re.findall(r"```python\n(.*?)```", (run / "model" / "README.md").read_text(), re.DOTALL)[0]
    names = {"images": data.images}
    with contextlib.chdir(run / "model"), torch.no_grad():
        exec(code, names)
    right = [name == data.class_names[k] for name, k in zip(names["names"], data.labels.tolist(), strict=True)]
    return 100.0 * sum(right) / len(right)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("single", ["--model", "small", "--steps", "12", "--batch-size", "8"]),
        ("imwa", ["--model", "resnet32", "--schedule", "steps", "--steps", "2", "--batch-size", "2"]),
        ("imwa", ["--model", "squeezenet1_1", "--image-size", "32", "--steps", "2", "--batch-size", "2"]),
    ],
)
def test_the_written_model_loaded_by_its_card_has_the_final_accuracy(method, words, pictures, tmp_path, no_figures):
    torchvision = "squeezenet1_1" in words
    if torchvision:
        pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'imwa[vision]'")
    averaged = ["--replicas", "2", "--episodes", "2"] if method == "imwa" else []
    words = ["--method", method, *averaged, *words, "--seed", "2", "--threads", "1"]
    run = tmp_path / "run"
    assert main(["train", str(pictures), *words, "--out", str(run)]) == 0
    accuracy = json.loads((run / "result.json").read_text())["numbers"]["accuracy"]
    test = load_images(str(pictures), image_size=32 if torchvision else None, seed=2)[1]
    assert follow_the_card(run, test) == accuracy
    assert f"{accuracy:.2f} % of 30 images" in (run / "model" / "README.md").read_text()
    written, last = load_file(run / "model" / "model.safetensors"), final_state(run)
    for name, value in written.items():
        assert torch.equal(value, last[f"/iterative/start/model/tensors/{name}"]), name


def test_a_run_of_enough_steps_learns(pictures, tmp_path, no_figures):
    run = tmp_path / "run"
    words = ["--replicas", "2", "--episodes", "3", "--batch-size", "16", "--steps", "40"]
    assert main(["train", str(pictures), *words, "--out", str(run)]) == 0
    assert json.loads((run / "result.json").read_text())["numbers"]["accuracy"] > 80


def test_the_same_seed_gives_the_same_run_and_another_seed_another(pictures, tmp_path, no_figures):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["train", str(pictures), "--imbalance", "4", *IMWA[:-1], seed, "--out", str(tmp_path / name)]) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert lines(tmp_path / "a") != lines(tmp_path / "c")


def test_single_is_imwa_with_one_replica(pictures, tmp_path, no_figures):
    words = ["train", str(pictures), *SMALL]
    assert main([*words, "--method", "single", "--out", str(tmp_path / "single")]) == 0
    assert (
        main([*words, "--method", "imwa", "--replicas", "1", "--episodes", "4", "--out", str(tmp_path / "imwa")]) == 0
    )
    one, other = (final_state(tmp_path / name) for name in ("single", "imwa"))
    live = [name for name in one if name.startswith("/iterative/live/")]
    assert any("weight" in name for name in live)
    assert all(
        torch.equal(one[name], other[name]) if torch.is_tensor(one[name]) else one[name] == other[name] for name in live
    )


@pytest.fixture
def no_figures(monkeypatch):
    """Runs are compared in numbers; drawing, and BatchNorm on 20 batches instead of 2, take most of a small run's time."""
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *args, **kwargs: [])
    monkeypatch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)


class Stop(Exception):
    pass


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
def test_killed_behind_any_step_and_resumed_the_run_is_the_unbroken_one(policy, pictures, tmp_path, no_figures):
    words = ["train", str(pictures), "--imbalance", "4", *IMWA, "--optimizer-state", policy, "--checkpoint-every", "1"]
    run = tmp_path / "run"
    # Of 12 steps: within a replica, at its end, at an episode's end and right after it, and before the last.
    saves = (1, 2, 4, 5, 8, 11) if policy == "average" else (3, 6, 9)
    with kept_as_killed(run, saves):
        assert main([*words, "--out", str(run)]) == 0
    for number in saves:
        killed = tmp_path / f"run-{number}"
        assert newest_checkpoint(killed / "checkpoints", print).name == f"step-{number:08d}.pt"
        torch.manual_seed(number)
        assert_same_run(resumed(killed), run)


def test_a_checkpoint_between_two_readings_of_the_loss_keeps_their_sum(pictures, tmp_path, no_figures):
    words = ["train", str(pictures), "--method", "single", "--steps", "200", "--batch-size", "4"]
    words += ["--checkpoint-every", "99", "--evaluate-every", "200"]
    run = tmp_path / "run"
    with kept_as_killed(run, [1]):
        assert main([*words, "--out", str(run)]) == 0
    assert lines(tmp_path / "run-1")[-1]["step"] == 97  # the loss is read every second step
    assert_same_run(resumed(tmp_path / "run-1"), run)


def test_killed_between_checkpoints_metrics_after_the_checkpoint_are_written_again(
    pictures, tmp_path, monkeypatch, no_figures
):
    words = ["train", str(pictures), *IMWA, "--checkpoint-every", "5"]
    assert main([*words, "--out", str(tmp_path / "straight")]) == 0
    from imwa.training import loop

    original, taken = loop.train_step, [0]

    def step(*args, **kwargs):
        taken[0] += 1
        if taken[0] == 9:
            raise Stop
        original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(Stop):
            main([*words, "--out", str(tmp_path / "run")])
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "torn')
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_killed_by_the_system_a_real_process_resumes_to_the_same_bits(pictures, tmp_path, no_figures):
    words = [
        "train",
        str(pictures),
        "--replicas",
        "2",
        "--episodes",
        "4",
        "--steps",
        "24",
        "--batch-size",
        "8",
        "--checkpoint-every",
        "3",
    ]
    run = tmp_path / "run"
    process = process_of(main, [*words, "--out", str(run)])
    deadline = time.monotonic() + 600
    while newest_checkpoint(run / "checkpoints", lambda sentence: None) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (run / "result.json").exists()
    resumed(run)
    assert main([*words, "--out", str(tmp_path / "straight")]) == 0
    assert_same_run(run, tmp_path / "straight")


def test_a_torn_checkpoint_is_named_and_the_one_before_is_used(pictures, tmp_path, capsys, no_figures):
    run, killed = tmp_path / "run", tmp_path / "run-3"
    with kept_as_killed(run, [3]):
        assert main(["train", str(pictures), *IMWA, "--checkpoint-every", "2", "--out", str(run)]) == 0
    newest = killed / "checkpoints" / "step-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:-20])
    capsys.readouterr()
    resumed(killed)
    assert "step-00000006.pt is torn" in capsys.readouterr().err
    assert_same_run(killed, run)


def test_a_finished_run_resumed_says_the_same_again(pictures, tmp_path, capsys, no_figures):
    run = tmp_path / "run"
    assert main(["train", str(pictures), *IMWA, "--out", str(run)]) == 0
    numbers, first = json.loads((run / "result.json").read_text())["numbers"], capsys.readouterr().out
    assert main(["train", "--resume", str(run)]) == 0
    assert json.loads((run / "result.json").read_text())["numbers"] == numbers
    assert capsys.readouterr().out == first


def test_half_precision(pictures, tmp_path, no_figures):
    assert main(["train", str(pictures), *IMWA, "--precision", "bf16", "--out", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("count", "said"), [(0, None), (1, "1 image without a label is"), (5, "5 images without a label are")]
)
def test_images_without_a_label_are_counted_and_left_out(count, said, tmp_path, capsys, no_figures):
    draw = numpy.random.default_rng(0)
    for name, number in (
        ("train/ape", 3),
        ("train/bee", 3),
        ("test/ape", 1),
        ("test/bee", 1),
        ("train/unlabelled", count),
    ):
        (tmp_path / "set" / name).mkdir(parents=True)
        for one in range(number):
            pixels = draw.integers(0, 256, (8, 8), dtype=numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{one}.png")
    if not count:
        (tmp_path / "set" / "train" / "unlabelled").rmdir()
    words = ["--method", "single", "--steps", "1", "--batch-size", "2", "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "set"), *words]) == 0
    printed = capsys.readouterr()
    assert "6 training images (3 a class), 2 test images." in printed.out
    assert [line for line in printed.err.splitlines() if "without a label" in line] == (
        [f"imwa: {said} not used"] if said else []
    )


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text" / "a").mkdir(parents=True)
    (tmp_path / "text" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train"], "DATA is missing"),
        (["train", "nowhere/photos"], "nowhere/photos is neither an existing path nor a known set"),
        (["train", "{folders}/empty"], "empty is an empty folder"),
        (["train", "{folders}/text"], "text holds no image"),
        (["train", "{pictures}", "--imbalance", "0.5"], r"--imbalance.*>= 1"),
        (["train", "{pictures}", "--imbalance", "200"], "imbalance is 200, but the smallest class has 24 images"),
        (["train", "{pictures}", "--replicas", "0"], r"--replicas.*>= 1"),
        (["train", "{pictures}", "--episodes", "-2"], r"--episodes.*>= 1"),
        (["train", "{pictures}", "--steps", "many"], "--steps.*many"),
        (["train", "{pictures}", "--learning-rate", "0"], r"--learning-rate.*> 0"),
        (["train", "{pictures}", "--method", "average"], "--method"),
        (["train", "{pictures}", "--optimizer-state", "keep"], "--optimizer-state"),
        (
            ["train", "{pictures}", "--method", "single", "--replicas", "3"],
            "--replicas changes nothing with --method single",
        ),
        (["train", "{pictures}", "--method", "mwa", "--episodes", "3"], "--episodes changes nothing with --method mwa"),
        (["train", "{pictures}", "--class-order", "labels"], "--class-order is labels, but without --imbalance"),
        (["train", "{pictures}", "--lr", "0.1"], "Unknown option: --lr. Here it is called --learning-rate"),
        (["train", "{pictures}", "--replica", "2"], "Did you mean.*--replicas"),
        (
            ["train", "{pictures}", "--model", "resnet-32"],
            "--model is 'resnet-32', which is not known. Did you mean resnet32",
        ),
        (["train", "{pictures}", "--device", "tpu9"], "--device is 'tpu9'"),
        (
            ["train", "{pictures}", "--out", "{folders}/used"],
            "used, which already holds files; nothing there is touched",
        ),
        (["train", "--resume", "{folders}/empty"], "empty holds no config.json, so it is no run folder"),
        (["train", "--resume", "{folders}/nothing"], "nothing is no folder"),
        (["trian", "{pictures}"], "trian"),
    ],
)
def test_each_mistake_is_one_sentence_and_exit_code_2(words, sentence, pictures, folders, capsys, monkeypatch):
    if "resnet-32" in words:
        pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'imwa[vision]'")
    monkeypatch.chdir(folders)
    before = sorted(str(path) for path in folders.rglob("*"))
    code = main([word.format(pictures=pictures, folders=folders) for word in words])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert re.search(sentence, printed.err), printed.err
    assert sorted(str(path) for path in folders.rglob("*")) == before
    assert (folders / "used" / "thesis.txt").read_text() == "mine"


def test_more_episodes_than_steps_are_said_and_run_as_many_as_steps(pictures, tmp_path, capsys, no_figures):
    words = ["train", str(pictures), "--replicas", "2", "--batch-size", "8", "--steps", "4"]
    assert main([*words, "--episodes", "9", "--out", str(tmp_path / "nine")]) == 0
    assert "--episodes is 9, but the run has 4 steps; it is run with 4" in capsys.readouterr().err
    assert main([*words, "--episodes", "4", "--out", str(tmp_path / "four")]) == 0
    assert lines(tmp_path / "nine") == lines(tmp_path / "four")


def test_a_resume_refuses_by_name_what_would_change_the_result(pictures, tmp_path, capsys, no_figures):
    run = tmp_path / "run"
    assert main(["train", str(pictures), *IMWA, "--out", str(run)]) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    for words, sentence in (
        (["--episodes", "5"], r"--episodes is 5, but the run to resume has 3"),
        (["--seed", "9"], r"--seed is 9, but the run to resume has 3"),
    ):
        assert main(["train", "--resume", str(run), *words]) == 2
        assert re.search(sentence, capsys.readouterr().err)
    assert main(["train", "digits", "--resume", str(run)]) == 2
    assert "DATA is 'digits'" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_data_that_changed_under_a_run_are_refused(pictures, tmp_path, capsys, no_figures):
    with numpy.load(pictures) as file:
        arrays = {name: file[name] for name in file.files}
    data = tmp_path / "mine.npz"
    numpy.savez(data, **arrays)
    assert main(["train", str(data), *IMWA, "--out", str(tmp_path / "run")]) == 0
    arrays["y_train"] = arrays["y_train"][::-1]
    numpy.savez(data, **arrays)
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert "split.json was made from" in capsys.readouterr().err


def test_a_diverged_run_is_named_and_keeps_its_last_checkpoint(pictures, tmp_path, capsys):
    words = [
        "--replicas",
        "2",
        "--episodes",
        "2",
        "--steps",
        "40",
        "--learning-rate",
        "1e30",
        "--checkpoint-every",
        "1",
    ]
    assert main(["train", str(pictures), *words, "--batch-size", "8", "--out", str(tmp_path / "run")]) == 2
    assert re.search(r"The loss was not finite at step \d+ of replica 0, episode 0. Lower", capsys.readouterr().err)


def test_a_model_that_cannot_take_the_images_is_refused(pictures, tmp_path, capsys):
    pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'imwa[vision]'")
    assert main(["train", str(pictures), "--model", "alexnet", "--out", str(tmp_path / "run")]) == 2
    assert "--model alexnet cannot be trained on images of 8x8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_torchvision_the_pip_line_is_given(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert main(["train", str(pictures), "--model", "resnet18", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'imwa[vision]'" in capsys.readouterr().err
