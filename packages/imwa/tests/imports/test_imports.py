"""What importing the package loads, in a fresh process, and what it costs over torch."""

import subprocess
import sys

import pytest

import imwa

HEAVY = (
    "transformers",
    "datasets",
    "accelerate",
    "torchvision",
    "sklearn",
    "matplotlib",
    "lightning",
    "cyclopts",
    "PIL",
    "safetensors",
)


def in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_nothing_heavy_and_no_part_of_the_package():
    code = (
        "import sys, imwa\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], [name for name in sys.modules if name.startswith('imwa.')])"
    )
    assert in_a_fresh_process(code) == "[] []"


def test_no_public_name_loads_anything_heavy():
    code = (
        "import sys, imwa\n"
        "for name in imwa.__all__: getattr(imwa, name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert in_a_fresh_process(code) == "[]"


def test_importing_costs_under_0_3_cpu_seconds_over_torch():
    code = (
        "import time, torch, torch.utils.data\n"
        "begin = time.process_time()\n"
        "import imwa\n"
        "for name in imwa.__all__: getattr(imwa, name)\n"
        "print(time.process_time() - begin)"
    )
    # The smallest of three counts, since other work slows a process; the first that is small enough settles it.
    assert any(float(in_a_fresh_process(code)) < 0.3 for _ in range(3))


def test_public_names_are_listed_and_documented():
    assert set(imwa.__all__) <= set(dir(imwa))
    for name in imwa.__all__:
        assert getattr(imwa, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error_that_lists_the_names():
    with pytest.raises(AttributeError, match="no attribute 'Imwa'; public names are IMWA"):
        imwa.__getattr__("Imwa")
