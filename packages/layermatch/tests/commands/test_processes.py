"""`layermatch train` in two gloo processes against one, and under the launchers that people use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from command_workers import ARMS, OPTIONS, launched, smooth_network, worker
from forked import exit_code, meeting_point, run_together
from layermatch.commands import main

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    _stores, environments = zip(*(meeting_point() for _ in range(len(ARMS) + 2)), strict=True)
    run_together(worker, str(folder), environments)
    return folder


def last_state(folder):
    return torch.load(max(Path(folder, "checkpoints").glob("*.pt")), weights_only=True)


def tensors(state, path=""):
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        for name, value in state.items() if isinstance(state, dict) else enumerate(state):
            if name != "random":
                yield from tensors(value, f"{path}/{name}")


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_give_what_one_gives(arm, in_two_processes, tmp_path, monkeypatch):
    from layermatch.commands import network, outcome

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "small_wide_resnet", smooth_network)
    monkeypatch.setattr(outcome, "draw_figures", lambda folder, lines, **_: [])
    monkeypatch.setattr(outcome, "draw_views", lambda path, rows, **_: path)
    options = [word for word in ARMS[arm] if word not in ("--accumulate", "2")] if "micro" in arm else ARMS[arm]
    assert main([*OPTIONS, *options, "--out", "one"]) == 0
    two = in_two_processes / arm
    assert len(last_state(two)["random"]) == 2
    ours, theirs = dict(tensors(last_state("one"))), dict(tensors(last_state(two)))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    lines = [[json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()] for run in ("one", two)]
    for first, second in zip(*lines, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert value == pytest.approx(second[name], rel=1e-3, abs=1e-4), name
    assert any(line.get("mask_rate", 0) > 0 for line in lines[0]) or arm == "pseudolabel"


def test_one_process_speaks_and_a_finished_run_says_the_same_again(in_two_processes):
    said = {file.name: file.read_text() for file in (in_two_processes / "said").iterdir()}
    assert said["layermatch-0.out"].count("Run folder: layermatch") == 1
    assert said["resumed-0.out"] == said["layermatch-0.out"]
    assert "this run is finished" in said["resumed-0.err"]
    assert {name for name, text in said.items() if text and "-1." in name} == set()


def test_a_batch_that_two_processes_cannot_share_is_refused_once(in_two_processes):
    said = {file.name: file.read_text() for file in (in_two_processes / "said").iterdir()}
    sentence = "--batch-size 4 cannot be cut into 8 equal parts (2 processes, --accumulate 4)"
    assert said["uneven-0.err"].count(sentence) == 1
    assert said["uneven-1.err"] == ""
    assert not (in_two_processes / "uneven").exists()


LAUNCHED = [*OPTIONS, "--threshold", "0.2", "--device", "cpu", "--out", "run"]


def is_whole(run, *, processes):
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10))
    assert Path(run, "result.json").is_file()
    assert len(last_state(run)["random"]) == processes


def test_torchrun_starts_it_and_one_process_writes(tmp_path):
    """With its own processes to their very end, where an abort was seen once; figures, drawn before it, are left out."""
    Path(tmp_path, "script.py").write_text(
        "from layermatch.commands import outcome, run\n"
        "outcome.draw_figures, outcome.draw_views = lambda folder, lines, **_: [], lambda path, rows, **_: path\n"
        "run()\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path)}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
    done = subprocess.run(
        [*words, *LAUNCHED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder: run") == 1
    is_whole(tmp_path / "run", processes=2)


def test_accelerates_launcher_starts_it(tmp_path, monkeypatch):
    """The process that the launcher would start is forked here, with its words and its environment.

    accelerate starts several processes on GPUs; told --cpu it starts one, whatever --num_processes says.
    """
    from accelerate.commands import launch

    started = []

    class Process:
        def __init__(self, words, *, env):
            started.append(words[1:3])
            self.words, self.environment, self.returncode = words[3:], env, None

        def wait(self):
            self.returncode = exit_code(launched, self.words, str(tmp_path), self.environment)

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(launch.subprocess, "Popen", Process)
    words = ["--cpu", "--num_processes", "2", "-m", "layermatch.commands", *LAUNCHED]
    launch.launch_command(launch.launch_command_parser().parse_args(words))
    assert started == [["-m", "layermatch.commands"]]
    assert (tmp_path / "printed.txt").read_text().count("Run folder: run") == 1
    is_whole(tmp_path / "run", processes=1)
