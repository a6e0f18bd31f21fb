"""The global random generators of python, numpy, torch and CUDA as one object, to put away and bring back.

The only module of the project that touches global generators. The captured object holds tensors, numbers,
strings, lists and tuples alone, so that `torch.load(..., weights_only=True)` reads it back.
"""

import random
from typing import Any

import numpy
import torch


def capture_random_state() -> dict[str, Any]:
    """State of every global generator: keys `python`, `numpy`, `torch` and `cuda` (a list, one a device)."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)  # noqa: NPY002 (the global one is meant)
    return {
        "python": (version, tuple(internal), gauss),
        "numpy": (str(kind), numpy.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set every global generator to a state from `capture_random_state`.

    Raises:
        ValueError: the state was taken with another number of CUDA devices; both numbers are named.
    """
    cuda = state["cuda"]
    if cuda and len(cuda) != torch.cuda.device_count():
        raise ValueError(
            f"The random state was captured with {len(cuda)} CUDA devices, and {torch.cuda.device_count()} are here. "
            "Resume on a machine with as many devices."
        )
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))  # noqa: NPY002 (the global one is meant)
    torch.set_rng_state(state["torch"].cpu())
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def seed_random_state(seed: int) -> None:
    """Start every global generator from one integer, such as `stream_seed(seed, "dropout", index)` gives."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 (the global one is meant)
    torch.manual_seed(seed)
