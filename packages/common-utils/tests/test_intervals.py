"""Intervals against numbers from tables, and against their own meaning."""

import math

import pytest
import torch

from scarce_common_utils.intervals import bootstrap_confusion, bootstrap_ratio, fisher, wilson


def test_wilson_has_the_textbook_s_numbers():
    assert wilson(8, 10)[:2] == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[:2] == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10)[:2] == pytest.approx((0.7225, 1.0), abs=1e-4)
    for right, count in ((81, 263), (15, 148), (1, 29)):  # ends solve (p - x)^2 = z^2 x (1 - x) / n
        for end in wilson(right, count)[:2]:
            assert (right / count - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count)
    with pytest.raises(ValueError, match="11 of 10"):
        wilson(11, 10)


def test_the_bootstrap_of_a_share_is_near_wilson_s_and_the_seed_decides_it():
    confusion = torch.tensor([[300, 100], [60, 540]])
    share = lambda matrix: float(matrix.trace() / matrix.sum())  # noqa: E731  (one line of arithmetic)
    found = bootstrap_confusion(confusion, share, seed=3)
    assert found[:2] == pytest.approx(wilson(840, 1000)[:2], abs=0.004)
    assert found == bootstrap_confusion(confusion, share, seed=3)
    assert found != bootstrap_confusion(confusion, share, seed=4)
    assert bootstrap_confusion(torch.tensor([[5, 0], [0, 5]]), share, seed=0)[:2] == (1.0, 1.0)


def test_the_bootstrap_of_a_ratio_weighs_parts_by_their_counts():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(50, 200, (40,), generator=generator).tolist()
    parts = [(count * (2 + 0.1 * (number % 5 - 2)), count) for number, count in enumerate(counts)]
    mean = sum(loss for loss, _ in parts) / sum(counts)
    found = bootstrap_ratio(parts, seed=0)
    assert found is not None
    assert found.low < mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1414 / math.sqrt(40), rel=0.3)
    assert bootstrap_ratio(parts[:3], seed=0) is None


def test_fisher_s():
    assert fisher(0.5, 103)[:2] == pytest.approx((0.33931, 0.63234), abs=1e-5)
    assert fisher(1.0, 50) is None
    assert fisher(float("nan"), 50) is None
    assert fisher(0.5, 3) is None
