"""`layermatch doctor` on a real tiny run whose threshold nothing passes, and on copies of it that are given one symptom each."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from layermatch.commands import main, outcome
from scarce_common_utils.doctor import Symptom, in_words
from scarce_common_utils.run_reading import read_run

WORDS = ["--labels-per-class", "2", "--batch-size", "4", "--unlabelled-ratio", "2", "--threshold", "1"]
COUNTS = {f"used_of_class_{number}": 10.0 for number in range(10)}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    run = tmp_path_factory.mktemp("doctor") / "run"
    words = [*WORDS, "--steps", "10", "--checkpoint-every", "5", "--evaluate-every", "2", "--tracker", "none"]
    with pytest.MonkeyPatch.context() as patched:  # no figure is looked at here
        patched.setattr(outcome, "draw_figures", lambda *args, **options: [])
        patched.setattr(outcome, "draw_views", lambda *args, **options: None)
        assert main(["train", "digits", *words, "--out", str(run)]) == 0
    return run


def rewritten(run, change):
    """metrics.jsonl with `change(line, share)` in place of each line; share is 0 at the first, 1 at the last."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    new = [change(line, place / (len(lines) - 1)) for place, line in enumerate(lines)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in new))


def healthy(line, share):
    numbers = {"mask_rate": 0.5, "pseudo_label_accuracy": 80.0, "labelled_loss": 2.0 - share}
    return line | numbers | COUNTS | ({"accuracy": 50.0 + 10 * share} if "accuracy" in line else {})


@pytest.fixture
def run(real, tmp_path):
    """A copy of the real run in which nothing is wrong."""
    copy = tmp_path / "run"
    shutil.copytree(real, copy)
    rewritten(copy, healthy)
    return copy


