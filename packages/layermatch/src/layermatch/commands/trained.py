"""The trained model of a run folder, for `layermatch predict` and `layermatch evaluate`.

Letters   N images, C channels, H W pixels, K classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layermatch.classifier import SplitModel, split_classifier
from layermatch.commands.network import build_model
from layermatch.views.normalise import Normalisation, constants_on, normalise
from scarce_common_utils.errors import UserError
from scarce_common_utils.fitting import refuse_unfitting
from scarce_common_utils.options import choose_device

WRITTEN = ("model", "class_names", "channels", "image_size", "mean", "deviation")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model and what it must be fed.

    Attributes:
        run: the run's folder.
        model: in eval mode, on `device`.
        class_names: K names, in the order of the logits.
        channels: what the network takes; more than the images' own where grey ones are repeated.
        shape: (C, H, W) of the images that it was trained on.
        constants: normalisation, on `device`.
        device: where it is.
    """

    run: Path
    model: SplitModel
    class_names: tuple[str, ...]
    channels: int
    shape: tuple[int, int, int]
    constants: tuple[Tensor, Tensor]
    device: torch.device

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Float32[N K] on the CPU, of images UInt8[N C H W]."""
        pixels = normalise(images.to(self.device), self.constants, channels=self.channels)
        return self.model.logits(pixels).float().softmax(1).cpu()


def load_trained(run: Path, *, device: str) -> Trained:
    """The model that `layermatch train` wrote into its run folder.

    Args:
        run: the run folder, or its `model` folder.
        device: as the option `--device`.

    Raises:
        UserError: the folder is missing, holds no model, or one that cannot be loaded; it is named.
    """
    folder = run if (run / "model.safetensors").is_file() else run / "model"
    if not (folder / "model.safetensors").is_file():
        begun = (run / "config.json").is_file()
        mend = (
            f"Finish the run first: layermatch train --resume {run}" if begun else "Give the folder of a finished run."
        )
        raise UserError(f"{run} holds no trained model. {mend}")
    config = read_config(folder / "config.json")
    place = choose_device(device)
    height, width = config["image_size"]
    model = build_model(
        config["model"], len(config["class_names"]), channels=config["channels"], side=max(height, width)
    )
    load_weights(model, folder / "model.safetensors")
    normalisation = Normalisation(tuple(config["mean"]), tuple(config["deviation"]))
    return Trained(
        run=folder.parent if folder.name == "model" else folder,
        model=split_classifier(model).eval().requires_grad_(False).to(place),
        class_names=tuple(config["class_names"]),
        channels=config["channels"],
        shape=(len(config["mean"]), height, width),
        constants=constants_on(normalisation, place),
        device=place,
    )


def read_config(file: Path) -> dict[str, Any]:
    """Content of the written model's config.json.

    Raises:
        UserError: it cannot be read, or lacks something; the file is named.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}). The model's folder is not whole.") from error
    missing = [name for name in WRITTEN if not isinstance(config, dict) or name not in config]
    if missing:
        raise UserError(f"{file} does not say {missing[0]!r}, so it was not written by `layermatch train`.")
    wrong = next((name for name in WRITTEN if not _is_written(name, config[name])), None)
    if wrong is not None:
        raise UserError(
            f"{file} says that {wrong!r} is {str(config[wrong])[:40]!r}, which `layermatch train` does not write."
        )
    return config


def _is_written(name: str, value: Any) -> bool:
    """Whether a value of config.json is of the kind that `write_model` writes."""
    if name == "model":
        return isinstance(value, str)
    if name == "channels":
        return type(value) is int and 0 < value <= 2**10
    kind = {"class_names": str, "image_size": int}.get(name, (int, float))
    count = {"image_size": (2,), "mean": (1, 3), "deviation": (1, 3)}.get(name)
    found = isinstance(value, list) and all(isinstance(one, kind) and not isinstance(one, bool) for one in value)
    sized = name != "image_size" or (found and all(0 < one <= 2**14 for one in value))
    return found and sized and len(value) > 0 and (count is None or len(value) in count)


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Load a safetensors file into the model, every name and shape as it is.

    Raises:
        UserError: the file is damaged or of another network; it is named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(file)
        refuse_unfitting(model.state_dict(), stored, whose="what it holds")
        model.load_state_dict(stored)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} cannot be loaded: {str(error).splitlines()[0]}") from error
