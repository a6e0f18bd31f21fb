import pytest
import torch

from layermatch.data.batches import Batch, Batches


def batches(**options):
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 2, 2)
    labels = torch.arange(20) % 4
    labels[15:] = -1
    defaults = {"labelled_indices": torch.tensor([2, 3, 9]), "seed": 0, "batch_size": 4, "unlabelled_ratio": 2}
    return Batches(images, labels, **(defaults | options))


def test_pixels_labels_and_indices_belong_together():
    batch = batches()(3)
    assert batch.labelled.shape == (4, 1, 2, 2)
    assert batch.unlabelled.shape == (8, 1, 2, 2)
    assert batch.labels.tolist() == [int(image[0, 0, 0]) % 4 for image in batch.labelled]
    assert batch.indices.tolist() == [int(image[0, 0, 0]) for image in batch.unlabelled]
    known = [index % 4 if index < 15 and index not in (2, 3, 9) else -1 for index in batch.indices.tolist()]
    assert batch.truth.tolist() == known  # images that are trained on would speak for those without a label
    assert {int(image[0, 0, 0]) for image in batch.labelled} <= {2, 3, 9}


def test_where_every_label_is_known_the_truth_is_every_label():
    images, labels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0, 1])
    source = Batches(images, labels, labelled_indices=torch.tensor([0, 1]), seed=0, batch_size=1, unlabelled_ratio=6)
    batch = source(0)
    assert batch.truth.tolist() == [index % 2 for index in batch.indices.tolist()]


def test_a_batch_is_a_function_of_the_step():
    first, second = batches(), batches()
    first(0), first(7)
    assert all(torch.equal(a, b) for a, b in zip(first(5), second(5), strict=True))


def test_labelled_images_are_in_the_pool_too():
    source = batches()
    seen = {int(index) for step in range(3) for index in source(step).indices}
    assert seen == set(range(20))


def test_a_method_that_needs_none_gets_no_unlabelled_images_and_the_same_labelled_ones():
    without = batches(with_unlabelled=False)(3)
    assert len(without.unlabelled) == len(without.indices) == len(without.truth) == 0
    assert torch.equal(without.labelled, batches()(3).labelled)


@pytest.mark.parametrize("indices", [[], [20], [-1]])
def test_indices_that_name_no_image_are_refused(indices):
    with pytest.raises(ValueError, match="some of the 20 images"):
        batches(labelled_indices=torch.tensor(indices, dtype=torch.int64))


def test_an_image_without_a_label_cannot_be_labelled():
    with pytest.raises(ValueError, match="label is not known"):
        batches(labelled_indices=torch.tensor([2, 16]))


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("with_unlabelled", [True, False])
def test_slices_of_the_processes_laid_end_to_end_are_the_whole_batch(processes, with_unlabelled):
    whole = batches(with_unlabelled=with_unlabelled)
    parts = [batches(with_unlabelled=with_unlabelled, part=(rank, processes)) for rank in range(processes)]
    for step in (0, 1, 7):
        slices = [part(step) for part in parts]
        for field, expected in zip(Batch._fields, whole(step), strict=True):
            assert torch.equal(torch.cat([getattr(found, field) for found in slices]), expected)
        assert {len(found.labels) for found in slices} == {4 // processes}
        assert {len(found.indices) for found in slices} == {8 // processes if with_unlabelled else 0}
        assert all(
            torch.equal(*pair)
            for part in parts
            for pair in zip(part.places.whole(step), whole.places(step), strict=True)
        )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ((0, 3), "batch_size is 4, which 3 processes cannot share equally. Choose a multiple of 3"),
        ((2, 2), r"part is \(2, 2\); it must be \(rank, processes\) with a rank from 0 to 1"),
        ((-1, 2), r"part is \(-1, 2\)"),
    ],
)
def test_parts_that_cannot_be_are_named(part, said):
    with pytest.raises(ValueError, match=said):
        batches(part=part)


def test_a_set_smaller_than_the_batch_is_seen_whole_again_and_again():
    source = batches(batch_size=8, unlabelled_ratio=7)
    batch = source(0)
    counts = torch.bincount(batch.indices, minlength=20)
    assert (int(counts.min()), int(counts.max())) == (2, 3)
    assert sorted(torch.bincount(source.places(0)[0], minlength=20)[[2, 3, 9]].tolist()) == [2, 3, 3]
