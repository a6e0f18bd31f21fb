"""Each example differs from its baseline by at most twelve lines, and both run."""

import difflib
import re
import runpy
from pathlib import Path

import pytest
import torch

from example_workers import run_example
from forked import meeting_point, run_together

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
def test_it_runs_and_learns_on_two_processes(file, tmp_path):
    """What torchrun does, without its own process: two ranks that find each other by environment variables."""
    _store, environment = meeting_point()
    run_together(run_example, str(EXAMPLES / "distributed" / file), STEPS, environment, str(tmp_path))
    assert learned((tmp_path / "0.txt").read_text()) > 60
    assert (tmp_path / "1.txt").read_text() == ""
