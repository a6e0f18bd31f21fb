"""Few labels and long tails: published counts, and errors that name the class."""

import pytest
import torch

from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream
from scarce_common_utils.subsets import few_labels, long_tail, long_tail_counts

# The LDAM-DRW code's counts for CIFAR-LT (n_max 5000 of 10 classes, 500 of 100).
PUBLISHED = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
}


@pytest.mark.parametrize("imbalance", PUBLISHED)
def test_counts_are_the_published_ones(imbalance):
    assert long_tail_counts(5000, 10, imbalance=imbalance) == PUBLISHED[imbalance]


@pytest.mark.parametrize(("imbalance", "total"), [(10, 19_573), (50, 12_608), (100, 10_847), (200, 9_502)])
def test_totals_of_a_hundred_classes(imbalance, total):
    assert sum(long_tail_counts(500, 100, imbalance=imbalance)) == total


def test_the_last_class_is_exact_where_floating_point_would_lose_one():
    for largest in range(1, 400):
        for imbalance in (1, 2, 3, 7, 49):
            assert long_tail_counts(largest, 7, imbalance=imbalance)[-1] == largest // imbalance


def test_long_tail_takes_the_counts_in_the_order_asked_for():
    labels = torch.arange(4).repeat_interleave(50)
    labels[::50] = -1
    order = [2, 0, 3, 1]
    chosen = long_tail(labels, 7, generator=stream(0, "split"), class_names="abcd", order=order)
    found = [int((labels[chosen] == number).sum()) for number in order]
    assert found == long_tail_counts(49, 4, imbalance=7)
    assert len(set(chosen.tolist())) == len(chosen)
    again = long_tail(labels, 7, generator=stream(0, "split"), class_names="abcd", order=order)
    assert torch.equal(chosen, again)


def test_long_tail_errors_hold_the_value():
    labels = torch.arange(3).repeat_interleave(5)
    with pytest.raises(UserError, match="imbalance is 6, but the smallest class has 5"):
        long_tail(labels, 6, generator=stream(0, "split"), class_names="abc")
    with pytest.raises(ValueError, match=r"imbalance is 0\.5"):
        long_tail(labels, 0.5, generator=stream(0, "split"), class_names="abc")
    with pytest.raises(ValueError, match="no permutation"):
        long_tail(labels, 2, generator=stream(0, "split"), class_names="abc", order=[0, 0, 1])
    with pytest.raises(UserError, match="Class 'd' has no labelled image"):
        long_tail(labels, 2, generator=stream(0, "split"), class_names="abcd")


def test_few_labels_draws_that_many_of_each_and_never_an_unlabelled_one():
    labels = torch.tensor([0, 1, -1, 0, 1, 0, -1, 1, 1])
    chosen = few_labels(labels, 3, generator=stream(1, "split"), class_names="ab")
    assert labels[chosen].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(chosen.tolist())) == 6
    with pytest.raises(
        UserError, match=r"labels_per_class is 4, but class 'otter' has 3 images in photos/train.*Choose 3 or fewer"
    ):
        few_labels(labels, 4, generator=stream(1, "split"), class_names=("otter", "seal"), place="photos/train")
    with pytest.raises(UserError, match="Class 'c' has no labelled image"):
        few_labels(labels, 1, generator=stream(1, "split"), class_names="abc")
    with pytest.raises(UserError, match="labels_per_class is 0"):
        few_labels(labels, 0, generator=stream(1, "split"), class_names="ab")
