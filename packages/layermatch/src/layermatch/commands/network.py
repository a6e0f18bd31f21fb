"""The network of `layermatch train`: by name, cut before its classifier, and tried on blank images of the data's size.

Letters   K classes; sizes are (C, H, W): channels and pixels.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from layermatch.classifier import SplitModel, split_classifier
from layermatch.models.small_cnn import SmallCNN
from layermatch.models.wide_resnet import PUBLISHED, published_wide_resnet, small_wide_resnet
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sources import torchvision_model
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.streams import stream_seed

if TYPE_CHECKING:
    from layermatch.commands.options import TrainConfig


def build_split(config: "TrainConfig", *, classes: int, size: torch.Size, rank: int = 0) -> SplitModel:
    """The model by name, its weights drawn from the stream "init", cut before its classifier.

    Args:
        config: names the model and the seed.
        classes: K.
        size: (C, H, W).
        rank: of the process; the weights are the same in all, dropout's later draws are each one's own.

    Raises:
        UserError: the name is unknown, torchvision is missing, or the model has no linear classifier.
    """
    channels, height, width = size
    seed_random_state(stream_seed(config.seed, "init"))
    model = build_model(config.model, classes, channels=channels, side=max(height, width))
    seed_random_state(stream_seed(config.seed, "dropout", *([rank] if rank else [])))
    try:
        return split_classifier(model)
    except ValueError as error:
        raise UserError(f"--model {config.model} cannot be used: {error}") from error


def build_model(name: str, classes: int, *, channels: int, side: int) -> nn.Module:
    """The whole network by name.

    Raises:
        UserError: the name is unknown, or torchvision is missing.
    """
    if name == "small":
        return small_wide_resnet(classes, channels=channels, side=side)
    if name == "cnn":
        return SmallCNN(classes, channels=channels)
    if name in PUBLISHED:
        return published_wide_resnet(name, classes, channels=channels)
    return torchvision_model(name, classes, ours=("small", "cnn", *PUBLISHED), package="layermatch")


def recipe(model: str) -> tuple[str, str]:
    """Import line and expression that build a model of this name again; `config` is the written model's config.json."""
    size = 'len(config["class_names"]), channels=config["channels"]'
    if model == "small":
        return "from layermatch import small_wide_resnet", f'small_wide_resnet({size}, side=max(config["image_size"]))'
    if model == "cnn":
        return "from layermatch.models.small_cnn import SmallCNN", f"SmallCNN({size})"
    if model in PUBLISHED:
        return "from layermatch import published_wide_resnet", f'published_wide_resnet(config["model"], {size})'
    return (
        "from torchvision.models import get_model",
        'get_model(config["model"], weights=None, num_classes=len(config["class_names"]))',
    )


def check_model(config: "TrainConfig", split: SplitModel, *, size: torch.Size) -> int:
    """Try a copy of the model on blank images and return the number of channels that it takes.

    Raises:
        UserError: the model does not take images of this size, or returns more than logits.
    """
    grey_or_colour, height, width = size
    ours = config.model in ("small", "cnn", *PUBLISHED)
    channels = grey_or_colour if ours else 3
    trial = copy.deepcopy(split)
    try:
        with torch.no_grad():
            trial.logits(torch.zeros(4, channels, height, width))
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--model {config.model} cannot be trained on images of {height}x{width}: {reason} "
            "Choose another --model, or another --image-size."
        ) from error
    return channels
