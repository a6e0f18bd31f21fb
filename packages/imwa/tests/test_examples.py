"""Each example runs, and what IMWA adds to its loop is a few lines, re-indentation aside."""

import difflib
import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("plain", "accelerate")
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


@needs_checkout
@pytest.mark.parametrize("file", ["before", "after"])
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_learns(name, file, capsys):
    if name != "plain":
        pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    runpy.run_path(str(EXAMPLES / name / f"{file}.py"), run_name="__main__")
    found = re.search(r"test accuracy ([\d.]+) %", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 80
