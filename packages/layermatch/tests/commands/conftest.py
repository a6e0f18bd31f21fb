"""Most runs here are of the built-in digits, whose file is read once for all of them."""

import functools

import pytest
import sklearn.datasets


@pytest.fixture(scope="session", autouse=True)
def _digits_are_read_once():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sklearn.datasets, "load_digits", functools.cache(sklearn.datasets.load_digits))
        yield
