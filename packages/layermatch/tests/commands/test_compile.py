"""`layermatch train --compile`: the network through torch.compile and its C++ code, against the plain run."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from command_workers import OPTIONS
from layermatch.commands import main, network, outcome
from layermatch.commands.launch import find_compiler


def tiny_network(classes, **_):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, classes))


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "small_wide_resnet", tiny_network)
    monkeypatch.setattr(outcome, "draw_figures", lambda folder, lines, **_: [])
    monkeypatch.setattr(outcome, "draw_views", lambda path, rows, **_: path)


@pytest.mark.skipif(
    find_compiler() is None, reason="torch.compile needs a C++ compiler on a CPU, and there is none here"
)
def test_a_compiled_run_follows_the_plain_one(monkeypatch):
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    torch._dynamo.reset()
    words = [*OPTIONS, "--threshold", "0.2"]
    assert main([*words, "--out", "plain"]) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    assert main([*words, "--compile", "--out", "compiled"]) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert torch._dynamo.utils.counters["inductor"]
    torch._dynamo.reset()
    lines = [
        [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        for run in ("plain", "compiled")
    ]
    assert len({line["loss"] for line in lines[0]}) == 10
    for plain, compiled in zip(*lines, strict=True):
        assert plain.keys() == compiled.keys()
        for name, value in plain.items():
            assert compiled[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    states = [torch.load(Path(run, "checkpoints/step-00000010.pt"), weights_only=True) for run in ("plain", "compiled")]
    for name, tensor in states[0]["average"].items():
        torch.testing.assert_close(states[1]["average"][name], tensor, rtol=1e-4, atol=1e-5)


def test_without_a_compiler_it_is_refused_before_anything_is_written(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert main([*OPTIONS, "--device", "cpu", "--compile", "--out", "run"]) == 2
    assert "--compile needs a C++ compiler on a CPU, such as g++, and none was found" in capsys.readouterr().err
    assert not Path("run").exists()
