import json
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


SCRIPT = """
import json, sys, time, torch
begin = time.process_time()
import layermatch; layermatch.LayerMatch; layermatch.split_classifier
seconds = time.process_time() - begin
few = [name for name in {heavy!r} if name in sys.modules]
for name in set(layermatch.__all__) - {{"LayerMatchClassifier"}}: getattr(layermatch, name)
print(json.dumps([seconds, few, [name for name in {heavy!r} if name in sys.modules]]))
"""


def in_a_fresh_process():
    """CPU seconds of the import over torch's own; what heavy is loaded by it; and by every public name."""
    code = SCRIPT.format(heavy=HEAVY)
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def imported():
    return in_a_fresh_process()


def test_importing_loads_nothing_heavy(imported):
    assert imported[1] == []


def test_every_public_name_but_the_classifier_of_scikit_learn_loads_nothing_heavy(imported):
    assert imported[2] == []


def test_importing_costs_under_0_3_cpu_seconds_over_torch(imported):
    """The least of up to three."""
    assert imported[0] < 0.3 or any(in_a_fresh_process()[0] < 0.3 for _ in range(2))


def test_help_and_the_answer_to_a_misspelt_option_load_no_torch():
    code = (
        "import sys; from layermatch.commands import main\n"
        "for word in ('check', 'doctor', 'show'): assert main([word, '--help']) == 0\n"
        "print(main(['--help']), main(['train', '--help']), main(['train', 'digits', '--treshold', '0.9']), end='')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 0 2")
    assert "Train an image classifier from few labels" in done.stdout
    assert "Did you mean --threshold?" in done.stderr


def test_public_names_are_listed_and_documented():
    assert set(layermatch.__all__) <= set(dir(layermatch))
    for name in layermatch.__all__:
        value = getattr(layermatch, name)
        if callable(value):
            assert value.__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'Layermatch'"):
        layermatch.__getattr__("Layermatch")
