"""`imwa doctor` and `imwa show` on a real tiny run with rare classes, and on copies of it that are given one symptom each."""

import json
import shutil

import pytest

from imwa.commands import main, outcome


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    run = tmp_path_factory.mktemp("doctor") / "run"
    words = ["--imbalance", "50", "--replicas", "2", "--episodes", "2", "--steps", "10", "--batch-size", "16"]
    with pytest.MonkeyPatch.context() as patched:  # no figure is looked at here
        patched.setattr(outcome, "draw_figures", lambda *args, **options: [])
        assert main(["train", "digits", *words, "--out", str(run)]) == 0
    return run


def rewritten(run, change):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def healthy(line):
    if "gain" in line:
        own = {"average_accuracy": 60.0, "replica_accuracy": 60.5, "gain": -0.5}
        return line | own | ({"recomputed_accuracy": 61.0} if "recomputed_accuracy" in line else {})
    return line | ({"loss": 2.0 - line["step"] / 40} if "loss" in line else {})


def edited(run, name, change):
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(change(content)))


def with_numbers(**numbers):
    return lambda record: record | {"numbers": record["numbers"] | numbers}


@pytest.fixture
def run(real, tmp_path):
    """A copy of the real run in which nothing is wrong."""
    copy = tmp_path / "run"
    shutil.copytree(real, copy)
    rewritten(copy, healthy)
    edited(copy, "by_class.json", lambda rows: {name: row | {"accuracy": 1.0} for name, row in rows.items()})
    edited(copy, "result.json", with_numbers(accuracy=60.0, accuracy_recomputed=61.0))
    return copy


def seen(run, capsys):
    assert main(["doctor", str(run), "--json"]) == 0
    return {symptom["name"]: symptom for symptom in json.loads(capsys.readouterr().out)["symptoms"]}


def averages(**numbers):
    return lambda line: line | (numbers if "gain" in line else {})


def test_a_real_run_whose_rare_classes_are_never_right(real, capsys):
    assert main(["doctor", str(real)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(real), "RUN").splitlines())) <= 80
    rows = json.loads((real / "by_class.json").read_text())
    zero = [name for name, row in rows.items() if row["accuracy"] == 0]
    rarest = min(zero, key=lambda name: rows[name]["training"])
    words = " ".join(printed.split())
    assert f"Of 10 classes {len(zero)} have an accuracy of 0 %. With their training images: {rarest} (" in words
    assert "--loss balanced-softmax" in words


def test_nothing_wrong_is_said(run, capsys):
    assert main(["doctor", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "imwa train, finished, 20 steps logged Nothing wrong was seen. Looked at: state, checkpoints" in printed


def test_an_average_below_its_replicas_because_of_stale_statistics(run, capsys):
    rewritten(run, averages(average_accuracy=40.0, replica_accuracy=60.0, gain=-20.0, recomputed_accuracy=58.0))
    found = seen(run, capsys)
    assert list(found) == ["An average is far below its replicas"]
    (symptom,) = found.values()
    assert "Of 2 averages 2. The average of episode 0 is far below its replicas: 40 against 60" in symptom["seen"]
    assert "With BatchNorm measured anew it has 58, which gives 90 % of it back" in symptom["cause"]
    assert "mostly stale statistics" in symptom["cause"]
    assert symptom["try"].startswith("For BatchNorm: evaluate and keep the final model")


def test_an_average_below_its_replicas_in_another_basin(run, capsys):
    rewritten(run, averages(average_accuracy=40.0, replica_accuracy=60.0, gain=-20.0, recomputed_accuracy=39.0))
    (symptom,) = seen(run, capsys).values()
    assert "the replicas left for different basins" in symptom["cause"]
    assert symptom["try"].startswith("Let replicas part less")


def test_the_last_average_a_little_below_with_batch_norm_measured_anew_beside_it(run, capsys):
    rewritten(run, averages(average_accuracy=57.0, replica_accuracy=60.0, gain=-3.0, recomputed_accuracy=58.5))
    found = seen(run, capsys)
    assert list(found) == ["The last average is below its replicas"]
    (symptom,) = found.values()
    assert (
        "57.00 % against 60.00 % in their mean, -3.00 points. With BatchNorm measured anew it has 58.50 %"
        in symptom["seen"]
    )
    rewritten(run, averages(average_accuracy=58.1, replica_accuracy=60.0, gain=-1.9))
    assert seen(run, capsys) == {}


def test_stale_statistics_of_the_final_model(run, capsys):
    edited(run, "result.json", with_numbers(accuracy=60.0, accuracy_recomputed=62.5))
    found = seen(run, capsys)
    assert list(found) == ["BatchNorm's statistics cost accuracy"]
    assert "60.00 % as it was averaged and 62.50 % with" in found["BatchNorm's statistics cost accuracy"]["seen"]


def test_a_loss_that_does_not_fall_and_replicas_left_out(run, capsys):
    rewritten(run, lambda line: line | ({"loss": 2.0} if "loss" in line else {}))
    assert list(seen(run, capsys)) == ["The training loss does not fall"]
    rewritten(run, lambda line: averages(left_out=1.0)(healthy(line)))
    found = seen(run, capsys)
    assert list(found) == ["Replicas were left out"]
    assert "In no average since they diverged: 2, the first in episode 0." in found["Replicas were left out"]["seen"]


def test_a_run_that_was_stopped(run, capsys):
    (run / "result.json").unlink()
    found = seen(run, capsys)
    assert list(found) == ["The run was stopped before its end"]
    assert found.popitem()[1]["try"] == f"imwa train --resume {run}"


def test_show_compares_two_runs(real, run, capsys):
    edited(run, "config.json", lambda config: config | {"options": config["options"] | {"replicas": 5}})
    edited(run, "result.json", with_numbers(accuracy=12.345))
    assert main(["show", str(real), str(run)]) == 0
    _, table, said = capsys.readouterr().out.split("\n\n")
    rows = {line[:26].strip(): line[26:].split() for line in table.splitlines()}
    assert rows["--replicas"] == ["2", "5"]
    assert [name for name in rows if name.startswith("--")] == ["--replicas"]
    assert rows["accuracy %"][1] == "12.35"
    assert "these alone" in said


def test_show_refuses_another_packages_run(run, capsys):
    edited(run, "config.json", lambda config: config | {"package": "layermatch"})
    assert main(["show", str(run)]) == 2
    assert "is a run of `layermatch train`. Look at it with `layermatch show`" in capsys.readouterr().err
