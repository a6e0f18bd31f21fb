"""Residual networks for small images: ResNet-32 of the CIFAR-LT protocols, and a net of 8 layers for 8x8 digits.

Block     relu(x' + BN(conv(relu(BN(conv(x)))))), 3x3 convolutions; x' is x, subsampled by its stride and padded with zero
          channels on both sides where the width grows: a shortcut without parameters.
Source    He et al. 2015 (option A shortcut) as in the LDAM-DRW code (arXiv 1906.07413); Kaiming-normal on every
          convolution and linear weight. The small net is ours (the probe's: 8,182 parameters for 10 classes of grey).
Letters   N images, C channels, H W pixels, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imwa.long_tail.ldam import CosineClassifier


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut without parameters: (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride, self.grows = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        """Float[N C H W] -> Float[N C' H/s W/s]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.grows:
            before = self.grows // 2
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, before, self.grows - before))
        return torch.relu(shortcut + self.norm2(self.conv2(y)))


class CifarResNet(nn.Module):
    """3x3 stem, residual blocks, global mean, linear classifier: Float[N C H W] -> logits Float[N K].

    Args:
        classes: K.
        channels: C of the images.
        widths: width of each block.
        strides: stride of each block.
        cosine: a `CosineClassifier`, for LDAM: logits are cosines in [-1, 1].
    """

    def __init__(
        self, classes: int, *, channels: int, widths: Sequence[int], strides: Sequence[int], cosine: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        before = [widths[0], *widths[:-1]]
        blocks = [Block(c, w, stride=s) for c, w, s in zip(before, widths, strides, strict=True)]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = CosineClassifier(widths[-1], classes) if cosine else nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Float[N C H W] -> logits Float[N K]."""
        features = self.blocks(torch.relu(self.norm(self.conv(images))))
        return self.classifier(features.mean((2, 3)))


def resnet32(classes: int, *, channels: int = 3, cosine: bool = False) -> CifarResNet:
    """ResNet-32: three stages of 5 blocks at widths 16, 32, 64 and strides 1, 2, 2; 0.46 M parameters."""
    widths = [16] * 5 + [32] * 5 + [64] * 5
    strides = [1] * 5 + [2, 1, 1, 1, 1] * 2
    return CifarResNet(classes, channels=channels, widths=widths, strides=strides, cosine=cosine)


def small_resnet(classes: int, *, channels: int = 1, width: int = 12, cosine: bool = False) -> CifarResNet:
    """Eight layers at one width, strides 1, 2, 2: for images of 8x8 to 32x32."""
    return CifarResNet(classes, channels=channels, widths=[width] * 3, strides=[1, 2, 2], cosine=cosine)
