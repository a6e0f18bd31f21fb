"""What becomes of the optimizer's state at an episode's end: averaged, kept by each replica, or dropped.

average   float state averaged by the rule of `averaging.py`, `step` counters the largest, param_groups of replica 0.
          Momentum then is the momentum of the averaged gradient; a parameter with state in some replicas only takes
          the mean over those.
local     each replica keeps its own across episodes; memory of M optimizer states (2 M within an episode, because the
          border can be gone back to).
reset     per-parameter state is deleted at every start but the first, param_groups untouched.
Source    open in IMWA (arXiv 2404.16331); all three are readings of ours. Deleted is not zeroed (dampening), groups
          are never rewound by a fresh state (they hold the scheduled learning rate), and `load_state_dict` is not
          used (it casts a float32 momentum of a bf16 parameter to bf16): state is written in place.
"""

from operator import is_
from typing import Any, NamedTuple

import torch

from imwa.averaging import copy_each, write_tensors
from imwa.trees import copy_state, flatten, map_leaves

POLICIES = ("average", "local", "reset")


class _Pairs(NamedTuple):
    """Live tensors and the values that they are to hold."""

    targets: list[torch.Tensor]
    values: list[torch.Tensor]


def take_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Copy of every param_group without its parameters: learning rates, betas and the like."""
    return [
        copy_state({name: value for name, value in group.items() if name != "params"})
        for group in optimizer.param_groups
    ]


def load_groups(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Write param_groups back; a tensor (a learning rate of a captured graph) keeps its identity.

    Raises:
        ValueError: the number of groups differs (one was added within an episode).
    """
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(
            f"The optimizer has {len(optimizer.param_groups)} param_groups, and the episode started with {len(groups)}. "
            "Replicas share one start, so add every group before the loop (with a learning rate of 0 until it is used)."
        )
    pairs = _Pairs([], [])
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        _write_mapping(group, saved, pairs=pairs, keep=("params",))
    copy_each(*pairs)


def take_state(optimizer: torch.optim.Optimizer, *, copied: bool = True) -> dict[str, Any]:
    """State of every parameter that has one, by the parameter's number over all groups (as a string), in order.

    With `copied=False` the tensors are the live ones.
    """
    found = {key: dict(optimizer.state[owner]) for key, owner, _ in _owners(optimizer) if owner in optimizer.state}
    return copy_state(found) if copied else found


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Make the optimizer's per-parameter state this one: written in place, missing entries created, others deleted."""
    pairs = _Pairs([], [])
    for key, owner, group in _owners(optimizer, more=state):
        saved = state.get(key)
        if saved is None:
            optimizer.state.pop(owner, None)
            continue
        _write_mapping(optimizer.state[owner], _placed(saved, owner, group=group), pairs=pairs)
    copy_each(*pairs)


def flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Live leaves of the per-parameter state, "3/exp_avg" for parameter 3; what has not begun (None) is left out."""
    leaves: dict[str, Any] = {}
    for key, owner, _ in _owners(optimizer):
        for name, leaf in optimizer.state.get(owner, {}).items():
            if isinstance(leaf, torch.Tensor):
                leaves[f"{key}/{name}"] = leaf
            else:
                inner = flatten({name: leaf}).items()
                leaves.update({f"{key}/{path}": value for path, value in inner if value is not None})
    return leaves


class KnownState:
    """`flat_state` of one optimizer, looked up and not searched for while it holds the tensors that it held before.

    Args:
        optimizer: may change in any way between two calls.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._found: dict[str, Any] = {}
        self._owners: list[Any] = []
        self._holders: list[dict[str, Any]] = []
        self._places: list[tuple[dict[str, Any], str, torch.Tensor]] | None = None  # None: not all are tensors

    def __call__(self) -> dict[str, Any]:
        """What `flat_state(optimizer)` gives now."""
        owners = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        holders = [*self._optimizer.state.values()]
        if (
            self._places is None
            or not _are_the_same(owners, self._owners)
            or not _are_the_same(holders, self._holders)
            or sum(map(len, holders)) != len(self._places)
            or any(own.get(name) is not value for own, name, value in self._places)
        ):
            self._found = flat_state(self._optimizer)
            self._owners, self._holders = owners, holders
            places = [(own, name, value) for own in holders for name, value in own.items()]
            self._places = places if all(isinstance(value, torch.Tensor) for _, _, value in places) else None
        return dict(self._found)


