import pytest
import torch

from layermatch import LayerMatch, published_wide_resnet, small_wide_resnet, split_classifier


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize(
    ("name", "classes", "size", "dead", "width"),
    [
        ("wrn-28-2", 10, 1_467_626, 192, 128),
        ("wrn-28-2", 100, 1_479_236, 192, 128),
        ("wrn-28-8", 10, 23_354_858, 768, 512),
        ("wrn-28-8", 100, 23_401_028, 768, 512),
        ("wrn-37-2", 10, 5_929_450, 448, 256),
        ("wrn-37-2", 100, 5_952_580, 448, 256),
    ],
)
def test_published_parameter_counts(name, classes, size, dead, width, activated):
    with torch.device("meta"):
        model = published_wide_resnet(name, classes, activated=activated)
    assert sum(parameter.numel() for parameter in model.parameters()) == size
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    assert frozen == (0 if activated else dead)
    assert model.classifier.in_features == width


@pytest.mark.parametrize(("name", "side", "maps"), [("wrn-28-2", 32, [32, 16, 8]), ("wrn-37-2", 96, [48, 24, 12, 6])])
def test_published_feature_maps(name, side, maps):
    with torch.device("meta"):
        model = published_wide_resnet(name, 10)
        sizes = []
        for stage in model.stages:
            stage.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
        model(torch.empty(2, 3, side, side))
    assert sizes == maps


@pytest.mark.parametrize("activated", [False, True])
def test_every_parameter_that_is_not_frozen_gets_a_gradient(activated):
    torch.manual_seed(0)
    model = published_wide_resnet("wrn-28-2", 10, activated=activated)
    model(torch.randn(2, 3, 16, 16)).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert missing == []


def test_frozen_norms_statistics_still_move_in_training_and_rest_in_evaluation():
    torch.manual_seed(0)
    model = published_wide_resnet("wrn-28-2", 10)
    norm = model.stages[1][0].norm1
    assert not norm.weight.requires_grad
    before = norm.running_mean.clone()
    model.eval()(torch.randn(2, 3, 16, 16))
    assert torch.equal(norm.running_mean, before)
    model.train()(torch.randn(2, 3, 16, 16))
    assert not torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("side", "channels", "width"), [(8, 1, 32), (14, 1, 64), (16, 3, 64), (28, 1, 64), (32, 3, 64), (64, 3, 64)]
)
def test_small_network_takes_small_and_grey_images(side, channels, width):
    torch.manual_seed(0)
    split = split_classifier(small_wide_resnet(4, channels=channels, side=side))
    features = split(torch.randn(3, channels, side, side))
    assert features.shape == (3, width)
    criterion = LayerMatch(split.classifier, threshold=0.0)
    criterion(labelled=(features, torch.tensor([0, 1, 3])), weak=features, strong=features).loss.backward()
    assert all(parameter.grad is not None for parameter in split.parameters())


def test_an_unknown_network_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'wrn-28-3'.*wrn-28-2, wrn-28-8, wrn-37-2"):
        published_wide_resnet("wrn-28-3", 10)
