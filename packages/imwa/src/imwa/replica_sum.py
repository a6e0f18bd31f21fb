"""The running sum of replicas' states, and the rules by which each kind of value is joined.

Equation  mean = (x_0 + x_1 + .. + x_{M-1}) / M, replica 0 copied, the others added in index order, divided once.
Floats    summed in float32, float64 for float64, cast back once. A tensor that is the same in all M keeps its bits
          (frozen weights, masks of -inf: (x + x + x) / 3 is not always x).
Integers  a tensor of one value is a counter: equal or the largest; one of several values must be equal. Dtype kept.
Others    booleans, strings, None: must be equal. NaN is refused with the tensor's name; infinities pass.
Source    IMWA (arXiv 2404.16331): plain mean over all weights; precision, order and integer rules are readings of ours.
Letters   M replicas.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from imwa.compatibility import SHOWN_AT_MOST, describe
from imwa.trees import copy_state


class HoldsNan(ValueError):
    """A replica's state holds a NaN; the sentence names tensor and replica."""


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
        refuse_nan(state, label)
        compared = [
            name for name, value in state.items() if self._same.get(name) and self._kind(name, value) != "counter"
        ]
        flags = _are_equal([(self._sums[name], widened(state[name])) for name in compared])
        equal = dict(zip(compared, flags, strict=True))
        for name, flag in equal.items():
            if not flag and self._kind(name, state[name]) == "fixed":
                refuse_unequal(name, f"{label} and those before it")
        return equal

    @torch.no_grad()
    def commit(self, state: Mapping[str, Any], equal: Mapping[str, bool]) -> None:
        """Second half of `add`, which cannot fail: `equal` is what `prepare` said of the same state."""
        totals: list[torch.Tensor] = []
        terms: list[torch.Tensor] = []
        for name, value in state.items():
            if name in self._sums:
                self._add_known(name, value, equal.get(name, False), totals=totals, terms=terms)
            else:
                self._sums[name] = copy_state(widened(value))
                self._counts[name], self._same[name], self._dtypes[name] = 1, True, _dtype_name(value)
        if totals:
            torch._foreach_add_(totals, terms)  # pyright: ignore[reportPrivateImportUsage] (torch's optimizers use it)
        self.replicas += 1

    @torch.no_grad()
    def mean(self) -> dict[str, Any]:
        """Mean over what was added, new tensors in the dtypes that came in; the sum stays as it is."""
        means: dict[str, Any] = {}
        for name, total in self._sums.items():
            value = total if self._same[name] else divided(total, self._counts[name])
            if isinstance(value, torch.Tensor) and (self._same[name] or _dtype_name(value) != self._dtypes[name]):
                value = value.to(getattr(torch, self._dtypes[name]), copy=True)
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

    def _add_known(
        self, name: str, value: Any, equal: bool, *, totals: list[torch.Tensor], terms: list[torch.Tensor]
    ) -> None:
        """Take one more value of a known name; tensors to be added are put into `totals` and `terms`."""
        kind, count = self._kind(name, value), self._counts[name]
        self._counts[name] = count + 1
        total, value = self._sums[name], widened(value)
        if isinstance(total, torch.Tensor) and total.device != value.device:
            total = self._sums[name] = total.to(value.device)  # the sum was loaded from a file
        if kind == "counter":
            self._sums[name] = torch.maximum(total, value) if isinstance(total, torch.Tensor) else max(total, value)
        elif kind == "mean" and not equal:
            if self._same[name]:
                total = self._sums[name] = _repeated(total, count)
            self._same[name] = False
            if isinstance(total, torch.Tensor):
                totals.append(total)
                terms.append(value)
            else:
                self._sums[name] = total + value

    def _kind(self, name: str, value: Any) -> str:
        return kind_of(value, self._is_counter(name))

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


def kind_of(value: Any, is_counter: bool) -> str:
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


def widened(value: Any) -> Any:
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
            flags.append(torch.equal(one if one.device == other.device else one.to(other.device), other))
        else:
            flags.append((one.to(other.device) == other).all())
    return _read_flags(flags)


def divided(total: Any, count: int) -> Any:
    """The sum over M; on an accelerator by a tensor, because there a division by a number multiplies by 1 / M."""
    if isinstance(total, torch.Tensor) and total.device.type != "cpu":
        return total / torch.full((), count, dtype=total.dtype, device=total.device)
    return total / count


def _repeated(value: Any, count: int) -> Any:
    """((x + x) + x) .. of `count` equal values, which were counted and not yet added up."""
    total = copy_state(value)
    for _ in range(count - 1):
        total += value
    return total


def refuse_nan(state: Mapping[str, Any], label: str) -> None:
    """Raise where a float of the state is NaN; infinities pass (attention masks hold them). One wait for each device."""
    floats = {name: value for name, value in state.items() if kind_of(value, False) == "mean"}
    bad = [name for name, value in floats.items() if not isinstance(value, torch.Tensor) and value != value]
    places: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, value in floats.items():
        if isinstance(value, torch.Tensor) and value.numel():
            places.setdefault((value.device, value.dtype), []).append(name)
    for names in places.values():
        flags = _nan_flags([floats[name].detach() for name in names])
        bad += [name for name, flag in zip(names, flags, strict=True) if flag]
    if bad:
        more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise HoldsNan(
            f"{bad[0]!r}{more} of {label} holds NaN, and an average would spread it. Look for a diverged loss "
            "(lower the learning rate, clip gradients), or average without this replica."
        )


def _nan_flags(values: list[torch.Tensor]) -> list[bool]:
    """Whether each of several tensors of one device and dtype holds a NaN, which a maximum carries along."""
    if values[0].is_complex() or values[0].element_size() == 1:
        return torch.stack([torch.isnan(widened(value)).any() for value in values]).tolist()
    largest = torch._foreach_max(values)  # pyright: ignore[reportPrivateImportUsage] (few launches for all)
    return torch.isnan(torch.stack(list(largest))).tolist()


def _read_flags(flags: list[Any]) -> list[bool]:
    waiting = [index for index, flag in enumerate(flags) if isinstance(flag, torch.Tensor)]
    if waiting:
        device = flags[waiting[0]].device
        for index, flag in zip(
            waiting, torch.stack([flags[index].to(device) for index in waiting]).tolist(), strict=True
        ):
            flags[index] = flag
    return [bool(flag) for flag in flags]


def refuse_unequal(name: str, where: str) -> None:
    """Raise for values that have no mean and differ."""
    raise ValueError(
        f"{name!r} differs between {where}, and it has no mean: only floats are averaged, and of whole numbers only "
        "single counters have a rule (the largest). Make it equal in all replicas, or keep it out of the averaged state."
    )
