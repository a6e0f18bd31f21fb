"""Two gloo processes against one, float64, a network without batch statistics."""

import tempfile
from pathlib import Path

import pytest
import torch

from layermatch import split_classifier
from workers import STEPS, network, outside_worker, train, worker

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.4, "momentum": 0.9},
        {"threshold": 0.4, "momentum": 0.9, "grad_relu": False},
        {"threshold": 0.4, "avg_clustering": None},
    ],
    ids=["layermatch", "straight-through", "grad-relu"],
)
def test_o6_two_processes_equal_one(options):
    split = split_classifier(network())
    gradients, centres, masks = train(split, split, options, 1, 0)
    assert 0 < sum(masks) / len(masks) < 1
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (folder, options), nprocs=2)
        results = [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]
    for found_gradients, found_centres, _ in results:
        for step in range(STEPS):
            for found, expected in zip(found_gradients[step], gradients[step], strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        for found, expected in zip(found_centres, centres, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert sum(masks) == pytest.approx(sum(sum(result[2]) for result in results) / 2)


def test_o6_a_classifier_outside_the_wrapped_model_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(outside_worker, (folder,), nprocs=2)
        said = [Path(folder, f"{rank}.txt").read_text() for rank in range(2)]
    assert all(
        line.startswith("The classifier (Linear) is in no model that DistributedDataParallel wraps") for line in said
    )
