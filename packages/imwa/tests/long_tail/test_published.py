"""The published subsets: counts and images."""

import numpy as np
import pytest
import torch

from imwa.long_tail.published import labelled_share, published_long_tail, semi_supervised_profile
from scarce_common_utils.errors import UserError


def labels_of(classes: int, each: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.arange(classes).repeat(each)[torch.randperm(classes * each, generator=generator)]


@pytest.mark.parametrize(
    ("imbalance", "total", "smallest"), [(10, 20_431, 500), (50, 13_996, 100), (100, 12_406, 50), (200, 11_203, 25)]
)
def test_counts_of_cifar_10_lt(imbalance, total, smallest):
    labels = labels_of(10, 5000)
    chosen = published_long_tail(labels, imbalance, classes=10)
    counts = torch.bincount(labels[chosen], minlength=10).tolist()
    assert len(chosen) == total == len(chosen.unique())
    assert counts[0] == 5000
    assert counts[-1] == smallest


@pytest.mark.parametrize(("imbalance", "total"), [(10, 19_573), (50, 12_608), (100, 10_847), (200, 9_502)])
def test_counts_of_cifar_100_lt(imbalance, total):
    assert len(published_long_tail(labels_of(100, 500), imbalance, classes=100)) == total


def test_images_are_those_of_the_published_code():
    # Its loop, written out: one legacy generator seeded 0, classes in ascending order, shuffled in place.
    labels = labels_of(4, 30)
    np.random.seed(0)  # noqa: NPY002 - what the published code does
    expected = []
    for number, count in enumerate([30, 13, 6, 3]):
        positions = np.where(labels.numpy() == number)[0]
        np.random.shuffle(positions)  # noqa: NPY002 - as above
        expected.extend(positions[:count].tolist())
    assert published_long_tail(labels, 10, classes=4).tolist() == expected


def test_a_class_with_too_few_images_is_named():
    labels = torch.cat([labels_of(3, 10), torch.zeros(5, dtype=torch.int64)])
    with pytest.raises(UserError, match=r"Class 1 has 10 images.*takes 11"):
        published_long_tail(labels, 1, classes=3)


@pytest.mark.parametrize("reverse", [False, True])
def test_semi_supervised_profile_has_the_published_counts_and_is_disjoint(reverse):
    labels = labels_of(10, 5000)
    labelled, unlabelled = semi_supervised_profile(
        labels,
        labelled=1500,
        unlabelled=3000,
        imbalance=100,
        unlabelled_imbalance=100,
        reverse=reverse,
        classes=10,
        generator=torch.Generator().manual_seed(1),
    )
    assert torch.bincount(labels[labelled]).tolist() == [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]
    counts = [3000, 1798, 1078, 646, 387, 232, 139, 83, 50, 30]
    assert torch.bincount(labels[unlabelled]).tolist() == (counts[::-1] if reverse else counts)
    assert not set(labelled.tolist()) & set(unlabelled.tolist())
    first_of_class = (labels == 0).nonzero().flatten()[:1500]
    assert not torch.equal(labelled[:1500].sort().values, first_of_class)  # drawn, not the first ones


def test_a_profile_that_needs_too_many_images_is_refused():
    with pytest.raises(UserError, match=r"Class 0 has 10 images, and the profile takes 8 labelled and 4 unlabelled"):
        semi_supervised_profile(
            labels_of(3, 10),
            labelled=8,
            unlabelled=4,
            imbalance=1,
            unlabelled_imbalance=1,
            classes=3,
            generator=torch.Generator(),
        )


def test_without_a_generator_a_profile_takes_the_first_images_of_each_class():
    labels = labels_of(3, 10)
    sizes = {"labelled": 4, "unlabelled": 5, "imbalance": 4, "unlabelled_imbalance": 1, "classes": 3}
    labelled, unlabelled = semi_supervised_profile(labels, **sizes, generator=None)
    expected, rest = [], []
    for number, count in enumerate([4, 2, 1]):
        positions = [place for place, label in enumerate(labels.tolist()) if label == number]
        expected += positions[:count]
        rest += positions[count : count + 5]
    assert labelled.tolist() == expected
    assert unlabelled.tolist() == rest


def test_the_labelled_share_has_crests_counts_and_lies_within_the_subset():
    labels = labels_of(10, 5000)
    labelled, whole = labelled_share(labels, 100, share=0.1, classes=10)
    assert torch.bincount(labels[labelled]).tolist() == [500, 300, 180, 108, 65, 39, 24, 14, 9, 5]
    assert torch.equal(whole, published_long_tail(labels, 100, classes=10))
    assert set(labelled.tolist()) <= set(whole.tolist())
    assert len(labelled_share(labels_of(2, 100), 1, share=0.07, classes=2)[0]) == 14  # in floats 0.07 x 100 is above 7
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"share is {share}"):
            labelled_share(labels, 100, share=share, classes=10)
