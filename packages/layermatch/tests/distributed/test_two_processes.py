"""Two gloo processes against one, float64, a network without batch statistics, without find_unused_parameters."""

import tempfile

import pytest
import torch

from forked import run_together
from layermatch import split_classifier
from workers import STEPS, network, train, worker

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")


OPTIONS = {
    "layermatch": {"momentum": 0.9},
    "straight-through": {"momentum": 0.9, "grad_relu": False},
    "grad-relu alone": {"avg_clustering": None},
    "agreement gate": {"momentum": 0.9, "grad_relu": "agreement"},
    "agreement gate on FreeMatch": {"weighting": "freematch", "grad_relu": "agreement", "avg_clustering": None},
    "reverse cut": {"grad_relu": "reverse", "avg_clustering": None},
    "prototypes": {"avg_clustering": "prototypes", "momentum": 0.5},
    "prototypes, SoftMatch, not cut": {
        "avg_clustering": "prototypes",
        "momentum": 0.5,
        "weighting": "softmatch",
        "grad_relu": False,
    },
    "teacher": {"avg_clustering": "teacher"},
    "temporal": {"avg_clustering": "temporal"},
    "temporal, FlexMatch": {"avg_clustering": "temporal", "weighting": "flexmatch"},
    "classifier, FreeMatch": {"momentum": 0.9, "weighting": "freematch"},
    "FreeMatch": {"avg_clustering": None, "grad_relu": False, "weighting": "freematch"},
    "SoftMatch": {"avg_clustering": None, "grad_relu": False, "weighting": "softmatch"},
    "pseudolabel": {"weighting": "pseudolabel"},
}


@pytest.fixture(scope="module")
def in_two_processes():
    """For each of OPTIONS what each of two ranks found; and what each said of a classifier outside the wrapped model."""
    with tempfile.TemporaryDirectory() as folder:
        run_together(worker, folder, OPTIONS)
        return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_o6_two_processes_equal_one(name, in_two_processes):
    split = split_classifier(network())
    alone = train(split, split, OPTIONS[name], 1, 0)
    assert 0 < sum(alone["weights"]) < STEPS
    results = [found[name] for found in in_two_processes]
    for found in results:
        for step in range(STEPS):
            for gradient, expected in zip(found["gradients"][step], alone["gradients"][step], strict=True):
                close(gradient, expected)
        assert found["state"].keys() == alone["state"].keys()
        for part, expected in alone["state"].items():
            close(found["state"][part], expected)
    assert sum(alone["weights"]) == pytest.approx(sum(sum(found["weights"]) for found in results) / 2)


@pytest.mark.parametrize("name", OPTIONS)
def test_o4_what_is_not_finite_in_one_process_moves_no_state_in_any(name, in_two_processes):
    for found in in_two_processes:
        for part, value in found[name]["poisoned"].items():
            assert torch.equal(value, found[name]["state"][part]), part


def test_o6_a_classifier_outside_the_wrapped_model_is_refused(in_two_processes):
    for found in in_two_processes:
        assert found["outside"].startswith("The classifier (Linear) is in no model that DistributedDataParallel wraps")
