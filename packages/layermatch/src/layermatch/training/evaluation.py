"""Accuracy and confusion of a model on held-out images.

Letters   N images, C channels, H W pixels, K classes.
"""

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
    images: Tensor,
    *,
    labels: Tensor,
    classes: int,
    constants: tuple[Tensor, Tensor],
    channels: int,
    autocast: torch.autocast,
) -> Evaluation:
    """Run the model in eval mode; its mode is put back.

    Args:
        model: images -> features, with `.classifier`.
        images: UInt8[N C H W].
        labels: Int64[N] in 0..K-1.
        classes: K.
        constants: normalisation, from `constants_on`, on the images' device.
        channels: what the network takes.
        autocast: context of the forward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    predicted = []
    model.eval()
    try:
        for part in images.split(IMAGES_AT_ONCE):
            with autocast:
                predicted.append(model.logits(normalise(part, constants, channels=channels).to(device)).argmax(1))
    finally:
        for module, mode in modes:
            module.training = mode
    pairs = labels.to(device) * classes + torch.cat(predicted)
    table = torch.bincount(pairs, minlength=classes**2).view(classes, classes).cpu()
    return Evaluation(100.0 * float(table.diagonal().sum()) / len(labels), table)


def row_norm(classifier: nn.Module) -> float:
    """Mean Euclidean norm of the rows of the classifier's weight, where it has one."""
    weight = getattr(classifier, "weight", None)
    return (
        float(weight.detach().float().norm(dim=1).mean()) if isinstance(weight, Tensor) and weight.dim() == 2 else 0.0
    )
