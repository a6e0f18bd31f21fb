import pytest
import torch

from layermatch.data.batches import Batches


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
    assert batch.truth.tolist() == [index % 4 if index < 15 else -1 for index in batch.indices.tolist()]
    assert {int(image[0, 0, 0]) for image in batch.labelled} <= {2, 3, 9}


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
