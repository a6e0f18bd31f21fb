"""A trained model to the Hugging Face Hub: what `--push-to-hub NAME` needs is looked for before the first step, the model goes at the end.

huggingface_hub is imported within the functions. The model's folder is uploaded as it is: weights, config.json, the card.
"""

from pathlib import Path
from typing import Any

from scarce_common_utils.errors import UserError


def refuse_push(name: str | None) -> None:
    """Raise a UserError where a model could not be pushed; called before the first step. None asks for nothing.

    Raises:
        UserError: huggingface_hub is missing, the name is none of the Hub's, nobody is logged in, or the Hub does not know the login.
    """
    if name is None:
        return
    api = _api()
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push-to-hub is {name!r}, which is no name on the Hub ({_first(error)}).") from error
    if get_token() is None:
        raise UserError(
            f"--push-to-hub is {name}, and nobody is logged in. Log in by `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    try:
        api.whoami()
    except Exception as error:
        raise UserError(
            f"--push-to-hub is {name}, and the Hub at {api.endpoint} did not take the login ({_first(error)}). Log in by "
            "`hf auth login`, or leave the option out."
        ) from error


def push_model(folder: Path, name: str | None) -> str | None:
    """Upload a model's folder into the repository of that name, made where it is missing; returns its address.

    Raises:
        UserError: the Hub refuses; the model stays where it is, and how to push it by hand is said.
    """
    if name is None:
        return None
    api = _api()
    try:
        repository = api.create_repo(name, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id, folder_path=folder, commit_message="Model, configuration and card"
        )
    except Exception as error:
        raise UserError(
            f"The run is done and its model lies in {folder}, but it could not be pushed to {name} ({_first(error)}). "
            f"Try again: hf upload {name} {folder}"
        ) from error
    return str(repository)


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError("--push-to-hub needs huggingface_hub: pip install huggingface_hub") from error
    return HfApi()


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
