"""Small and lopsided sets, from folders to a step's batch: each works, or says what to do."""

import pytest
import torch
from PIL import Image

from layermatch.data.batches import Batches
from layermatch.data.streaming import StreamedBatches
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import open_images
from scarce_common_utils.streams import stream
from scarce_common_utils.subsets import few_labels


def paint(root, counts, mode="RGB"):
    for name, count in counts.items():
        for number in range(count):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (8, 8), number if mode == "L" else (number,) * len(mode)).save(path)
    return str(root)


def first_batch(data, *, in_memory, per_class=1, batch_size=16):
    training, _ = open_images(data, in_memory=in_memory)
    labelled = few_labels(
        training.labels,
        per_class,
        generator=stream(0, "split"),
        class_names=training.class_names,
        place=training.place,
    )
    options = {"labelled_indices": labelled, "seed": 0, "batch_size": batch_size, "unlabelled_ratio": 7}
    if in_memory:
        return Batches(training.images, training.labels, **options)(0), training
    return StreamedBatches(training, **options)(0), training


@pytest.mark.parametrize("in_memory", [True, False])
def test_two_classes_and_fewer_images_than_the_batch(tmp_path, in_memory):
    batch, training = first_batch(paint(tmp_path, {"cat": 3, "dog": 3}), in_memory=in_memory)
    assert len(training) == 4
    assert batch.labelled.shape == (16, 3, 8, 8)
    assert torch.bincount(batch.labels).tolist() == [8, 8]
    assert torch.bincount(batch.indices).tolist() == [28] * 4


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 3)])
def test_grey_and_rgba_images(tmp_path, in_memory, mode, channels):
    batch, _ = first_batch(paint(tmp_path, {"cat": 3, "dog": 3}, mode), in_memory=in_memory)
    assert batch.unlabelled.shape == (112, channels, 8, 8)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_class_with_no_labels_says_what_to_do(tmp_path, in_memory):
    data = paint(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cat": 2, "test/dog": 2})
    training, _ = open_images(data, in_memory=in_memory)
    labels = training.labels.clone()
    labels[labels == 1] = -1
    with pytest.raises(UserError, match=r"Class 'dog' has no labelled image in .*train"):
        few_labels(labels, 1, generator=stream(0, "split"), class_names=training.class_names, place=training.place)
    with pytest.raises(UserError, match=r"labels_per_class is 4, but class 'cat' has 3 images in .*train"):
        first_batch(data, in_memory=in_memory, per_class=4)
