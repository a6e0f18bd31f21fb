"""The mean of M states that belong together, exact for everything a model carries.

Equation  mean = (x_0 + x_1 + .. + x_{M-1}) / M, replica 0 copied, the others added in index order, divided once:
          M = 1 keeps every bit (-0.0 too), and the order of the sum is the same in every run.
Rules     for floats, counters, other values and NaN: `replica_sum.py`. Names that share a tensor share one in the mean.
Source    IMWA (arXiv 2404.16331): plain mean over all weights; precision and order are readings of ours.
Letters   M replicas.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from imwa.block_mean import mean_in_blocks
from imwa.compatibility import require_same_form
from imwa.replica_sum import ReplicaSum


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
    labels = [f"state {index}" for index in range(len(states))]
    means.update({name: mean_in_blocks(name, [state[name] for state in states], labels=labels) for name in blocks})
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
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    modules = _modules(module)
    for own in ([(at, part._parameters) for at, part in modules], [(at, part._buffers) for at, part in modules]):
        for at, values in own:
            for name, value in values.items():
                if value is not None and (known := id(value)) not in seen:
                    seen.add(known)
                    found[at + name] = value
    return found


class KnownTensors:
    """`module_tensors` of one module, looked up and not searched for while it holds what it held before.

    Args:
        module: may change in any way between two calls.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._found: dict[str, torch.Tensor] = {}
        self._places: list[tuple[dict[str, Any], str, Any]] = []  # where each parameter, buffer and module was seen
        self._holders: list[dict[str, Any]] = []
        self._count = -1

    def __call__(self) -> dict[str, torch.Tensor]:
        """What `module_tensors(module)` gives now."""
        known = sum(map(len, self._holders)) == self._count
        if not known or any(own.get(name, own) is not value for own, name, value in self._places):
            self._found = module_tensors(self._module)
            parts = [part for _, part in _modules(self._module)]
            self._holders = [own for part in parts for own in (part._parameters, part._buffers, part._modules)]
            self._places = [(own, name, value) for own in self._holders for name, value in own.items()]
            self._count = len(self._places)
        return dict(self._found)


@torch.no_grad()
def write_tensors(live: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into live tensors of the same names, in place, so that every reference to them stays valid."""
    pairs = [(target, value) for name, target in live.items() if (value := values[name]) is not target]
    copy_each([target for target, _ in pairs], [value for _, value in pairs])


@torch.no_grad()
def copy_each(targets: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Copy each value into its target in place: few launches on a device, few python steps elsewhere."""
    if targets:
        torch._foreach_copy_(targets, values)  # pyright: ignore[reportPrivateImportUsage] (torch's optimizers use it)


def _modules(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """As `named_modules`, a dot behind each name, at a fraction of its cost."""
    found: list[tuple[str, torch.nn.Module]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, torch.nn.Module]] = [("", module)]
    while waiting:
        entry = waiting.pop()
        at, part = entry
        if (known := id(part)) not in seen:
            seen.add(known)
            found.append(entry)
            if part._modules:  # most have none
                children = [(f"{at}{name}.", child) for name, child in part._modules.items() if child is not None]
                waiting.extend(reversed(children))
    return found


def _identity(value: Any) -> tuple[object, ...]:
    """What two names must share in every state to be one tensor: storage and view. A plain value is only its own."""
    if isinstance(value, torch.Tensor) and value.numel():
        return (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
    return (object(),)


def _goes_in_blocks(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout != torch.strided:
        return False
    return value.is_floating_point() and value.is_contiguous() and value.numel() > 0 and value.element_size() > 1
