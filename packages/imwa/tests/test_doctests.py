"""Examples in docstrings run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["plan", "averaging", "driver", "barrier", "diagnostics"])
def test_examples_in_docstrings_run(name):
    failed, tried = doctest.testmod(importlib.import_module(f"imwa.{name}"))
    assert tried > 0
    assert failed == 0