def write_flat_state(
    optimizer: torch.optim.Optimizer, flat: dict[str, Any], *, live: dict[str, Any] | None = None
) -> None:
    """Make the leaves of `flat_state`, which may be given as `live`, these; in place where tensors have the same form.

    Raises:
        ValueError: as `state_from_flat`.
    """
    live = flat_state(optimizer) if live is None else live
    if live.keys() == flat.keys():
        others = {name: value for name, value in live.items() if value is not flat[name]}  # the rest holds its mean
        if all(_same_form(value, flat[name]) for name, value in others.items()):
            write_tensors(others, flat)
            return
    state = state_from_flat(flat)
    for key, entries in take_state(optimizer, copied=False).items():
        absent = {name: None for name, leaf in entries.items() if leaf is None}
        state[key] = {**absent, **state.get(key, {})}
    load_state(optimizer, state)


def _are_the_same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _same_form(live: Any, value: Any) -> bool:
    both = isinstance(live, torch.Tensor) and isinstance(value, torch.Tensor)
    return both and live.dtype is value.dtype and live.shape == value.shape


def state_from_flat(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested form of `flat_state` names, for `load_state`.

    Raises:
        ValueError: the optimizer nests its state deeper than parameter and name (LBFGS does); named.
    """
    nested: dict[str, Any] = {}
    for path, leaf in flat.items():
        key, _, name = path.partition("/")
        if "/" in name:
            raise ValueError(
                f"The optimizer keeps nested state ({path!r}), which has no mean. Choose optimizer_state='local' or 'reset'."
            )
        nested.setdefault(key, {})[name] = leaf
    return nested


def is_counter(name: str) -> bool:
    """Whether a leaf is a step counter, which is a float tensor in Adam and its kin."""
    return name.rpartition("/")[2] == "step"


def _owners(
    optimizer: torch.optim.Optimizer, *, more: dict[str, Any] | None = None
) -> list[tuple[str, Any, dict[str, Any]]]:
    """(key, owner, group): parameters by number; state that belongs to no parameter by its own name."""
    parameters = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    owners = [(str(number), parameter, group) for number, (parameter, group) in enumerate(parameters)]
    named: dict[str, Any] = {str(owner): owner for owner in optimizer.state if not isinstance(owner, torch.Tensor)}
    named.update({key: key for key in more or {} if not key.isdigit() and key not in named})
    return owners + [(key, owner, {}) for key, owner in named.items()]


def _placed(saved: dict[str, Any], owner: Any, *, group: dict[str, Any]) -> dict[str, Any]:
    """Where torch keeps state: on the parameter's device, but Adam's `step` on the CPU unless fused or capturable."""
    if not isinstance(owner, torch.Tensor):
        return saved
    device, step_too = owner.device, bool(group.get("capturable") or group.get("fused"))

    def place(path: str, leaf: Any) -> Any:
        elsewhere = isinstance(leaf, torch.Tensor) and leaf.device != device
        return leaf.to(device) if elsewhere and (step_too or not is_counter(path)) else leaf

    return map_leaves(saved, place)


def _write_mapping(live: dict[Any, Any], saved: dict[Any, Any], *, pairs: _Pairs, keep: tuple[str, ...] = ()) -> None:
    """Make `live` hold what `saved` holds; tensors of the same form are put into `pairs`, to be copied in place."""
    for name in [name for name in live if name not in saved and name not in keep]:
        del live[name]
    for name, value in saved.items():
        current = live.get(name)
        if not isinstance(current, torch.Tensor) or not isinstance(value, torch.Tensor):
            live[name] = copy_state(value)
        elif current.shape == value.shape and current.dtype == value.dtype:
            pairs.targets.append(current)
            pairs.values.append(value)
        else:
            live[name] = copy_state(value)
