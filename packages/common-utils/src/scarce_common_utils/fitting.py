"""Whether stored tensors are those of a model: every name, shape and dtype, or the list of what differs.

torch's own loading casts another dtype in silence, and the Trainer of transformers passes over names that are missing.
"""

from collections.abc import Mapping

from torch import Tensor

MOST_NAMED = 5


def refuse_unfitting(needed: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, whose: str) -> None:
    """Return where `stored` has the names, shapes and dtypes of `needed`.

    Args:
        needed: state of the model that is there; of tensors that share their storage one name is enough.
        stored: what would be loaded into it.
        whose: what `stored` is, for the error, such as "the checkpoint's model".

    Raises:
        ValueError: something differs; the first differences are listed, and how many more there are.
    """
    found = unfitting(needed, stored)
    if found:
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise ValueError(f"{whose} is of another model: {'; '.join(found[:MOST_NAMED])}{more}.")


def unfitting(needed: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> list[str]:
    """What differs, a clause each: tensors of another shape or dtype, then those that are missing, then those not needed."""
    present = {needed[name].data_ptr() for name in stored.keys() & needed.keys() if needed[name].numel()}
    both = [name for name in needed if name in stored]
    other = [
        f"{name} is {_kind(stored[name])} where {_kind(needed[name])} is needed"
        for name in both
        if _kind(stored[name]) != _kind(needed[name])
    ]
    missing = [name for name in needed if name not in stored and needed[name].data_ptr() not in present]
    strange = [name for name in stored if name not in needed]
    return [*other, *(f"{name} is missing" for name in missing), *(f"{name} is not needed" for name in strange)]


def _kind(tensor: Tensor) -> str:
    """Such as float32[10, 64]."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
