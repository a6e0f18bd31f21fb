"""The trained model of a run as files that outlive it: weights, what is needed to build and feed the model, a card.

run/model/model.safetensors   tensors under the model's own state_dict names
run/model/config.json         model name, classes, channels, image size, normalisation, package and version
run/model/README.md           what it is, what it was trained on, what it reached, and how to load it

safetensors is imported within the function, so that what trains no model does without it.
Letters   C channels of the images, H W pixels, K classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from torch import Tensor

from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError
from scarce_common_utils.model_card import Card, card_text
from scarce_common_utils.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a person needs to use the weights.

    Attributes:
        model: name of the model, as the command's option has it.
        class_names: K names, in the order of the logits.
        channels: what the model takes; 3 where grey images are repeated.
        image_size: (H, W).
        mean: of each channel of the training images, C numbers on the scale 0 to 255.
        deviation: the same.
        card: what is told of it.
        builder: the import line of what builds the model.
        build: expression that builds it; `config` is the content of config.json.
    """

    model: str
    class_names: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    card: Card
    builder: str
    build: str


def write_model(run: RunFolder, state: Mapping[str, Tensor], card: ModelCard) -> Path:
    """Write weights, configuration and card into the run's `model` folder, each file whole or not at all.

    Args:
        run: the run; its package and the package's version are recorded.
        state: of `model.state_dict()`, on any device. Each tensor is written for itself and contiguous: weights that
            share their storage are written under each of their names, so that a strict `load_state_dict` takes them.
        card: the rest.

    Returns:
        The folder.

    Raises:
        ValueError: an entry of `state` is no tensor; it is named.
        UserError: safetensors is missing; the pip line is given.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"The state's entry {name!r} is a {type(value).__name__}; a model file holds tensors alone."
            )
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(
            f"The model in {run.model} cannot be written without safetensors: pip install safetensors"
        ) from error
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    run.model.mkdir(parents=True, exist_ok=True)
    write_atomically(run.model / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_atomically(run.model / "config.json", (json.dumps(_configuration(run, card), indent=1) + "\n").encode())
    write_atomically(run.model / "README.md", _text(run, card).encode())
    return run.model


def _configuration(run: RunFolder, card: ModelCard) -> dict[str, object]:
    return {
        "model": card.model,
        "class_names": list(card.class_names),
        "channels": card.channels,
        "image_size": list(card.image_size),
        "mean": list(card.mean),
        "deviation": list(card.deviation),
        "package": run.package,
        "version": metadata.version(run.package),
    }


def _text(run: RunFolder, model: ModelCard) -> str:
    """The card in Markdown; its code block runs within the model's folder, with `images` at hand."""
    shape = f"{len(model.mean)}, {model.image_size[0]}, {model.image_size[1]}"
    facts = {
        "model": f"{model.model}, for images of {model.image_size[0]}x{model.image_size[1]}, {len(model.class_names)} classes",
        **model.card.facts,
        "written by": f"{run.package} {metadata.version(run.package)}",
    }
    code = f"""
import json, torch, safetensors.torch
{model.builder}
config = json.load(open("config.json", encoding="utf-8"))
model = {model.build}
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
mean, deviation = (torch.tensor(config[name]).view(1, -1, 1, 1) for name in ("mean", "deviation"))
pixels = ((images.float() - mean) / deviation).expand(-1, config["channels"], -1, -1)  # images: UInt8[N, {shape}]
logits = model.eval()(pixels)
names = [config["class_names"][number] for number in logits.argmax(1)]
"""
    return card_text(replace(model.card, facts=facts), code)
