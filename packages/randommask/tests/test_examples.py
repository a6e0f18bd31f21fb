"""The examples run, and differ in as few lines as README says."""

import difflib
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_plain_examples_run(tmp_path):
    files = [str(EXAMPLES / "plain" / f"{name}.py") for name in ("before", "after")]
    done = subprocess.run(  # one process for both: most of its time goes into imports
        [
            sys.executable,
            "-c",
            "import runpy, sys\nfor file in sys.argv[1:]: runpy.run_path(file, run_name='__main__')",
            *files,
        ],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training loss") == 2


def changed_lines():
    before, after = ((EXAMPLES / "plain" / f"{name}.py").read_text().splitlines() for name in ("before", "after"))
    return [
        line
        for line in difflib.unified_diff(before, after, n=0, lineterm="")
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    ]


def test_before_and_after_differ_in_at_most_twelve_lines():
    assert 0 < len(changed_lines()) <= 12


def test_readme_shows_the_diff_as_it_is():
    readme = (EXAMPLES.parent / "README.md").read_text()
    shown = readme.split("```diff\n")[1].split("```")[0].splitlines()
    code = [line for line in changed_lines() if '"""' not in line]
    assert [line for line in shown if line[:1] in ("+", "-")] == code
