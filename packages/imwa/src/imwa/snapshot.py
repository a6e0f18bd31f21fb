"""A replica's start: all that is rewound before each replica trains. Taking copies, loading restores in place.

Holds     the model (parameters, buffers, saved or not, extra state of its modules), the optimizer's groups and state,
          carried objects, objects that are averaged along (an EMA), and of every replica its random stream, its global
          generators and, under `local`, its optimizer state.
Source    IMWA (arXiv 2404.16331): one start for all replicas; what belongs to it is a reading of ours.
"""

from collections.abc import Mapping
from typing import Any

import torch

from imwa.averaging import KnownTensors, module_tensors, write_tensors
from imwa.batch_norm import add_spread, squared_drifts
from imwa.compatibility import require_same_form
from imwa.optimizer_state import KnownState, load_groups, take_groups, write_flat_state
from imwa.trees import copy_state, flatten, rebuild

MODEL, OPTIMIZER, GROUPS, NORMS = "model", "optimizer", "param_groups", "batch norm"


class Objects:
    """The live objects of a run as one: copied, brought back in place, read for the average, given the average.

    Args:
        model: the module that trains.
        optimizer: over its parameters.
        carry: objects that are rewound and go on from replica 0's end.
        average: objects that are rewound and averaged.
        pooled: the model's BatchNorm variances become those of the mixture.

    Raises:
        ValueError: an object without `state_dict` and `load_state_dict`, or given twice; named.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        carry: Mapping[str, Any],
        average: Mapping[str, Any],
        pooled: bool = False,
    ) -> None:
        self.model, self.optimizer, self._pooled = model, optimizer, pooled
        self.carry, self.average = dict(carry), dict(average)
        self._tensors, self._state = KnownTensors(model), KnownState(optimizer)
        self._live: dict[str, dict[str, Any]] = {}  # as `parts` found them, for the `write` that follows
        seen = {id(model): "the model", id(optimizer): "the optimizer"}
        for kind, objects in (("carry", self.carry), ("average", self.average)):
            for name, owner in objects.items():
                place = f"{kind}[{name!r}]"
                if not hasattr(owner, "state_dict") or not hasattr(owner, "load_state_dict"):
                    raise ValueError(
                        f"{place} is a {type(owner).__name__} without state_dict and load_state_dict. "
                        "Wrap it in an object that has both."
                    )
                if id(owner) in seen:
                    raise ValueError(f"{place} is also {seen[id(owner)]}. Give every object once.")
                seen[id(owner)] = place

    def check(self) -> None:
        """Refuse what could not be averaged: parameters without values, optimizer parameters outside every module.

        Raises:
            ValueError: the parameter, or its group and shape, is named.
        """
        modules = [self.model, *(owner for owner in self.average.values() if isinstance(owner, torch.nn.Module))]
        for name, parameter in self.model.named_parameters():
            if torch.nn.parameter.is_lazy(parameter):
                raise ValueError(
                    f"Parameter {name!r} has no values yet. Run one batch through the model before the loop."
                )
        known = {id(parameter) for module in modules for parameter in module.parameters()}
        for number, group in enumerate(self.optimizer.param_groups):
            for parameter in group["params"]:
                if id(parameter) not in known:
                    raise ValueError(
                        f"The optimizer's group {number} holds a parameter of shape {tuple(parameter.shape)} that is not "
                        "in the model, so it would not be averaged. Give its module in average={...}, or put both into "
                        "one module."
                    )

    def take(self) -> dict[str, Any]:
        """Copy of all but the optimizer's per-parameter state."""
        return {
            MODEL: take_object(self.model),
            GROUPS: take_groups(self.optimizer),
            "carry": {name: take_object(owner) for name, owner in self.carry.items()},
            "average": {name: take_object(owner) for name, owner in self.average.items()},
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Bring back a `take()`, in place; the saved state is only read."""
        load_object(self.model, saved[MODEL], what=MODEL)
        load_groups(self.optimizer, saved[GROUPS])
        for kind, objects in (("carry", self.carry), ("average", self.average)):
            for name, owner in objects.items():
                load_object(owner, saved[kind][name], what=f"{kind}[{name!r}]")

    def tensors(self) -> dict[str, torch.Tensor]:
        """Live tensors of the model and of averaged modules, by name."""
        found = module_tensors(self.model)
        for name, owner in self.average.items():
            if isinstance(owner, torch.nn.Module):
                found.update({f"average/{name}/{key}": value for key, value in module_tensors(owner).items()})
        return found

    def parts(self, start: Mapping[str, Any], *, with_optimizer: bool) -> dict[str, dict[str, Any]]:
        """Live leaves of all that is averaged, by part; `start` is the episode's."""
        parts: dict[str, dict[str, Any]] = {MODEL: self._tensors()}
        if self._pooled:
            parts[NORMS] = squared_drifts(self.model, parts[MODEL], start[MODEL]["tensors"])
        parts.update({f"average/{name}": flat_object(owner) for name, owner in self.average.items()})
        if with_optimizer:
            parts[OPTIMIZER] = self._state()
        self._live = parts
        return parts

    def carried(self) -> dict[str, dict[str, Any]]:
        """Copies of what goes on from replica 0's end: carried objects, and the optimizer's param_groups."""
        taken = {f"carry/{name}": take_object(owner) for name, owner in self.carry.items()}
        return {GROUPS: {"state": take_groups(self.optimizer)}, **taken}

    def write(
        self, parts: Mapping[str, dict[str, Any]], carried: Mapping[str, dict[str, Any]], *, start: Mapping[str, Any]
    ) -> None:
        """Give every object its mean, or replica 0's end where it is carried; `start` is the episode's.

        What `parts` found is written, so nothing of it may have been replaced since.
        """
        live, self._live = self._live, {}
        if self._pooled:
            add_spread(self.model, parts[MODEL], parts[NORMS], start=start[MODEL]["tensors"])
        write_mean(self.model, parts[MODEL], live=live.get(MODEL))
        load_groups(self.optimizer, carried[GROUPS]["state"])
        for name, owner in self.average.items():
            write_mean(owner, parts[f"average/{name}"])
        for name, owner in self.carry.items():
            load_object(owner, carried[f"carry/{name}"], what=f"carry[{name!r}]")
        if OPTIMIZER in parts:
            write_flat_state(self.optimizer, parts[OPTIMIZER], live=live.get(OPTIMIZER))


def take_object(owner: Any) -> dict[str, Any]:
    """Copy of an object's state: a module's tensors and extra state, any other object's `state_dict()`."""
    if isinstance(owner, torch.nn.Module):
        return {"tensors": copy_state(module_tensors(owner)), "extra": copy_state(_extra_state(owner))}
    return {"state": copy_state(owner.state_dict())}


def load_object(owner: Any, saved: dict[str, Any], *, what: str = "object") -> None:
    """Make an object's state this one; a module's tensors are written in place and keep their identity.

    Raises:
        ValueError: the module has other names, shapes or dtypes than the saved state; every difference is named.
    """
    if not isinstance(owner, torch.nn.Module):
        owner.load_state_dict(copy_state(saved["state"]))
        return
    live = module_tensors(owner)
    require_same_form([live, saved["tensors"]], what=f"{what} state")
    write_tensors(live, saved["tensors"])
    modules = dict(owner.named_modules())
    for name, extra in saved["extra"].items():
        modules[name].set_extra_state(copy_state(extra))


def flat_object(owner: Any) -> dict[str, Any]:
    """Live leaves of an object by name, as they are averaged."""
    return module_tensors(owner) if isinstance(owner, torch.nn.Module) else flatten(owner.state_dict())


def write_mean(owner: Any, mean: dict[str, Any], *, live: dict[str, Any] | None = None) -> None:
    """Give an object the averaged leaves, by the names of `flat_object`, which may be given as `live`."""
    if isinstance(owner, torch.nn.Module):
        write_tensors(live or module_tensors(owner), mean)
    else:
        owner.load_state_dict(copy_state(rebuild(owner.state_dict(), mean)))


def merge_carried(first: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """State of a carried object after an episode: replica 0's; of a GradScaler the smallest scale and growth tracker."""
    state, other = first.get("state"), later.get("state")
    if not isinstance(state, dict) or not isinstance(other, dict) or not {"scale", "_growth_tracker"} <= state.keys():
        return first
    smallest = {name: min(state[name], other[name]) for name in ("scale", "_growth_tracker")}
    return {"state": {**state, **smallest}}


def place_like(owner: Any, saved: dict[str, Any]) -> dict[str, Any]:
    """The same state with a module's tensors on the devices of the live ones (it may come from a file)."""
    if not isinstance(owner, torch.nn.Module):
        return saved
    live = module_tensors(owner)
    moved = {name: value.to(live[name].device) if name in live else value for name, value in saved["tensors"].items()}
    return {**saved, "tensors": moved}


def _extra_state(module: torch.nn.Module) -> dict[str, Any]:
    plain = torch.nn.Module.get_extra_state
    return {
        name: part.get_extra_state() for name, part in module.named_modules() if type(part).get_extra_state is not plain
    }
