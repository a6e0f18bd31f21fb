"""Each example runs, and what IMWA adds to its loop is a few lines, re-indentation aside."""

import difflib
import re
import runpy
from pathlib import Path

import pytest
import torch

from forked import finished

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("plain", "accelerate", "lightning", "transformers", "distributed")
needs_checkout = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are in the checkout, not in the wheel")


@needs_checkout
@pytest.mark.parametrize("name", NAMES)
def test_the_difference_is_at_most_12_lines(name):
    before, after = (
        [line.strip() for line in (EXAMPLES / name / f"{file}.py").read_text().splitlines()]
        for file in ("before", "after")
    )
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("+ ", "- ") and line[2:].strip()]
    assert 0 < len(changed) <= 12, "\n".join(changed)


def assert_learned(printed):
    found = re.search(r"test accuracy ([\d.]+) %", printed)
    assert found is not None, printed
    assert float(found[1]) > 80


@needs_checkout
@pytest.mark.parametrize("file", ["before", "after"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "distributed"])
def test_it_runs_and_learns(name, file, capsys, monkeypatch, tmp_path):
    if name != "plain":
        pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    if name == "accelerate":  # its precision is one a process, and another test may have set it
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name / f"{file}.py"), run_name="__main__")
    assert_learned(capsys.readouterr().out)


@needs_checkout
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")
@pytest.mark.parametrize(("file", "processes"), [("before", 2), ("after", 4)])
def test_it_runs_and_learns_in_several_processes(file, processes, tmp_path):
    """What torchrun does, without its own process: ranks that find each other by environment variables."""
    script = str(EXAMPLES / "distributed" / f"{file}.py")
    codes, printed = finished(processes, tmp_path / "said", runpy.run_path, script, None, "__main__")
    assert codes == [0] * processes, printed
    assert_learned(printed[0])
