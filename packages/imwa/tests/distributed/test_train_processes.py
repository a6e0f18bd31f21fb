"""`imwa train` as torchrun starts it: two and four gloo processes against one, a kill and a resume, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from distributed.train_workers import trained
from forked import finished
from imwa.commands import main
from imwa.training.company import Company
from scarce_common_utils.errors import UserError

WORDS = [
    "train",
    "digits",
    "--imbalance",
    "20",
    "--replicas",
    "4",
    "--episodes",
    "3",
    "--steps",
    "9",
    "--batch-size",
    "16",
]
CODE = "import sys; from imwa.commands import main; sys.exit(main(sys.argv[1:]))"


def launch(processes, words, folder):
    """A started torchrun."""
    (folder / "code.py").write_text(CODE)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*launcher, str(folder / "code.py"), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(run):
    return json.loads((run / "result.json").read_text())["numbers"]


def same_model(one, other):
    here, there = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return all(torch.equal(value, there[name]) for name, value in here.items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imwa.commands.outcome.draw_figures", lambda *arguments, **named: [])
        assert main([*WORDS, "--out", str(run)]) == 0
    return run


def test_four_processes_write_the_run_of_one(alone, tmp_path):
    run, processes = tmp_path / "run", 4
    codes, printed = finished(processes, tmp_path / "said", trained, [*WORDS, "--deterministic", "--out", str(run)])
    assert codes == [0] * processes, printed
    assert lines(run) == lines(alone)
    assert numbers(run) == numbers(alone)
    assert same_model(run, alone)
    assert ["Run folder:" in said for said in printed] == [True, False, False, False]
    folders = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert folders == [f"process-{rank}-of-{processes}" for rank in range(processes)]


def test_stages_of_one_replica_are_those_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *arguments, **named: [])
    words = [*WORDS, "--shared-start", "0.3", "--average-until", "0.8", "--ensemble", "--deterministic"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*words, "--out", str(one)]) == 0
    codes, printed = finished(2, tmp_path / "said", trained, [*words, "--checkpoint-every", "1", "--out", str(two)])
    assert codes == [0, 0], printed
    assert lines(two) == lines(one)
    assert numbers(two) == numbers(one)
    assert same_model(two, one)
    # every process trained the single replica to the same bits, before the replicas and behind them
    newest = [sorted((two / "checkpoints").glob(f"process-{rank}-of-2/step-*.pt"))[-1] for rank in (0, 1)]
    states = [torch.load(path, weights_only=True)["iterative"] for path in newest]
    live = [state["live"]["model"]["tensors"] for state in states]
    assert all(torch.equal(value, live[1][name]) for name, value in live[0].items())
    assert torch.equal(states[0]["streams"][0], states[1]["streams"][0])
    (two / "result.json").unlink()
    for rank in (0, 1):
        shutil.rmtree(two / "model", ignore_errors=True)
        folder = two / "checkpoints" / f"process-{rank}-of-2"
        for path in sorted(folder.glob("step-*"))[2:]:  # the file and its digests: of the oldest that is kept
            path.unlink()
    codes, printed = finished(2, tmp_path / "again", trained, ["train", "--resume", str(two)])
    assert codes == [0, 0], printed
    assert "goes on at step" in printed[0]
    assert lines(two) == lines(one)
    assert same_model(two, one)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes to kill in /proc")
def test_two_processes_killed_within_an_episode_resume_to_the_bits_of_one(alone, tmp_path):
    run = tmp_path / "run"
    process = launch(2, [*WORDS, "--deterministic", "--out", str(run), "--checkpoint-every", "1"], tmp_path)
    deadline = time.monotonic() + 150
    while not list((run / "checkpoints").glob("process-1-of-2/step-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # the agent
    for pid in children_of(run):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert not (run / "result.json").exists()
    codes, printed = finished(2, tmp_path / "said", trained, ["train", "--resume", str(run)])
    assert codes == [0, 0], printed
    assert "goes on at step" in printed[0]
    assert lines(run) == lines(alone)
    assert same_model(run, alone)


def test_a_run_goes_on_with_as_many_processes_as_it_was_begun_with(tmp_path):
    (tmp_path / "process-1-of-2").mkdir()
    assert Company(group=object(), rank=1, size=2).checkpoints(tmp_path).name == "process-1-of-2"
    for other in (Company(), Company(group=object(), rank=0, size=4)):
        with pytest.raises(UserError, match=f"was begun with 2 processes, and {other.size} were started"):
            other.checkpoints(tmp_path)
    (tmp_path / "process-1-of-2").rmdir()
    (tmp_path / "step-00000003.pt").touch()
    assert Company().checkpoints(tmp_path) == tmp_path
    with pytest.raises(UserError, match="was begun with 1 processes"):
        Company(group=object(), rank=0, size=4).checkpoints(tmp_path)


def children_of(run):
    """Processes that have this run folder in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if str(run).encode() in words:
                found.append(int(entry))
    return found


def test_more_processes_than_replicas_are_refused(tmp_path):
    words = ["train", "digits", "--method", "single", "--out", str(tmp_path / "run")]
    codes, printed = finished(2, tmp_path / "said", trained, words)
    assert codes == [2, 2]
    for said in printed:
        assert "2 processes were started, but --method single trains 1 replica" in said
    assert not (tmp_path / "run").exists()
