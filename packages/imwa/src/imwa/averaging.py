"""The mean of M states that belong together, exact for everything a model carries.

Equation  mean = (x_0 + x_1 + .. + x_{M-1}) / M, replica 0 copied, the others added in index order, divided once:
          M = 1 keeps every bit (-0.0 too), and the order of the sum is the same in every run.
Floats    summed in float32, float64 for float64, cast back once. A tensor that is the same in all M keeps its bits
          (frozen weights, masks of -inf: (x + x + x) / 3 is not always x).
Integers  a tensor of one value is a counter: equal or the largest; one of several values must be equal. Dtype kept.
Others    booleans, strings, None: must be equal. NaN is refused with the tensor's name; infinities pass.
Source    IMWA (arXiv 2404.16331): plain mean over all weights; precision, order and integer rules are readings of ours.
Letters   M replicas.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from imwa.compatibility import SHOWN_AT_MOST, describe, require_same_form
from imwa.trees import copy_state

BLOCK_BYTES = 2 * 2**20  # summed and checked for NaN while still in cache


def average_state_dicts(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of M state dicts of one model.

    Args:
        states: M >= 1 flat mappings from name to tensor (any dtype, any device) or plain value, such as
            `model.state_dict()` gives. They are only read.

    Returns:
        A new dictionary in the first one's order; each tensor in the dtype, shape and on the device of the first's.
        Names that share one tensor in every state share one in the result.

    Raises:
        ValueError: no state; names, shapes or dtypes differ (listed); a NaN (tensor and state named); integers or
            booleans that have no mean differ (named).

    Example:
        >>> average_state_dicts([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}])
        {'w': tensor([2.])}
    """
    if not states:
        raise ValueError("There are 0 states to average. Give at least 1.")
    require_same_form(states)
    first_of: dict[tuple[object, ...], str] = {}
    owner = {name: first_of.setdefault(tuple(_identity(state[name]) for state in states), name) for name in states[0]}
    names = list(first_of.values())
    means = dict.fromkeys(names)
    blocks = [name for name in names if all(_goes_in_blocks(state[name]) for state in states)]
    others = ReplicaSum()
    for index, state in enumerate(states):
        others.add({name: state[name] for name in means.keys() - set(blocks)}, label=f"state {index}")
    means.update(others.mean())
    means.update({name: _mean_in_blocks(name, [state[name] for state in states]) for name in blocks})
    return {name: means[owner[name]] for name in states[0]}


def average_models(models: Sequence[torch.nn.Module]) -> torch.nn.Module:
    """Mean of M models: a copy of the first with averaged parameters and buffers, ties kept.

    Args:
        models: M >= 1 modules of one architecture; they are only read. Buffers outside the `state_dict` count too.

    Raises:
        ValueError: as `average_state_dicts`.
    """
    if not models:
        raise ValueError("There are 0 models to average. Give at least 1.")
    mean = average_state_dicts([module_tensors(model) for model in models])
    result = copy.deepcopy(models[0])
    write_tensors(module_tensors(result), mean)
    return result


