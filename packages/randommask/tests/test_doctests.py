"""The examples in docstrings run as they are written."""

import doctest
import importlib

import pytest

MODULES = (
    "analysis.attention",
    "analysis.embeddings",
    "analysis.report",
    "analysis.staircase",
    "alphabet",
    "kmers",
    "schedule",
    "identities",
    "tokenizer",
    "training.classification",
    "training.report",
    "genome.held_out",
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(f"randommask.{name}")
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
