import subprocess
import sys

import pytest

import layermatch

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
)


def in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_nothing_heavy():
    code = f"import sys, layermatch; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert in_a_fresh_process(code) == "[]"


def test_every_public_name_but_the_heavy_ones_loads_nothing_heavy():
    code = (
        "import sys, layermatch\n"
        "for name in layermatch.__all__: getattr(layermatch, name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert in_a_fresh_process(code) == "[]"


def test_importing_costs_under_0_3_cpu_seconds_over_torch():
    code = (
        "import time, torch\n"
        "begin = time.process_time()\n"
        "import layermatch; layermatch.LayerMatch; layermatch.split_classifier\n"
        "print(time.process_time() - begin)"
    )
    assert min(float(in_a_fresh_process(code)) for _ in range(3)) < 0.3


def test_public_names_are_listed_and_documented():
    assert set(layermatch.__all__) <= set(dir(layermatch))
    for name in layermatch.__all__:
        value = getattr(layermatch, name)
        if callable(value):
            assert value.__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'Layermatch'"):
        layermatch.__getattr__("Layermatch")