def module_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer of a module by name, tied ones once, buffers that are not saved included."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def write_tensors(live: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into live tensors of the same names, in place, so that every reference to them stays valid."""
    targets = list(live.values())
    if targets:
        many = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage] (torch's optimizers use it; one launch)
        many(targets, [values[name] for name in live])


class ReplicaSum:
    """Sum of replicas' states that arrive one after the other; its mean has the same bits as `average_state_dicts`.

    Args:
        is_counter: says of a name whether its value is a counter although it is a float (Adam's `step`).
        partial: states may lack names (a parameter that had no gradient yet); each name is averaged over those that
            have it.
    """

    def __init__(self, *, is_counter: Callable[[str], bool] = lambda name: False, partial: bool = False) -> None:
        self._is_counter = is_counter
        self._partial = partial
        self.clear()

    def clear(self) -> None:
        """Forget everything that was added."""
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._same: dict[str, bool] = {}  # so far all were equal: the sum holds the value itself, not yet added up
        self._dtypes: dict[str, str] = {}
        self.replicas = 0

    def add(self, state: Mapping[str, Any], *, label: str = "") -> None:
        """Add one replica's state; a state that is refused leaves the sum as it was.

        Args:
            state: flat mapping from name to tensor or plain value; only read, nothing of it is kept.
            label: names the replica in errors, as in "replica 2 of episode 5".

        Raises:
            ValueError: it does not fit the states before it, or holds a NaN, or integers that have no mean (named).
        """
        self.commit(state, self.prepare(state, label=label))

    @torch.no_grad()
    def prepare(self, state: Mapping[str, Any], *, label: str = "") -> dict[str, bool]:
        """First half of `add`: refuse, or say of each name that has been the same so far whether it still is."""
        label = label or f"state {self.replicas}"
        self._refuse_other_form(state, label)
        _refuse_nan(state, label)
        compared = [
            name for name, value in state.items() if self._same.get(name) and self._kind(name, value) != "counter"
        ]
        flags = _are_equal([(self._sums[name], _widened(state[name])) for name in compared])
        equal = dict(zip(compared, flags, strict=True))
        for name, flag in equal.items():
            if not flag and self._kind(name, state[name]) == "fixed":
                _refuse_unequal(name, f"{label} and those before it")
        return equal

    @torch.no_grad()
    def commit(self, state: Mapping[str, Any], equal: Mapping[str, bool]) -> None:
        """Second half of `add`, which cannot fail: `equal` is what `prepare` said of the same state."""
        for name, value in state.items():
            if name in self._sums:
                self._add_known(name, value, self._kind(name, value), equal.get(name, False))
            else:
                self._sums[name] = copy_state(_widened(value))
                self._counts[name], self._same[name], self._dtypes[name] = 1, True, _dtype_name(value)
        self.replicas += 1

    @torch.no_grad()
    def mean(self) -> dict[str, Any]:
        """Mean over what was added, new tensors in the dtypes that came in; the sum stays as it is."""
        means: dict[str, Any] = {}
        for name, total in self._sums.items():
            value = total if self._same[name] else total / self._counts[name]
            if isinstance(value, torch.Tensor):
                value = value.to(getattr(torch, self._dtypes[name]), copy=self._same[name])
            means[name] = value
        return means

    def missing(self) -> list[str]:
        """Names that some of the added states lacked (only where `partial`)."""
        return [name for name, count in self._counts.items() if count < self.replicas]

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on adding, in tensors, numbers and strings."""
        sums = copy_state(self._sums)
        counts, same, dtypes = dict(self._counts), dict(self._same), dict(self._dtypes)
        return {"sums": sums, "counts": counts, "same": same, "dtypes": dtypes, "replicas": self.replicas}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        self._sums, self._counts = copy_state(state["sums"]), dict(state["counts"])
        self._same, self._dtypes, self.replicas = dict(state["same"]), dict(state["dtypes"]), state["replicas"]

    def _add_known(self, name: str, value: Any, kind: str, equal: bool) -> None:
        count = self._counts[name]
        self._counts[name] = count + 1
        total, value = self._sums[name], _widened(value)
        if isinstance(total, torch.Tensor) and total.device != value.device:
            total = total.to(value.device)  # the sum was loaded from a file
        if kind == "counter":
            total = torch.maximum(total, value) if isinstance(total, torch.Tensor) else max(total, value)
        elif kind == "mean" and not equal:
            if self._same[name]:
                once = copy_state(total)
                for _ in range(count - 1):
                    total += once
            total += value
            self._same[name] = False
        self._sums[name] = total

    def _kind(self, name: str, value: Any) -> str:
        return _kind(value, self._is_counter(name))

    def _refuse_other_form(self, state: Mapping[str, Any], label: str) -> None:
        wrong: list[str] = []
        for name, value in state.items():
            if name in self._sums:
                shape = getattr(self._sums[name], "shape", None)
                if _dtype_name(value) != self._dtypes[name] or getattr(value, "shape", None) != shape:
                    was = f"{self._dtypes[name]} of shape {tuple(shape or ())}"
                    wrong.append(f"{name!r} is {describe(value)} and was {was}")
            elif self.replicas and not self._partial:
                wrong.append(f"{name!r} is new")
        wrong += [f"{name!r} is gone" for name in self._sums if name not in state and not self._partial]
        if wrong:
            more = f"; and {len(wrong) - SHOWN_AT_MOST} more" if len(wrong) > SHOWN_AT_MOST else ""
            raise ValueError(
                f"The state of {label} does not fit those before it: {'; '.join(wrong[:SHOWN_AT_MOST])}{more}."
            )


def _kind(value: Any, is_counter: bool) -> str:
    """What becomes of a value: "mean", "counter" (the largest) or "fixed" (must be equal)."""
    if isinstance(value, torch.Tensor):
        if is_counter:
            return "counter"
        if value.is_floating_point() or value.is_complex():
            return "mean"
        return "counter" if value.numel() == 1 and value.dtype != torch.bool else "fixed"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "fixed"
    return "counter" if is_counter or isinstance(value, int) else "mean"


def _widened(value: Any) -> Any:
    """The value as it is summed: floats in float32 at least, everything else as it is."""
    if not isinstance(value, torch.Tensor) or value.dtype in (torch.float32, torch.float64):
        return value
    if value.is_floating_point():
        return value.to(torch.float32)
    return value.to(torch.complex64) if value.dtype == torch.complex32 else value


def _dtype_name(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else type(value).__name__


def _are_equal(pairs: Sequence[tuple[Any, Any]]) -> list[bool]:
    """Whether each pair holds equal values (a NaN equals nothing); one wait for the device in all."""
    flags: list[Any] = []
    for one, other in pairs:
        if not isinstance(one, torch.Tensor):
            flags.append(one == other)
        elif other.device.type == "cpu":
            flags.append(torch.equal(one.to("cpu"), other))
        else:
            flags.append((one.to(other.device) == other).all())
    return _read_flags(flags)


def _refuse_nan(state: Mapping[str, Any], label: str) -> None:
    """Raise where a float of the state is NaN; infinities pass (attention masks hold them)."""
    floats = {name: value for name, value in state.items() if _kind(value, False) == "mean"}
    flags = _read_flags([_has_nan(value) for value in floats.values()])
    bad = [name for name, flag in zip(floats, flags, strict=True) if flag]
    if bad:
        more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise ValueError(
            f"{bad[0]!r}{more} of {label} holds NaN, and an average would spread it. Look for a diverged loss "
            "(lower the learning rate, clip gradients), or average without this replica."
        )


def _has_nan(value: Any) -> Any:
    """Flag of one tensor, left on its device (python's bool on the CPU); a maximum carries a NaN along."""
    if not isinstance(value, torch.Tensor):
        return value != value
    if not value.numel():
        return False
    if value.is_complex() or value.device.type != "cpu" or value.dtype not in (torch.float32, torch.float64):
        flag = torch.isnan(value if value.is_complex() else _widened(value)).any()
        return flag if value.device.type != "cpu" else bool(flag)
    return math.isnan(value.amax().item())


def _read_flags(flags: list[Any]) -> list[bool]:
    waiting = [index for index, flag in enumerate(flags) if isinstance(flag, torch.Tensor)]
    if waiting:
        device = flags[waiting[0]].device
        for index, flag in zip(
            waiting, torch.stack([flags[index].to(device) for index in waiting]).tolist(), strict=True
        ):
            flags[index] = flag
    return [bool(flag) for flag in flags]


def _refuse_unequal(name: str, where: str) -> None:
    raise ValueError(
        f"{name!r} differs between {where}, and it has no mean: only floats are averaged, and of whole numbers only "
        "single counters have a rule (the largest). Make it equal in all replicas, or keep it out of the averaged state."
    )


def _identity(value: Any) -> tuple[object, ...]:
    """What two names must share in every state to be one tensor: storage and view. A plain value is only its own."""
    if isinstance(value, torch.Tensor) and value.numel():
        return (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
    return (object(),)


def _goes_in_blocks(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout != torch.strided:
        return False
    return value.is_floating_point() and value.is_contiguous() and value.numel() > 0 and value.element_size() > 1


@torch.no_grad()
def _mean_in_blocks(name: str, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of one name's M contiguous CPU tensors, each read once, NaN looked for while a block is in cache."""
    first = values[0]
    if len(values) > 1 and all(torch.equal(first, value) for value in values[1:]):  # a NaN equals nothing
        return first.detach().clone()
    result = torch.empty_like(first)
    flats, out = [value.detach().view(-1) for value in values], result.view(-1)
    kind = torch.float64 if first.dtype == torch.float64 else torch.float32
    length = BLOCK_BYTES // kind.itemsize
    for start in range(0, out.numel(), length):
        here = out[start : start + length]
        blocks = [flat[start : start + length] for flat in flats]
        total = here if here.dtype == kind else torch.empty(here.shape, dtype=kind)
        if len(blocks) == 1:
            total.copy_(blocks[0])
        else:
            torch.add(blocks[0].to(kind), blocks[1], out=total)
        for block in blocks[2:]:
            total += block
        total /= len(values)
        if torch.isnan(total.amax()):
            for index, value in enumerate(values):
                _refuse_nan({name: value}, f"state {index}")
            _refuse_nan({name: total}, "the mean (infinities of both signs)")
        if total is not here:
            here.copy_(total)
    return result
