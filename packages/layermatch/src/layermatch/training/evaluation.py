"""Accuracy and confusion of a model on held-out images.

Letters   N images, C channels, H W pixels, K classes.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from layermatch.classifier import SplitModel
from layermatch.views.normalise import normalise

IMAGES_AT_ONCE = 512


class Evaluation(NamedTuple):
    """`accuracy` in percent over all images; `confusion` Int64[K K] on the CPU, rows true classes, columns predicted."""

    accuracy: float
    confusion: Tensor


@torch.no_grad()
def evaluate(
    model: SplitModel,
    parts: Iterable[tuple[Tensor, Tensor]],
    *,
    classes: int,
    constants: tuple[Tensor, Tensor],
    channels: int,
    autocast: AbstractContextManager,
) -> Evaluation:
    """Run the model in eval mode; its mode is put back.

    Args:
        model: images -> features, with `.classifier`.
        parts: the images a few at a time, UInt8[n C H W], with their labels Int64[n] in 0..K-1.
        classes: K.
        constants: normalisation, from `constants_on`.
        channels: what the network takes.
        autocast: context of the forward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    table = torch.zeros(classes**2, dtype=torch.int64, device=device)
    model.eval()
    try:
        for images, labels in parts:
            pixels = normalise(images.to(constants[0].device), constants, channels=channels)
            with autocast:
                predicted = model.logits(pixels.to(device)).argmax(1)
            table += torch.bincount(labels.to(device) * classes + predicted, minlength=classes**2)
    finally:
        for module, mode in modes:
            module.training = mode
    confusion = table.view(classes, classes).cpu()
    return Evaluation(100.0 * float(confusion.diagonal().sum()) / max(int(confusion.sum()), 1), confusion)


def row_norm(classifier: nn.Module) -> float:
    """Mean Euclidean norm of the rows of the classifier's weight, where it has one."""
    weight = getattr(classifier, "weight", None)
    return (
        float(weight.detach().float().norm(dim=1).mean()) if isinstance(weight, Tensor) and weight.dim() == 2 else 0.0
    )
