import pytest
import torch

from layermatch import split_classifier
from layermatch.models.small_cnn import SmallCNN


def size(*, classes, channels):
    convolutions = 25 * channels * 16 + 9 * 16 * 32 + 9 * 32 * 64
    return convolutions + 2 * (16 + 32 + 64) + 64 * classes + classes


@pytest.mark.parametrize(("classes", "channels", "height", "width"), [(10, 1, 14, 14), (55, 1, 14, 28), (2, 3, 4, 4)])
def test_shapes_and_parameter_count(classes, channels, height, width):
    model = SmallCNN(classes, channels=channels)
    assert model(torch.zeros(3, channels, height, width)).shape == (3, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == size(classes=classes, channels=channels)


def test_maps_are_halved_twice_and_the_split_gives_the_64_features():
    model = SmallCNN(10, channels=1)
    sides = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, _, out: sides.append((type(module).__name__, tuple(out.shape[1:]))))
    images = torch.rand(5, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    assert [shape for name, shape in sides if name == "Conv2d"] == [(16, 7, 7), (32, 4, 4), (64, 4, 4)]
    assert [name for name, _ in sides] == ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 3
    split = split_classifier(model)
    features = split(images)
    assert features.shape == (5, 64)
    torch.testing.assert_close(split.classifier(features), logits, rtol=0, atol=0)


def test_every_parameter_gets_a_gradient():
    model = SmallCNN(4, channels=3)
    model(torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
