"""`layermatch train` in two gloo processes against one, and under the launchers that people use."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from command_workers import ARMS, OPTIONS, smooth_network, worker
from layermatch.commands import main

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(worker, (str(folder), free_ports(len(ARMS))), nprocs=2)
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
    from layermatch.commands import network

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "small_wide_resnet", smooth_network)
    options = [word for word in ARMS[arm] if word not in ("--accumulate", "2")] if "micro" in arm else ARMS[arm]
    assert main([*OPTIONS, *options, "--out", "one"]) == 0
    two = in_two_processes / arm
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


def launched(words, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_torchrun_starts_it_and_one_process_writes(tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [*OPTIONS, "--threshold", "0.2", "--device", "cpu", "--out", "run"]
    done = launched([*words, "-m", "layermatch.commands", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder: run") == 1
    assert len(Path(tmp_path, "run/metrics.jsonl").read_text().splitlines()) == 10
    assert len(last_state(tmp_path / "run")["random"]) == 2
    resumed = launched([*words, "-m", "layermatch.commands", "train", "--resume", "run"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "this run is finished" in resumed.stderr
    assert resumed.stdout == done.stdout
    uneven = launched([*words, "-m", "layermatch.commands", *OPTIONS, "--accumulate", "4", "--out", "uneven"], tmp_path)
    assert uneven.returncode != 0
    assert uneven.stderr.count("--batch-size 4 cannot be cut into 8 equal parts (2 processes, --accumulate 4)") == 1
    assert not Path(tmp_path, "uneven").exists()
