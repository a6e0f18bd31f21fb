"""IMWA: iterative model weight averaging (arXiv 2404.16331). Public names, loaded when first used."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Diagnostics": "diagnostics",
    "IMWA": "driver",
    "ProcessLost": "group",
    "Replica": "replica",
    "average_files": "files",
    "average_models": "averaging",
    "average_state_dicts": "averaging",
    "recompute_batch_norm": "batch_norm",
}
__all__ = [
    "IMWA",
    "Diagnostics",
    "ProcessLost",
    "Replica",
    "average_files",
    "average_models",
    "average_state_dicts",
    "recompute_batch_norm",
]

if TYPE_CHECKING:
    from imwa.averaging import average_models, average_state_dicts
    from imwa.batch_norm import recompute_batch_norm
    from imwa.diagnostics import Diagnostics
    from imwa.driver import IMWA
    from imwa.files import average_files
    from imwa.group import ProcessLost
    from imwa.replica import Replica


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'imwa' has no attribute {name!r}; public names are {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"imwa.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
