"""Each example differs from its baseline by at most twelve lines, and both run."""

import difflib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("plain", "lightning", "distributed")
FILES = ("before.py", "after.py")
STEPS = 150
ABSENT = {
    "plain": "",
    "lightning": "" if find_spec("lightning") else "lightning is not installed (extra: lightning)",
    "distributed": "" if torch.distributed.is_available() else "this torch was built without distributed",
}


def changed_lines(before, after):
    lines = difflib.unified_diff(before.read_text().splitlines(), after.read_text().splitlines(), lineterm="", n=0)
    return [line for line in lines if line[0] in "+-" and not line.startswith(("---", "+++")) and '"""' not in line]


@pytest.mark.parametrize("name", NAMES)
def test_the_difference_is_at_most_twelve_lines(name):
    changed = changed_lines(EXAMPLES / name / "before.py", EXAMPLES / name / "after.py")
    assert 0 < len(changed) <= 12, "\n".join(changed)
    assert any("LayerMatch(" in line for line in changed)


def run(name, file):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if name == "distributed" else []
    words = [sys.executable, *launcher, str(EXAMPLES / name / file), str(STEPS)]
    return subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def runs():
    """All of them, two at a time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting = {(name, file): pool.submit(run, name, file) for name in NAMES if not ABSENT[name] for file in FILES}
        return {key: future.result() for key, future in waiting.items()}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_learns(name, file, runs):
    if ABSENT[name]:
        pytest.skip(ABSENT[name])
    done = runs[name, file]
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(rf"test accuracy after {STEPS} steps: (\d+\.\d) %", done.stdout)
    assert found, done.stdout
    assert float(found.group(1)) > 60
