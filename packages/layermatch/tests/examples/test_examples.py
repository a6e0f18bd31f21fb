"""Each example differs from its baseline by at most twelve lines, and both run."""

import difflib
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("plain", "accelerate", "lightning", "distributed")
FILES = ("before.py", "after.py")
STEPS = 150


def changed_lines(before, after):
    lines = difflib.unified_diff(before.read_text().splitlines(), after.read_text().splitlines(), lineterm="", n=0)
    return [line for line in lines if line[0] in "+-" and not line.startswith(("---", "+++")) and '"""' not in line]


@pytest.mark.parametrize("name", NAMES)
def test_the_difference_is_at_most_twelve_lines(name):
    changed = changed_lines(EXAMPLES / name / "before.py", EXAMPLES / name / "after.py")
    assert 0 < len(changed) <= 12, "\n".join(changed)
    assert any("LayerMatch(" in line for line in changed)


def learned(printed):
    found = re.search(rf"test accuracy after {STEPS} steps: (\d+\.\d) %", printed)
    assert found, printed
    return float(found.group(1))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["plain", "accelerate", "lightning"])
def test_it_runs_and_learns(name, file, capsys, monkeypatch, tmp_path):
    if name == "lightning":
        pytest.importorskip("lightning", reason="lightning is not installed (extra: lightning)")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name / file))["main"](STEPS)
    assert learned(capsys.readouterr().out) > 60


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")
@pytest.mark.parametrize("file", FILES)
def test_it_runs_and_learns_on_two_processes(file):
    """What torchrun does, without its own process: two ranks that find each other by environment variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(EXAMPLES / "distributed" / file), str(STEPS)]
    ranks = [
        subprocess.Popen(
            words,
            env=os.environ | common | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    assert learned(outputs[0][0]) > 60
