"""Do these state dicts belong together: a list of what differs, by name.

Two states belong together when they hold the same names, and under each name a tensor of the same shape and dtype,
or a plain value of the same type. Nothing is ever broadcast: a head of 1 class is not a head of 4.
Source    ours; four of six public averaging tools broadcast such a head in silence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

SHOWN_AT_MOST = 12  # lines of one refusal; the rest is counted


def list_differences(states: Sequence[Mapping[str, Any]], *, what: str = "state") -> list[str]:
    """Every way in which a later state does not match the first, one sentence each.

    Args:
        states: flat mappings from a name to a tensor or a plain value.
        what: what one of them is called in the sentences, with its index: "state 1".

    Returns:
        Sentences; an empty list where all belong together.
    """
    first = states[0]
    found: list[str] = []
    for index, state in enumerate(states[1:], start=1):
        found += [f"{name!r} is in {what} 0 and not in {what} {index}" for name in first if name not in state]
        found += [f"{name!r} is in {what} {index} and not in {what} 0" for name in state if name not in first]
        for name in first:
            if name in state and _form(first[name]) != _form(state[name]):
                here, there = describe(first[name]), describe(state[name])
                found.append(f"{name!r} is {here} in {what} 0 and {there} in {what} {index}")
    return found


def require_same_form(states: Sequence[Mapping[str, Any]], *, what: str = "state") -> None:
    """Raise where the states do not belong together.

    Raises:
        ValueError: names, shapes or dtypes differ; every difference is named (up to 12, the others counted).
    """
    found = list_differences(states, what=what)
    if not found:
        return
    shown = found[:SHOWN_AT_MOST]
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    raise ValueError(
        f"These {len(states)} {what}s do not belong together: {'; '.join(shown)}{more}. "
        "Average replicas of one model, with the same layers, sizes and dtypes."
    )


def describe(value: Any) -> str:
    """Form of a value in words: dtype and shape of a tensor, type of anything else."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"the {type(value).__name__} {value!r}"


def _form(value: Any) -> tuple[object, ...]:
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.shape)
    return (type(value),)
