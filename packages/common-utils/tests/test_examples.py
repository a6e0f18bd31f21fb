"""The example really resumes to the same bits."""

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "plain" / "resume.py"


def load():
    spec = importlib.util.spec_from_file_location("resume", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_in_two_parts_ends_as_a_run_in_one(tmp_path):
    example = load()
    whole = example.main(tmp_path / "whole", steps=60)
    example.main(tmp_path / "parts", steps=45)  # its last checkpoint is that of step 40
    assert example.main(tmp_path / "parts", steps=60) == whole
