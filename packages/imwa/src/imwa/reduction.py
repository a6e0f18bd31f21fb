"""From M replicas' states to their mean: one protocol, whether replicas train in turn or in processes of their own.

The driver hands in each replica's end as parts by name, "model", "optimizer" and one for each averaged object, every
part a flat mapping from name to leaf, and the states of carried objects beside them.

InTurn    all replicas train in this process, one after the other; the sums are kept here: memory of one more state.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from imwa.optimizer_state import is_counter
from imwa.replica_sum import ReplicaSum
from imwa.snapshot import MODEL, OPTIMIZER, merge_carried


class Mean(NamedTuple):
    """What an episode leaves: averaged parts, carried states, and names that some replicas lacked, by part."""

    parts: dict[str, dict[str, Any]]
    carried: dict[str, dict[str, Any]]
    missing: dict[str, list[str]]


class Reduction(Protocol):
    """Takes the states of an episode's replicas, gives their mean."""

    def add(self, parts: Mapping[str, Mapping[str, Any]], carried: Mapping[str, dict[str, Any]], *, label: str) -> None:
        """Take one replica's end; nothing of it is kept by reference. Raises ValueError for a NaN, by name."""
        ...

    def mean(self) -> Mean:
        """Mean over all replicas of the episode."""
        ...

    def clear(self) -> None:
        """Make ready for the next episode."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The partial sums of an episode that is under way."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        ...


class InTurn:
    """Sums of replicas that train one after the other in this process, in index order."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Make ready for the next episode."""
        self._sums: dict[str, ReplicaSum] = {}
        self._carried: dict[str, dict[str, Any]] = {}

    def add(self, parts: Mapping[str, Mapping[str, Any]], carried: Mapping[str, dict[str, Any]], *, label: str) -> None:
        """Add one replica's parts; carried states of replica 0 are kept, a GradScaler's smallest."""
        sums = {name: self._sums.get(name) or _new_sum(name) for name in parts}
        # Everything is refused before anything is added.
        equal = {name: sums[name].prepare(part, label=_label(label, name)) for name, part in parts.items()}
        for name, part in parts.items():
            sums[name].commit(part, equal[name])
        self._sums = sums
        for name, state in carried.items():
            self._carried[name] = merge_carried(self._carried[name], state) if name in self._carried else state

    def mean(self) -> Mean:
        """Mean of what was added since the last `clear()`."""
        missing = {name: total.missing() for name, total in self._sums.items()}
        return Mean({name: total.mean() for name, total in self._sums.items()}, dict(self._carried), missing)

    def state_dict(self) -> dict[str, Any]:
        """The partial sums and carried states, in plain values."""
        return {
            "sums": {name: total.state_dict() for name, total in self._sums.items()},
            "carried": dict(self._carried),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        self.clear()
        for name, total in state["sums"].items():
            self._sums[name] = _new_sum(name)
            self._sums[name].load_state_dict(total)
        self._carried = dict(state["carried"])


def _new_sum(name: str) -> ReplicaSum:
    """Sum of one part; the optimizer's float `step` is a counter, and its names may lack in some replicas."""
    return ReplicaSum(is_counter=is_counter, partial=True) if name == OPTIMIZER else ReplicaSum()


def _label(replica: str, part: str) -> str:
    return replica if part == MODEL else f"{replica} ({part})"
