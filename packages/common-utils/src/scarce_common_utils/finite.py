"""Whether all that a run is about to keep is finite, and which tensor is not: asked before a checkpoint is written.

A NaN or an infinity in a moving average, a running statistic or an optimizer's moment goes through no loss, and a gradient's comes into
the weights after the loss of its step was read. Whoever keeps them keeps a run that cannot be gone on with.

What passes   a mask: -inf, and besides it zeros alone.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scarce_common_utils.errors import UserError


def not_finite(state: Any) -> list[str]:
    """Places, with their keys joined by dots, of the tensors and floats in nested dicts, lists and tuples that hold NaN or infinity.

    One wait for each device where all are finite.
    """
    places: dict[torch.device, list[tuple[str, Tensor]]] = {}
    found: list[str] = []
    for place, value in _leaves(state, ""):
        if isinstance(value, float) and not abs(value) < float("inf"):
            found.append(place)
        elif isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) and value.numel():
            places.setdefault(value.device, []).append((place, value.detach()))
    for tensors in places.values():
        finite = torch.stack([torch.isfinite(value).all() for _, value in tensors]).tolist()
        found += [
            place for (place, value), sound in zip(tensors, finite, strict=True) if not sound and not _mask(value)
        ]
    return found


def named(places: list[str]) -> str:
    """The first of some places, and how many more there are."""
    more = len(places) - 1
    return repr(places[0]) + (f" and {more} more tensor{'s' if more > 1 else ''}" if more else "")


def refuse_not_finite(state: Any, *, when: str, or_else: str = "") -> None:
    """Raise where something that is to be kept is not finite.

    Args:
        state: nested dicts, lists and tuples of what is to be kept; the keys are said.
        when: such as `after step 12`.
        or_else: a sentence with another way out.

    Raises:
        UserError: the first tensor is named.
    """
    places = not_finite(state)
    if places:
        raise UserError(
            f"{named(places)} {'holds' if len(places) == 1 else 'hold'} NaN or infinity {when}. That is not kept; the last "
            "checkpoint is finite, and --resume goes on from it. If it comes again, lower --learning-rate in a new run, or compute in "
            f"--precision float32.{f' {or_else}' if or_else else ''}"
        )


def _leaves(state: Any, place: str) -> Any:
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from _leaves(value, f"{place}.{number}" if place else str(number))
    else:
        yield place, state


def _mask(value: Tensor) -> bool:
    """Whether a tensor that is not finite everywhere is a mask."""
    if value.is_complex():
        return False
    return bool(((value == -float("inf")) | (value == 0)).all())
