import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["grad_relu", "criterion"])
def test_examples_in_docstrings_run(name):
    module = import_module(f"layermatch.{name}")
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0