def seen(run, capsys):
    """Symptoms, by name; what would be printed of them fits 80 columns."""
    assert main(["doctor", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == str(run)
    symptoms = [Symptom(one["name"], one["seen"], one["cause"], one["try"]) for one in found["symptoms"]]
    assert all(part for symptom in symptoms for part in symptom)
    printed = in_words(read_run(run, package="layermatch", word="doctor"), symptoms, looked_at=[])
    assert [line for line in printed.splitlines() if len(line) > 80 and str(run) not in line] == []
    return {symptom["name"]: symptom for symptom in found["symptoms"]}


def test_a_real_run_whose_threshold_nothing_passes(real, capsys):
    found = seen(real, capsys)
    assert "0 % of the unlabelled images are used at the end" in found["No pseudo-label counts (mask rate 0)"]["seen"]
    assert "--threshold is 1." in found["No pseudo-label counts (mask rate 0)"]["seen"]
    assert main(["doctor", str(real)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{real}\nlayermatch train, finished, 10 steps logged\n\n1. ")
    assert max(map(len, printed.replace(str(real), "RUN").splitlines())) <= 80
    assert (
        "1. No pseudo-label counts (mask rate 0)\n   seen   0 % of the unlabelled images are used at the end" in printed
    )


def test_nothing_wrong_is_said(run, capsys):
    assert main(["doctor", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "layermatch train, finished, 10 steps logged Nothing wrong was seen. Looked at: state, checkpoints" in printed
    )


SYMPTOMS = {
    "No pseudo-label counts (mask rate 0)": (lambda line, share: line | {"mask_rate": 0.009}, "0.9 % of"),
    "Every pseudo-label counts (mask rate 1)": (lambda line, share: line | {"mask_rate": 0.995}, "80.0 % of them are"),
    "One class takes the pseudo-labels": (
        lambda line, share: line | {"used_of_class_3": 91.0},
        "50 % of those used at the end are of class '3'; a fair share of 10 classes is 10 %",
    ),
    "Some classes get no pseudo-label": (
        lambda line, share: line | dict.fromkeys(COUNTS, 20.0) | {"used_of_class_7": 0.0},
        "Of the 360 used at the end none is of class '7' (1 of 10 classes)",
    ),
    "Pseudo-labels get worse": (
        lambda line, share: line | {"pseudo_label_accuracy": 87.0 if 0.3 < share < 0.6 else 80.0},
        "80.0 % of those used are right at the end, 87.0 % in the best fifth",
    ),
    "The training loss does not fall": (
        lambda line, share: line | {"labelled_loss": 2.0 - 0.09 * (share > 0.8)},
        "is 1.91 nats in the mean of the last fifth of the readings, and was 2 in the first",
    ),
    "Test accuracy falls towards the end": (
        lambda line, share: line | ({"accuracy": 60.0 if share < 0.3 else 50.0} if "accuracy" in line else {}),
        "60.0 % at best",
    ),
    "Steps were left out": (lambda line, share: line | {"steps_left_out": 3}, "3 of 10 steps"),
    "Numbers were not finite": (
        lambda line, share: line | ({"unlabelled_loss": None} if share == 1 else {}),
        "1 times: first unlabelled_loss at step 9",
    ),
}


@pytest.mark.parametrize("name", SYMPTOMS)
def test_each_symptom_of_the_numbers_and_it_alone(name, run, capsys):
    change, told = SYMPTOMS[name]
    rewritten(run, change)
    found = seen(run, capsys)
    assert list(found) == [name]
    assert told in found[name]["seen"]


NONE = [  # just on the healthy side
    lambda line, share: line | {"mask_rate": 0.011},
    lambda line, share: line | {"mask_rate": 1.0, "pseudo_label_accuracy": 90.5},
    lambda line, share: line | {"used_of_class_3": 89.0},
    lambda line, share: line | dict.fromkeys(COUNTS, 5.0) | {"used_of_class_7": 0.0},
    lambda line, share: line | {"pseudo_label_accuracy": 86.5 if 0.3 < share < 0.6 else 80.0},
    lambda line, share: line | {"labelled_loss": 2.0 - 0.11 * (share > 0.8)},
]


@pytest.mark.parametrize("change", NONE)
def test_numbers_beside_the_thresholds_are_no_symptom(change, run, capsys):
    rewritten(run, change)
    assert seen(run, capsys) == {}


def test_too_few_readings_tell_nothing_and_it_is_said(run, capsys):
    text = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(text[:7]))
    rewritten(run, SYMPTOMS["No pseudo-label counts (mask rate 0)"][0])
    assert seen(run, capsys) == {}
    assert main(["doctor", str(run)]) == 0
    assert "Too few readings to tell a course from: 7, and 8 are needed." in capsys.readouterr().out


def test_a_run_that_did_not_end(run, capsys):
    (run / "result.json").unlink()
    found = seen(run, capsys)
    assert list(found) == ["The run was stopped before its end"]
    assert "10 steps are logged (--steps 10); the newest checkpoint is of step 10." in found.popitem()[1]["seen"]

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (run / ".holder.json").write_text(json.dumps({"process": gone.pid, "since": "2026-01-01 00:00:00"}))
    found = seen(run, capsys)
    assert list(found) == ["The run was killed"]
    assert f"Process {gone.pid} held the folder, is gone" in found["The run was killed"]["seen"]
    assert f"layermatch train --resume {run}" in found["The run was killed"]["try"]

    (run / ".holder.json").write_text(json.dumps({"process": os.getpid(), "since": "2026-01-01 00:00:00"}))
    assert list(seen(run, capsys)) == ["The run is still going on"]


def test_checkpoints_that_are_damaged(run, capsys):
    newest, older = sorted((run / "checkpoints").glob("step-*.pt"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1])
    found = seen(run, capsys)
    assert list(found) == ["A checkpoint is damaged"]
    assert f"Of 2 checkpoints 1: {newest} is torn or altered" in found["A checkpoint is damaged"]["seen"]
    assert "passes it over" in found["A checkpoint is damaged"]["try"]
    older.with_suffix(".sha256").unlink()
    found = seen(run, capsys)
    assert "Of 2 checkpoints 2" in found["A checkpoint is damaged"]["seen"]
    assert "begins at its first step again" in found["A checkpoint is damaged"]["try"]


def test_other_versions_and_broken_lines(run, capsys):
    content = json.loads((run / "environment.json").read_text())
    content["versions"]["torch"] = "2.0.0"
    (run / "environment.json").write_text(json.dumps(content))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo\n{"step": 12, "loss": 1.0')  # the last is a line under way
    found = seen(run, capsys)
    assert set(found) == {"Versions differ from those here", "metrics.jsonl cannot be read in part"}
    assert "torch 2.0.0 (here 2." in found["Versions differ from those here"]["seen"]
    assert "line 11." in found["metrics.jsonl cannot be read in part"]["seen"]


def test_it_writes_nothing(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    seen(run, capsys)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_errors_are_sentences(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"package": "imwa"}))
    words = {
        (): "RUN is missing. Give the folder of a run: layermatch doctor RUN",
        (str(tmp_path / "gone"),): "gone is no folder.",
        (str(tmp_path / "empty"),): "empty holds no config.json, so it is no run folder.",
        (str(run),): "is a run of `imwa train`. Look at it with `imwa doctor`",
    }
    for given, told in words.items():
        assert main(["doctor", *given]) == 2
        assert told in capsys.readouterr().err
    (run / "config.json").write_text("{")
    assert main(["doctor", str(run)]) == 2
    assert f"{run / 'config.json'} cannot be read as a run's configuration" in capsys.readouterr().err
