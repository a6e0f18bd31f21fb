"""The run folder: made once, never over another, taken up again by the same command alone."""

import json

import pytest

from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record, read_record
from scarce_common_utils.run_folder import RunFolder, config_digest

KIND = {"package": "scarce-common-utils", "command": "train"}


def make(path, **config):
    return RunFolder.create(path, default_name="digits", config={"seed": 0, **config}, **KIND)


def test_what_was_asked_comes_back(tmp_path):
    run = make(tmp_path / "run", steps=10)
    again = RunFolder.reopen(run.path, **KIND)
    assert again.config == {"seed": 0, "steps": 10}
    assert again.digest == run.digest
    environment = json.loads((run.path / "environment.json").read_text())
    assert {"python", "versions", "threads", "device"} <= environment.keys()
    assert "torch" in environment["versions"]


def test_the_default_name_is_never_used_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [make(None).path.as_posix() for _ in range(3)] == ["runs/digits", "runs/digits-2", "runs/digits-3"]


def test_a_used_folder_and_a_file_are_refused_and_untouched(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"already holds files; nothing there is touched\. Name a new folder\.$"):
        make(tmp_path / "used")
    make(tmp_path / "run")
    with pytest.raises(UserError, match="or go on with it by --resume"):
        make(tmp_path / "run")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file"):
        make(tmp_path / "used" / "thesis.txt")


def test_metrics_lines_are_cut_at_the_checkpoint(tmp_path):
    run = make(tmp_path / "run")
    for step in range(5):
        run.log(step, loss=step / 2, broken=float("nan"))
    with run.metrics_file.open("a") as file:
        file.write('{"step": 5, "lo')
    assert [line["step"] for line in run.metrics()] == [0, 1, 2, 3, 4]
    run.cut_metrics(3)
    run.log(3, loss=9.0)
    assert [(line["step"], line["loss"]) for line in run.metrics()] == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]
    assert run.metrics()[0]["broken"] is None


def test_a_foreign_folder_is_named(tmp_path):
    run = make(tmp_path / "run")
    with pytest.raises(UserError, match="is no folder"):
        RunFolder.reopen(tmp_path / "nowhere", **KIND)
    with pytest.raises(UserError, match=r"holds no config\.json"):
        RunFolder.reopen(tmp_path, **KIND)
    with pytest.raises(UserError, match="is a run of `scarce-common-utils train`"):
        RunFolder.reopen(run.path, package="imwa", command="train")
    (run.path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read as a run's configuration"):
        RunFolder.reopen(run.path, **KIND)


def test_the_digest_follows_what_decides_the_numbers_alone():
    base = {"seed": 0, "steps": 5, "out": None, "device": "cpu"}
    assert config_digest(base) == config_digest({**base, "out": "elsewhere", "device": "cuda"})
    assert config_digest(base) != config_digest({**base, "steps": 6})


def test_result_is_a_record(tmp_path):
    run = make(tmp_path / "run")
    record = Record(experiment="digits", arm="fixmatch", seed=0, numbers={"accuracy": 90.0, "missing": float("inf")})
    read = read_record(run.write_result(record))
    assert read.numbers == {"accuracy": 90.0, "missing": None}
    with pytest.raises(UserError, match=r"split\.json cannot be read"):
        run.read_json("split.json")
