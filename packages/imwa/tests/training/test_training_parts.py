"""Order of the data, augmentation, schedule, evaluation by class: small pieces against plain loops."""

import math

import pytest
import torch

from imwa.training.batches import Order, augmented, normalised, pixel_constants
from imwa.training.evaluation import evaluate, group_accuracies, groups_by_count, thirds_by_rank
from imwa.training.report import final_numbers
from imwa.training.schedule import learning_rate


def test_batches_follow_the_epochs_without_a_gap_and_are_pure_functions():
    order = Order(10, batch_size=4, seed=0)
    stream = torch.cat([order(step, replica=1) for step in range(10)])
    for epoch in range(4):
        assert sorted(stream[epoch * 10 : epoch * 10 + 10].tolist()) == list(range(10))
    assert len({tuple(stream[e * 10 : e * 10 + 10].tolist()) for e in range(4)}) == 4
    again = Order(10, batch_size=4, seed=0)
    for step in (7, 2, 9, 0, 7):
        assert torch.equal(again(step, replica=1), stream[4 * step : 4 * step + 4])
    assert not torch.equal(again(0, replica=0), again(0, replica=1))
    assert len(Order(3, batch_size=8, seed=0)(5, replica=0)) == 8


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
def test_augmentation_against_a_loop_over_images(mirror, height, width):
    images = torch.randint(1, 256, (64, 3, height, width), dtype=torch.uint8)
    result = augmented(images, generator=torch.Generator().manual_seed(3), shift=2, mirror=mirror)
    draw = torch.Generator().manual_seed(3)
    tops, lefts = torch.randint(0, 5, (2, 64), generator=draw)
    flips = torch.rand(64, generator=draw) < 0.5
    for index in range(64):
        padded = torch.zeros(3, height + 4, width + 4, dtype=torch.uint8)
        padded[:, 2:-2, 2:-2] = images[index]
        top, left = tops[index], lefts[index]
        expected = padded[:, top : top + height, left : left + width]
        if mirror and flips[index]:
            expected = expected.flip(2)
        assert torch.equal(result[index], expected)
    assert result.dtype == torch.uint8
    still = augmented(images, generator=draw, shift=0, mirror=False)
    assert torch.equal(still, images)


def test_pixels_are_normalised_by_channel_and_grey_is_repeated():
    images = torch.randint(0, 256, (3000, 2, 4, 4), dtype=torch.uint8)
    pixels = normalised(images, pixel_constants(images), channels=2)
    assert pixels.mean((0, 2, 3)).abs().max() < 1e-4
    assert (pixels.std((0, 2, 3)) - 1).abs().max() < 1e-3
    grey = torch.full((2, 1, 4, 4), 7, dtype=torch.uint8)
    assert torch.equal(normalised(grey, pixel_constants(grey), channels=3), torch.zeros(2, 3, 4, 4))


def test_the_cosine_ends_at_zero_and_the_steps_are_cifar_lt_s():
    rates = [learning_rate("cosine", step, steps=100, rate=0.1) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[50] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0.0)
    published = [learning_rate("steps", epoch, steps=200, rate=0.1) for epoch in range(200)]  # one step an epoch
    assert published[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert (published[159], published[160], published[179], published[180]) == pytest.approx((0.1, 1e-3, 1e-3, 1e-5))


class Fixed(torch.nn.Module):
    """Predicts the class that the first pixel names."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.Identity()

    def forward(self, x):
        return torch.nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float()


def test_accuracy_by_class_and_modes():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 3, 1, 0, 2], dtype=torch.uint8)
    model = Fixed()
    model.norm.eval()
    found = evaluate(
        model,
        predicted.view(6, 1, 1, 1),
        labels=labels,
        classes=4,
        prepare=lambda images: images,
        autocast=torch.autocast("cpu", torch.bfloat16, enabled=False),
    )
    assert found.accuracy == pytest.approx(100 * 4 / 6)
    assert found.by_class == (pytest.approx(200 / 3), 50.0, 100.0, None)
    assert (model.training, model.norm.training) == (True, False)


def test_groups_are_those_of_the_classifier_balancing_code():
    counts = [101, 100, 20, 19, 5]
    assert groups_by_count(counts) == {"many": [0], "medium": [1, 2], "few": [3, 4]}
    exponent = 99
    cifar = [int(500 * 0.01 ** (k / exponent)) for k in range(100)]
    assert [len(members) for members in groups_by_count(cifar).values()] == [35, 35, 30]


def test_thirds_by_rank():
    counts = [5, 50, 7, 40, 30, 9, 8, 20, 10, 6]
    assert thirds_by_rank(counts) == {"head": [1, 3, 4], "middle": [7, 8, 5, 6], "tail": [2, 9, 0]}
    assert thirds_by_rank([5, 3]) == {}
    assert thirds_by_rank([5] * 9) == {}
    assert thirds_by_rank(list(range(21))) == {}


def test_a_group_s_accuracy_is_the_mean_of_its_classes_and_none_where_it_is_empty():
    found = group_accuracies([100.0, 50.0, None], {"many": [0, 1], "few": [2], "medium": []})
    assert found == {"many": 75.0, "few": None, "medium": None}


def test_numbers_of_a_single_run_have_no_gain():
    line = {"step": 9, "average_accuracy": 60.0, "replica_accuracy": 60.0, "gain": 0.0, "recomputed_accuracy": 61.0}
    final = evaluation = type("E", (), {"accuracy": 60.0, "by_class": (60.0, 60.0)})()
    assert final_numbers([line], evaluation, counts=[3, 3], replicas=1)["mean_gain"] is None
    numbers = final_numbers([{**line, "gain": 4.0}, {**line, "gain": 1.0}], final, counts=[3, 3], replicas=2)
    assert (numbers["first_gain"], numbers["mean_gain"], numbers["last_gain"]) == (4.0, 2.5, 1.0)
    assert numbers["accuracy_recomputed"] == 61.0
    assert not any(math.isnan(value) for value in numbers.values() if value is not None)
