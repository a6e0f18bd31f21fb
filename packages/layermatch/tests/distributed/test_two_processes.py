"""Two gloo processes against one, float64, a network without batch statistics."""

import tempfile

import pytest
import torch

from layermatch import split_classifier
from workers import STEPS, network, train, worker

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")


OPTIONS = {
    "layermatch": {"threshold": 0.4, "momentum": 0.9},
    "straight-through": {"threshold": 0.4, "momentum": 0.9, "grad_relu": False},
    "grad-relu alone": {"threshold": 0.4, "avg_clustering": None},
}


@pytest.fixture(scope="module")
def in_two_processes():
    """For each of OPTIONS what each of two ranks found; and what each said of a classifier outside the wrapped model."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (folder, OPTIONS), nprocs=2)
        return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OPTIONS)
def test_o6_two_processes_equal_one(name, in_two_processes):
    split = split_classifier(network())
    gradients, centres, masks = train(split, split, OPTIONS[name], 1, 0)
    assert 0 < sum(masks) / len(masks) < 1
    results = [found[name] for found in in_two_processes]
    for found_gradients, found_centres, _ in results:
        for step in range(STEPS):
            for found, expected in zip(found_gradients[step], gradients[step], strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        for found, expected in zip(found_centres, centres, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert sum(masks) == pytest.approx(sum(sum(result[2]) for result in results) / 2)


def test_o6_a_classifier_outside_the_wrapped_model_is_refused(in_two_processes):
    for found in in_two_processes:
        assert found["outside"].startswith("The classifier (Linear) is in no model that DistributedDataParallel wraps")
