"""`imwa train`: what it tells of each average, that telling changes nothing, and --on-nan and --batch-norm end to end."""

import json
import math
import re

import numpy
import pytest
import torch
from safetensors.torch import load_file

from commands.stops import kept_as_killed, resumed
from imwa.barrier import barrier_height
from imwa.commands import main
from imwa.commands.diagnosis import chosen_episodes
from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint
from scarce_common_utils.errors import UserError

SMALL = ["--batch-size", "8", "--steps", "6", "--seed", "3"]
IMWA = ["--replicas", "3", "--episodes", "3", *SMALL]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three kinds of 8x8 patterns under noise, as an npz file with a test part."""
    draw = numpy.random.default_rng(0)
    patterns = draw.integers(0, 256, (3, 8, 8))

    def some(counts):
        labels = numpy.repeat(numpy.arange(3), counts)
        return (patterns[labels] + draw.integers(-60, 61, (len(labels), 8, 8))).clip(0, 255).astype(numpy.uint8), labels

    (x_train, y_train), (x_test, y_test) = some([40, 30, 24]), some([10, 10, 10])
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    numpy.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=["ape", "bee", "cat"])
    return str(path)


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    """BatchNorm is measured on 2 batches instead of 20, which is most of what looking costs here."""
    monkeypatch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *args, **kwargs: [])


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def averages(run):
    return [line for line in lines(run) if "average_accuracy" in line]


def result(run):
    return json.loads((run / "result.json").read_text())


def train(pictures, run, *words):
    assert main(["train", pictures, *words, "--out", str(run)]) == 0
    return run


def model_of(run):
    return load_file(run / "model" / "model.safetensors")


def leaves(tree, path=""):
    if isinstance(tree, dict | list | tuple):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in pairs for name, leaf in leaves(value, f"{path}/{key}").items()}
    return {path: tree}


def final_state(run):
    return leaves(load_checkpoint(newest_checkpoint(run / "checkpoints", print)))


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        for name, value in one.items()
    )


def test_every_average_is_told_of_and_drawn(pictures, tmp_path, capsys):
    run = train(pictures, tmp_path / "run", *IMWA, "--barrier", "0,last")
    printed = capsys.readouterr().out
    means, numbers, units = averages(run), result(run)["numbers"], result(run)["units"]
    assert len(means) == 3
    for line in means:
        assert line["gain"] == pytest.approx(line["average_accuracy"] - line["replica_accuracy"])
        assert 0 < line["spread"] < 1
        assert 0 <= line["recomputed_accuracy"] <= 100
        points = [one for one in lines(run) if one["episode"] == line["episode"] and "point" in one]
        if line["episode"] == 1:
            assert points == []
            assert "barrier" not in line
            continue
        pairs = [(0, 1), (1, 2)]
        for name, height in (("segment_loss", "barrier"), ("segment_loss_recomputed", "barrier_recomputed")):
            curves = [[one for one in points if (one["from_replica"], one["to_replica"]) == pair] for pair in pairs]
            heights = [
                barrier_height([one["point"] for one in curve], [one[name] for one in curve]) for curve in curves
            ]
            assert [len(curve) for curve in curves] == [11, 11]
            assert line[height] == pytest.approx(max(heights))
    assert numbers["barrier"] == max(line["barrier"] for line in means if "barrier" in line)
    assert numbers["last_spread"] == 100 * means[-1]["spread"]
    assert numbers["left_out"] == numbers["collapses"] == 0
    assert {name for name, value in numbers.items() if value is not None} <= units.keys()
    assert result(run)["notes"] == []
    for name in ("gain_by_episode", "accuracy_by_class", "accuracy_by_group", "loss_barrier"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5000
    assert "last spread %" in printed
    assert "highest barrier, nats" in printed
    assert max(len(line) for line in printed.splitlines() if str(run) not in line) <= 80


@pytest.mark.parametrize("start", [[], ["--shared-start", "0.4", "--average-until", "0.9"]])
def test_telling_changes_no_bit_of_the_run(start, pictures, tmp_path, no_figures):
    told = train(pictures, tmp_path / "told", *IMWA, *start, "--barrier", "0")
    plain = train(pictures, tmp_path / "plain", *IMWA, *start, "--no-diagnostics")
    assert same(model_of(told), model_of(plain))
    one, other = (
        {name: value for name, value in final_state(run).items() if "diagnostics" not in name and name != "/digest"}
        for run in (told, plain)
    )
    assert same(one, other)
    shared = {"step", "episode", "replica", "global_step", "loss", "accuracy", "average_accuracy", "replica_accuracy"}
    kept = [
        [{name: value for name, value in line.items() if name in shared} for line in lines(run) if "point" not in line]
        for run in (told, plain)
    ]
    assert kept[0] == kept[1]
    assert any("spread" in line for line in averages(told))
    assert not any("spread" in line or "point" in line for line in lines(plain))
    assert [line["episode"] for line in averages(plain) if "recomputed_accuracy" in line] == [
        averages(plain)[-1]["episode"]
    ]


class Stop(Exception):
    pass


def test_killed_anywhere_and_resumed_the_same_is_told(pictures, tmp_path, monkeypatch, capsys, no_figures):
    monkeypatch.setattr("imwa.diagnostics.has_collapsed", lambda report, *, drop: True)
    straight = tmp_path / "run"
    with kept_as_killed(
        straight, (4, 8)
    ):  # the second replica's end; in the next episode the first's, whose neighbour comes
        train(pictures, straight, *IMWA, "--barrier", "1", "--checkpoint-every", "1")
    printed = capsys.readouterr().err
    assert len(re.findall("average of episode", printed)) == 1  # three averages were called collapses
    [note] = result(straight)["notes"]
    assert " ".join(printed.split()).count(note) == 1
    assert "average of episode 0 is far below" in note
    for saves in (4, 8):
        torch.manual_seed(saves)
        run = resumed(tmp_path / f"run-{saves}")
        assert lines(run) == lines(straight)
        assert same(final_state(run), final_state(straight))
        assert result(run)["numbers"] == result(straight)["numbers"]
        assert result(run)["notes"] == [note]
        assert ("average of episode" in capsys.readouterr().err) == (saves < 6)  # told before the kill: not again


def test_batch_norm_is_measured_anew_as_often_as_asked_for(pictures, tmp_path, no_figures):
    words = ["--replicas", "2", "--episodes", "6", *SMALL]
    anew = {
        name: [line["episode"] for line in averages(train(pictures, tmp_path / name, *words, *more)) if "recomputed_accuracy" in line]
        for name, more in {"default": [], "third": ["--recompute-every", "4"]}.items()
    }  # fmt: skip
    assert anew == {"default": [0, 1, 2, 3, 4, 5], "third": [3, 5]}


def diverge(monkeypatch, *, at):
    """Weights become NaN after the steps of these numbers, counted over all replicas from 1."""
    from imwa.training import loop

    original, taken = loop.train_step, []

    def step(state, *args, **kwargs):
        original(state, *args, **kwargs)
        taken.append(1)
        if len(taken) in at:
            with torch.no_grad():
                state.model.conv.weight.fill_(math.nan)

    monkeypatch.setattr(loop, "train_step", step)


def test_a_replica_that_diverged_is_left_out_and_counted(pictures, tmp_path, monkeypatch, no_figures):
    diverge(monkeypatch, at={3, 10})  # replica 1 of episode 0 in its first step, replica 1 of episode 1 in its last
    run = train(pictures, tmp_path / "run", *IMWA, "--on-nan", "leave-out", "--barrier", "all")
    assert result(run)["numbers"]["left_out"] == 2
    assert result(run)["units"]["left_out"] == "replicas"
    assert [line.get("left_out") for line in averages(run)] == [1, 1, None]
    for line in averages(run)[:2]:
        ends = [one for one in lines(run) if one.get("global_step") == line["global_step"] and "replica" in one]
        kept = [one["accuracy"] for one in ends if one["replica"] != 1]
        assert line["replica_accuracy"] == pytest.approx(sum(kept) / 2)
        pairs = {
            (one["from_replica"], one["to_replica"])
            for one in lines(run)
            if one["episode"] == line["episode"] and "point" in one
        }
        assert pairs == {(0, 2)}
        assert 0 < line["spread"] < 1
    assert any(line.get("loss", 0.0) is None for line in lines(run))  # the loss that was no number
    assert all(torch.isfinite(value.double()).all() for value in model_of(run).values())


def test_a_replica_that_diverged_stops_the_run_by_default(pictures, tmp_path, monkeypatch, capsys):
    diverge(monkeypatch, at={2})
    assert main(["train", pictures, *IMWA, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "'model.conv.weight' holds NaN or infinity after step 1 of replica 0, episode 0" in error
    assert "--on-nan leave-out" in error
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_of_which_no_replica_is_left_stops(pictures, tmp_path, monkeypatch, capsys):
    diverge(monkeypatch, at={1, 3, 5})
    assert main(["train", pictures, *IMWA, "--on-nan", "leave-out", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "None of the 3 replicas of episode 0 can be averaged" in error


def test_pooled_statistics_are_the_mixture_s(pictures, tmp_path, no_figures):
    words = ["--method", "mwa", "--replicas", "3", *SMALL]
    averaged = train(pictures, tmp_path / "averaged", *words)
    pooled = train(pictures, tmp_path / "pooled", *words, "--batch-norm", "pooled")
    one, other = model_of(averaged), model_of(pooled)
    variances = [name for name in one if name.endswith("running_var")]
    assert len(variances) == 7
    for name, value in one.items():
        if name in variances:
            assert (other[name] >= value).all()
            assert (other[name] > value).any()
        else:
            assert torch.equal(other[name], value), name
    assert result(averaged)["numbers"]["replica_accuracy"] == result(pooled)["numbers"]["replica_accuracy"]
    assert result(averaged)["numbers"]["accuracy_recomputed"] == result(pooled)["numbers"]["accuracy_recomputed"]
    assert json.loads((pooled / "config.json").read_text())["options"]["batch_norm"] == "pooled"
    assert result(averaged)["digest"] != result(pooled)["digest"]


def test_pooled_and_left_out_resume_to_the_same_bits(pictures, tmp_path, monkeypatch, no_figures):
    from imwa.training import loop

    words = [*IMWA, "--batch-norm", "pooled", "--on-nan", "leave-out", "--checkpoint-every", "1"]
    original, runs = loop.train_step, []
    for stop in (None, 12):
        with monkeypatch.context() as patch:
            diverge(patch, at={4})
            poisoned, taken = loop.train_step, []

            def step(state, *args, taken=taken, stop=stop, poisoned=poisoned, **kwargs):
                taken.append(1)
                if len(taken) == stop:
                    raise Stop
                poisoned(state, *args, **kwargs)

            patch.setattr(loop, "train_step", step)
            run = tmp_path / str(stop)
            if stop is None:
                train(pictures, run, *words)
            else:
                with pytest.raises(Stop):
                    main(["train", pictures, *words, "--out", str(run)])
        assert loop.train_step is original
        runs.append(run)
    assert main(["train", "--resume", str(runs[1])]) == 0
    assert same(final_state(runs[0]), final_state(runs[1]))
    assert lines(runs[0]) == lines(runs[1])
    assert [result(run)["numbers"]["left_out"] for run in runs] == [1, 1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--barrier", "3"], r"--barrier is '3', and '3' is no episode of this run. Give all, or numbers from 0 to 2"),
        (["--barrier", "0,first"], "'first' is no episode"),
        (["--barrier", "-1"], "--barrier"),
        (["--recompute-every", "0"], r"--recompute-every.*>= 1"),
        (["--method", "single", "--barrier", "all"], "--barrier changes nothing with --method single"),
        (["--method", "single", "--no-diagnostics"], "--diagnostics changes nothing with --method single"),
        (["--method", "mwa", "--recompute-every", "2"], "--recompute-every changes nothing with --method mwa"),
    ],
)
def test_each_mistake_is_one_sentence_and_nothing_is_written(words, sentence, pictures, tmp_path, capsys):
    given = ["--episodes", "3", "--replicas", "2"] if "--method" not in words else []
    assert main(["train", pictures, *given, *SMALL, *words, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert re.search(sentence, printed.err), printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_episodes_of_the_barrier():
    assert chosen_episodes(None, 3) == []
    assert chosen_episodes("all", 3) == [0, 1, 2]
    assert chosen_episodes("last, 0,0", 10) == [0, 9]
    with pytest.raises(UserError, match="'' is no episode"):
        chosen_episodes("", 3)
