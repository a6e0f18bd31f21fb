"""A convolutional network of three layers for small images, for long comparisons on a CPU; ours, in no published table.

A 5x5 convolution with stride 2 and 16 channels, a 3x3 one with stride 2 and 32, a 3x3 one with 64, each followed by BatchNorm
(momentum 0.05, for runs of thousands of steps) and LeakyReLU 0.1; mean pooling, a linear classifier over 64 features.
Letters   N images, C channels, H W pixels, D features, K classes.
"""

from torch import Tensor, nn

WIDTHS = (16, 32, 64)  # D is the last
SLOPE = 0.1
BATCH_NORM_MOMENTUM = 0.05


class SmallCNN(nn.Module):
    """Images Float[N C H W], of any size from 4x4 on, -> logits Float[N K]; the classifier is the attribute `classifier`.

    Args:
        classes: K.
        channels: C, 1 for grey images.
    """

    def __init__(self, classes: int, *, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in = channels
        for width, kernel, stride in zip(WIDTHS, (5, 3, 3), (2, 2, 1), strict=True):
            layers += [
                nn.Conv2d(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(width, momentum=BATCH_NORM_MOMENTUM),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            width_in = width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(width_in, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits Float[N K] of images Float[N C H W]."""
        return self.classifier(self.layers(images).mean(dim=(2, 3)))
