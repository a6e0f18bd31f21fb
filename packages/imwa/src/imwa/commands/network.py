"""The network that `imwa train` trains: built by its name, tried on blank images, built again from its written model."""

import copy
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from imwa.long_tail.retraining import find_classifier
from imwa.models.resnet_cifar import resnet32, small_resnet
from imwa.training.initial import start_from
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sets import AnyImages
from scarce_common_utils.image_sources import torchvision_model
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.streams import stream_seed

if TYPE_CHECKING:
    from imwa.commands.train import TrainConfig

OURS: dict[str, Callable[..., nn.Module]] = {"small": small_resnet, "resnet32": resnet32}


def build_model(config: "TrainConfig", training: AnyImages) -> tuple[nn.Module, int]:
    """The model by name, weights drawn from the stream "init", and the number of channels that it takes.

    Raises:
        UserError: the name is unknown, torchvision is missing, or the model does not take images of this size.
    """
    classes, channels = len(training.class_names), training.shape[0]
    seed_random_state(stream_seed(config.seed, "init"))
    if config.model in OURS:
        cosine = {"cosine": True} if config.loss == "ldam" else {}
        model: nn.Module = OURS[config.model](classes, channels=channels, **cosine)
    else:
        model, channels = torchvision_model(config.model, classes, ours=tuple(OURS), package="imwa"), 3
    if config.init_from is not None:
        start_from(model, config.init_from)
    try_model(model, config, channels=channels, size=training.shape[1:])
    seed_random_state(stream_seed(config.seed, "dropout"))
    return model, channels


def recipe(model: str, *, cosine: bool = False) -> tuple[str, str]:
    """Import line and expression that build a model of this name again; `config` is the written model's config.json."""
    if model in OURS:
        name = OURS[model].__name__
        return (
            f"from imwa.models.resnet_cifar import {name}",
            f'{name}(len(config["class_names"]), channels=config["channels"]{", cosine=True" if cosine else ""})',
        )
    return (
        "from torchvision.models import get_model",
        'get_model(config["model"], weights=None, num_classes=len(config["class_names"]))',
    )


def try_model(model: nn.Module, config: "TrainConfig", *, channels: int, size: tuple[int, ...]) -> None:
    """One forward pass of a copy in training mode on blank images; logits must come out."""
    try:
        with torch.no_grad(), redirect_stdout(None):
            out = copy.deepcopy(model).train()(torch.zeros(max(2, min(config.batch_size, 4)), channels, *size))
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise UserError(
            f"--model {config.model} cannot be trained on images of {size[0]}x{size[1]}: {reason}. "
            "Choose another --model, or another --image-size."
        ) from error
    if not isinstance(out, Tensor):
        raise UserError(f"--model {config.model} returns a {type(out).__name__}, not logits. Choose another --model.")


def check_classifier(config: "TrainConfig", model: nn.Module, *, classes: int) -> None:
    """Refuse --retrain-steps before the first step where there is no classifier to train anew."""
    if config.retrain_steps is None:
        return
    try:
        find_classifier(model, classes)
    except ValueError as error:
        raise UserError(f"--retrain-steps cannot be used with --model {config.model}: {error}") from error
