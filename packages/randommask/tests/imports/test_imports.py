"""What importing the package loads, and how long it takes: in fresh processes, as CPU time."""

import subprocess
import sys

import pytest

HEAVY = ("transformers", "datasets", "accelerate", "torchvision", "sklearn", "matplotlib")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import randommask",
        "from randommask import MaskSchedule, NumberedBatches, RandomMaskCollator, random_mask, kmer_ids, METHODS, count_hidden",
        "import randommask.commands",
    ],
)
def test_importing_loads_nothing_heavy(code):
    loaded = run(f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_adds_less_than_a_third_of_a_second_to_torch():
    code = "import time, torch\nbegan = time.process_time()\nimport randommask, randommask.masking\nfrom randommask import *\n"
    code = code.replace("from randommask import *\n", "from randommask import random_mask, MaskSchedule, kmer_ids\n")
    seconds = min(float(run(code + "print(time.process_time() - began)")) for _ in range(3))
    assert seconds < 0.3


def test_public_names_exist_and_an_unknown_one_is_refused():
    import randommask

    assert set(randommask.__all__) <= set(dir(randommask))
    for name in randommask.__all__:
        assert getattr(randommask, name) is not None
        assert name == "__version__" or getattr(randommask, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        randommask.Missing  # noqa: B018 (the access is the test)
