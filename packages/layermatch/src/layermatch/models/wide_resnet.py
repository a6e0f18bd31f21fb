"""Wide residual networks: the published WRN-28-2, 28-8 and 37-2, and a small one for small images.

A 3x3 stem with 16 channels, stages of pre-activation basic blocks with widths 16 k 2^j, a 1x1 shortcut at each stage's
first block, BatchNorm, LeakyReLU 0.1, mean pooling, a linear classifier.

Source    Zagoruyko and Komodakis 2016; the form is that of USB and TorchSSL, whose tables are compared with: a bias on
          the stem's convolution and on no other, BatchNorm momentum 0.001, eps 1e-5 in blocks and 1e-3 in the last.
A published bug that became the standard: in these codes the first block of every stage after the first computes
BatchNorm and LeakyReLU and then feeds its raw input to its first convolution. That BatchNorm's weight and bias never get
a gradient. They count in the published size (192, 768 and 448 values) and are frozen here, since a parameter without a
gradient breaks DistributedDataParallel. `activated=True` feeds the activated input, as google-research's code does.
Letters   N images, C channels, H W pixels, D features, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SLOPE = 0.1
# Name -> widths of the stages, stride of each; four blocks a stage. "37" is 28 with a fourth stage, all with stride 2.
PUBLISHED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "wrn-28-2": ((32, 64, 128), (1, 2, 2)),
    "wrn-28-8": ((128, 256, 512), (1, 2, 2)),
    "wrn-37-2": ((32, 64, 128, 256), (2, 2, 2, 2)),
}


class WideResNet(nn.Module):
    """Images Float[N C H W] -> logits Float[N K]; the classifier is the attribute `classifier`, D features wide.

    Args:
        classes: K.
        channels: C, 1 for grey images.
        widths: channels of each stage; D is the last.
        strides: stride of each stage's first block.
        blocks: basic blocks a stage.
        stem_stride: stride of the stem's convolution.
        activated: feed activated inputs to every first convolution (module docstring).
        batch_norm_momentum: share of the new batch in the running statistics; 0.001 as published, for long runs.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        strides: Sequence[int] = (1, 2, 2),
        blocks: int = 4,
        stem_stride: int = 1,
        activated: bool = False,
        batch_norm_momentum: float = 0.001,
    ) -> None:
        super().__init__()
        kernel = 3 if stem_stride == 1 else 2 * stem_stride - 1
        self.stem = nn.Conv2d(channels, 16, kernel, stride=stem_stride, padding=kernel // 2)
        stages, width_in = [], 16
        for stage, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            parts = [
                Block(
                    width_in if block == 0 else width,
                    width,
                    stride=stride if block == 0 else 1,
                    form="both" if stage == block == 0 else "branch" if activated or block > 0 else "none",
                    momentum=batch_norm_momentum,
                )
                for block in range(blocks)
            ]
            stages.append(nn.Sequential(*parts))
            width_in = width
        self.stages = nn.Sequential(*stages)
        self.last_norm = nn.BatchNorm2d(width_in, eps=1e-3, momentum=batch_norm_momentum)
        self.classifier = nn.Linear(width_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits Float[N K] of images Float[N C H W]."""
        maps = self.last_norm(self.stages(self.stem(images)))
        return self.classifier(nn.functional.leaky_relu(maps, SLOPE, inplace=True).mean(dim=(2, 3)))


class Block(nn.Module):
    """Pre-activation basic block.

    Args:
        width_in: channels that enter.
        width: channels that leave.
        stride: of the first convolution and the shortcut.
        form: where the first activation goes: to `both` branches (the network's first block), to the residual
            `branch` alone, or to `none` (the published bug; its BatchNorm is frozen, its statistics still move).
        momentum: of the BatchNorms.
    """

    def __init__(self, width_in: int, width: int, *, stride: int, form: str, momentum: float) -> None:
        super().__init__()
        self.form = form
        self.norm1 = nn.BatchNorm2d(width_in, momentum=momentum)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width, momentum=momentum)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes = width_in != width or stride != 1
        self.shortcut = nn.Conv2d(width_in, width, 1, stride=stride, bias=False) if changes else None
        if form == "none":
            self.norm1.requires_grad_(False)

    def forward(self, maps: Tensor) -> Tensor:
        """Float[N width H/stride W/stride] of Float[N width_in H W]."""
        if self.form == "none":
            if self.training:
                with torch.no_grad():
                    self.norm1(maps)
            activated = maps
        else:
            activated = nn.functional.leaky_relu(self.norm1(maps), SLOPE, inplace=True)
        if self.form == "both":
            maps = activated
        inner = nn.functional.leaky_relu(self.norm2(self.conv1(activated)), SLOPE, inplace=True)
        return self.conv2(inner) + (maps if self.shortcut is None else self.shortcut(maps))


def published_wide_resnet(name: str, classes: int, *, channels: int = 3, activated: bool = False) -> WideResNet:
    """WRN-28-2, WRN-28-8 (32x32 images) or WRN-37-2 (96x96) with the published parameter counts.

    Args:
        name: `wrn-28-2`, `wrn-28-8` or `wrn-37-2`.
        classes: K.
        channels: C of the images.
        activated: google-research's form instead of USB's; the counts are the same, and all of it trains.

    Raises:
        ValueError: the name is unknown; the known ones are given.
    """
    if name not in PUBLISHED:
        raise ValueError(f"The network is {name!r}, which is not known here. Choose one of {', '.join(PUBLISHED)}.")
    widths, strides = PUBLISHED[name]
    return WideResNet(classes, channels=channels, widths=widths, strides=strides, activated=activated)


def small_wide_resnet(classes: int, *, channels: int = 3, side: int = 32, width: int = 1) -> WideResNet:
    """A network of one block a stage for images of 8x8 to 64x64 that trains on a CPU; ours, in no published table.

    Its first maps are at most 16x16 (the stem strides over larger images), with two stages below 12x12 and three above,
    and its BatchNorm momentum is 0.05, for runs of hundreds or thousands of steps.

    Args:
        classes: K.
        channels: C of the images, 1 for grey.
        side: H, the longer side of the images in pixels.
        width: k; the stages have 16 k, 32 k (and 64 k) channels.
    """
    stem_stride = 1
    while side > 16 * stem_stride:
        stem_stride *= 2
    stages = 3 if side / stem_stride >= 12 else 2
    return WideResNet(
        classes,
        channels=channels,
        widths=[16 * width * 2**stage for stage in range(stages)],
        strides=[1] + [2] * (stages - 1),
        blocks=1,
        stem_stride=stem_stride,
        activated=True,
        batch_norm_momentum=0.05,
    )
