"""The controls of `imwa train`: what is only looked at changes no bit, one replica is the plain run, resume, refusals."""

import json

import numpy
import pytest
import torch
from safetensors.torch import load_file

from commands.stops import kept_as_killed, resumed
from imwa.commands import main
from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint

SMALL = ["--batch-size", "8", "--steps", "10", "--seed", "3"]
IMWA = ["--replicas", "2", "--episodes", "3", *SMALL]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    draw = numpy.random.default_rng(0)
    patterns = draw.integers(0, 256, (3, 8, 8))

    def some(count):
        labels = numpy.arange(count) % 3
        return (patterns[labels] + draw.integers(-60, 61, (count, 8, 8))).clip(0, 255).astype(numpy.uint8), labels

    (x_train, y_train), (x_test, y_test) = some(60), some(30)
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    numpy.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=["ape", "bee", "cat"])
    return path


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *args, **kwargs: [])
    monkeypatch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)


def run(data, words, folder):
    assert main(["train", str(data), *words, "--out", str(folder)]) == 0
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(folder):
    return json.loads((folder / "result.json").read_text())["numbers"]


def same_model(one, other):
    here, there = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    return all(torch.equal(value, there[name]) for name, value in here.items())


def test_a_moving_average_and_an_ensemble_are_looked_at_and_change_nothing(pictures, tmp_path):
    plain = run(pictures, IMWA, tmp_path / "plain")
    watched = run(pictures, [*IMWA, "--ema-decay", "0.8", "--ensemble"], tmp_path / "watched")
    assert same_model(plain, watched)
    beside = {"ema", "ema_recomputed", "ensemble"}
    one, other = numbers(plain), numbers(watched)
    assert all(one[name] == other[name] for name in one.keys() - beside)
    assert all(one[name] is None and 0 <= other[name] <= 100 for name in beside)


def test_one_replica_with_a_moving_average_is_the_plain_run_with_it(pictures, tmp_path):
    words = [*SMALL, "--ema-decay", "0.8"]
    single = run(pictures, ["--method", "single", *words], tmp_path / "single")
    imwa = run(pictures, ["--replicas", "1", "--episodes", "4", *words], tmp_path / "imwa")
    assert same_model(single, imwa)
    assert numbers(single)["ema"] == numbers(imwa)["ema"]


@pytest.fixture(scope="module")
def warm_single(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm") / "single"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imwa.commands.outcome.draw_figures", lambda *args, **kwargs: [])
        return run(pictures, ["--method", "single", *SMALL, "--warm-up", "0.2"], folder)


@pytest.mark.parametrize(
    "stages",
    [["--shared-start", "0.3"], ["--average-until", "0.5"], ["--shared-start", "0.2", "--average-until", "0.6"]],
)
def test_one_replica_in_stages_is_the_plain_run(stages, pictures, tmp_path, warm_single):
    staged = ["--replicas", "1", "--episodes", "2", *stages, *SMALL, "--warm-up", "0.2"]
    assert same_model(warm_single, run(pictures, staged, tmp_path / "staged"))


def test_the_shared_start_is_trained_once_and_the_gain_is_that_of_the_replicas(pictures, tmp_path):
    folder = run(
        pictures,
        ["--method", "mwa", "--replicas", "3", "--shared-start", "0.3", "--ensemble", *SMALL],
        tmp_path / "run",
    )
    steps = [line for line in lines(folder) if "replica" in line and "loss" in line]
    assert [(line["replica"], line["global_step"]) for line in steps] == [
        *((0, step) for step in range(3)),
        *((m, step) for m in range(3) for step in range(3, 10)),
    ]
    assert [line["step"] for line in steps] == list(range(3 + 3 * 7))
    means = [line for line in lines(folder) if "average_accuracy" in line]
    assert [("gain" in line, line["episode"], line["step"]) for line in means] == [(False, 0, 2), (True, 1, 23)]
    assert numbers(folder)["last_gain"] == means[1]["gain"] == numbers(folder)["first_gain"]
    single = run(pictures, ["--method", "single", *SMALL], tmp_path / "single")
    first = [line["loss"] for line in lines(single) if "loss" in line]
    assert [line["loss"] for line in steps[:10]] == first  # replica 0 is the plain run


@pytest.mark.parametrize("stages", [["--shared-start", "0.3"], ["--average-until", "0.4"]])
def test_killed_in_any_stage_and_resumed_the_run_is_the_unbroken_one(stages, pictures, tmp_path):
    saves = (2, 3, 4, 8, 9, 12) if "0.3" in stages else (4, 7, 8, 9, 13)
    straight = tmp_path / "run"
    with kept_as_killed(straight, saves):
        run(pictures, [*IMWA, *stages, "--ema-decay", "0.8", "--ensemble", "--checkpoint-every", "1"], straight)
    for number in saves:
        torch.manual_seed(number)
        folder = resumed(tmp_path / f"run-{number}")
        assert lines(folder) == lines(straight)
        assert numbers(folder) == numbers(straight)
        assert same_model(folder, straight)
        assert load_checkpoint(newest_checkpoint(folder / "checkpoints", print))["stage"] == 1


def test_a_run_starts_from_the_weights_of_another(pictures, tmp_path, capsys):
    first = run(pictures, ["--method", "single", *SMALL], tmp_path / "first")
    weights = first / "model" / "model.safetensors"
    words = ["--method", "single", "--batch-size", "8", "--steps", "1", "--init-from", str(weights)]
    second = run(pictures, [*words, "--learning-rate", "1e-30", "--weight-decay", "0"], tmp_path / "second")
    here, there = (load_file(folder / "model" / "model.safetensors") for folder in (second, first))
    kept = [name for name in there if "weight" in name and "classifier" not in name]
    assert len(kept) > 5
    assert all(torch.equal(here[name], there[name]) for name in kept)
    assert not torch.equal(here["classifier.weight"], there["classifier.weight"])
    changed = load_file(weights)
    changed["conv.weight"] += 1
    from safetensors.torch import save_file

    save_file(changed, weights)
    capsys.readouterr()
    assert main(["train", "--resume", str(second)]) == 2
    assert "split.json was made from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "single", "--ensemble"], "--ensemble changes nothing with --method single"),
        (["--method", "single", "--shared-start", "0.1"], "--shared-start changes nothing with --method single"),
        (["--shared-start", "0.5", "--average-until", "0.4"], "--shared-start is 0.5 and --average-until 0.4"),
        (["--warm-up", "0.1", "--schedule", "steps"], "--warm-up is 0.1, but --schedule steps"),
        (["--ema-decay", "1"], "--ema-decay.*< 1"),
        (["--average-until", "0"], "--average-until.*> 0"),
        (["--init-from", "nowhere.safetensors"], "--init-from nowhere.safetensors cannot be read"),
    ],
)
def test_each_mistake_is_one_sentence_and_exit_code_2(words, sentence, pictures, tmp_path, capsys):
    import re

    assert main(["train", str(pictures), *words, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) == 1
    assert re.search(sentence, printed.err), printed.err
    assert not (tmp_path / "run").exists()
