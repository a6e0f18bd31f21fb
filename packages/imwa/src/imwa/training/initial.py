"""A pre-trained start: every weight and statistic but the classifier's from a safetensors file."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from imwa.long_tail.ldam import CosineClassifier
from scarce_common_utils.errors import UserError

SHOWN_AT_MOST = 4


def start_from(model: nn.Module, path: Path) -> None:
    """Write the file's tensors into the model, in place; its last linear layer, the classifier, stays as it was drawn.

    Raises:
        UserError: the file cannot be read, or outside the classifier names or shapes differ from the model's (listed).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--init-from {path} cannot be read as a safetensors file ({error}).") from error
    own = _classifier(model)
    live = {name: value for name, value in model.state_dict().items() if not name.startswith(own)}
    given = {name: value for name, value in stored.items() if not name.startswith(own)}
    wrong = [f"{name!r} is not in the file" for name in live if name not in given]
    wrong += [f"{name!r} is not in the model" for name in given if name not in live]
    wrong += [
        f"{name!r} is {tuple(given[name].shape)} in the file and {tuple(value.shape)} in the model"
        for name, value in live.items()
        if name in given and given[name].shape != value.shape
    ]
    if wrong:
        more = f"; and {len(wrong) - SHOWN_AT_MOST} more" if len(wrong) > SHOWN_AT_MOST else ""
        raise UserError(
            f"--init-from {path} does not fit this model: {'; '.join(wrong[:SHOWN_AT_MOST])}{more}. "
            "Choose the --model and the kind of images that the file was trained with."
        )
    with torch.no_grad():
        for name, value in live.items():
            value.copy_(given[name])


def digest_of_file(path: Path) -> str:
    """SHA-256 of the file, for the run's split.json: a resumed run starts from the same weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _classifier(model: nn.Module) -> tuple[str, ...]:
    """How the names of the last linear layer's tensors begin; nothing where there is no such layer."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | CosineClassifier)]
    return (f"{found[-1]}.",) if found else ()
