"""Sizes of the networks, as published and as probed, and the shortcut without parameters."""

import pytest
import torch

from imwa.models.resnet_cifar import Block, resnet32, small_resnet


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet32_has_32_layers_and_0_46_million_parameters():
    model = resnet32(10)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 32
    assert parameters(model) == pytest.approx(0.46e6, rel=0.02)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model.blocks(model.conv(torch.zeros(2, 3, 32, 32))).shape == (2, 64, 8, 8)


def test_the_small_net_has_8_layers_and_the_probe_s_8182_parameters():
    model = small_resnet(10, channels=1)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 8
    assert parameters(model) == 8182
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_shortcut_takes_every_second_pixel_and_pads_zero_channels_on_both_sides():
    block = Block(2, 6, stride=2)
    torch.nn.init.zeros_(block.norm2.weight)  # the convolutions' branch is silent
    x = torch.rand(1, 2, 4, 4)
    y = block(x)
    assert torch.equal(y[:, 2:4], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 4:].any()


def test_weights_are_kaiming_normal():
    torch.manual_seed(0)
    weight = resnet32(10).blocks[-1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
