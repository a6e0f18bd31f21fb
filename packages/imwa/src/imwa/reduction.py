"""From M replicas' states to their mean: one protocol, whether replicas train in turn or in processes of their own.

The driver hands in each replica's end as parts by name, "model", "optimizer" and one for each averaged object, every
part a flat mapping from name to leaf, and the states of carried objects beside them.

InTurn            all replicas train in this process, one after the other; the sums are kept here: memory of one more state.
AcrossProcesses   in `processes.py`: one or several replicas a process.
NaN               a replica that holds one stops the run, or is left out of that episode's mean and counted.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from imwa.optimizer_state import is_counter
from imwa.replica_sum import HoldsNan, ReplicaSum
from imwa.snapshot import MODEL, OPTIMIZER, Objects, merge_carried

ON_NAN = ("stop", "leave out")
Parts = Mapping[str, Mapping[str, Any]]
Carried = Mapping[str, dict[str, Any]]


class Mean(NamedTuple):
    """What an episode leaves.

    Attributes:
        parts: averaged leaves by part and name.
        carried: states of carried objects.
        missing: names that some replicas lacked, by part.
        left_out: replicas that held a NaN and are not in the mean, each with the sentence that says where.
    """

    parts: dict[str, dict[str, Any]]
    carried: dict[str, dict[str, Any]]
    missing: dict[str, list[str]]
    left_out: dict[int, str]


class Reduction(Protocol):
    """Takes the states of an episode's replicas, gives their mean."""

    own: range  # replicas that train in this process

    def begin(self, objects: Objects, *, settings: Mapping[str, Any], episode: int | None) -> None:
        """The loop begins: at `episode`, or (None) from the caller's state, which becomes the same everywhere."""
        ...

    def add(self, parts: Parts, carried: Carried, *, replica: int, start: Parts, label: str) -> None:
        """Take one replica's end. Of the last own replica, `parts` may be read until `mean()`.

        Args:
            parts: live leaves.
            carried: copies that may be kept.
            replica: its index.
            start: what leaves of `parts` were at the episode's start, where known.
            label: names the replica in errors.

        Raises:
            ValueError: a NaN (where it stops the run), or a state that does not fit those before it; named.
        """
        ...

    def mean(self, *, label: str) -> Mean:
        """Mean over all replicas of the episode; some leaves of the last `parts` may hold theirs already, and are given back.

        Raises:
            ValueError: in several processes, what `add` raises in one, in every process; no replica without a NaN.
        """
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
    """Sums of replicas that train one after the other in this process, in index order.

    Args:
        replicas: M.
        on_nan: "stop", or "leave out".
    """

    def __init__(self, *, replicas: int, on_nan: str = "stop") -> None:
        self.own = range(replicas)
        self._on_nan = on_nan
        self.clear()

    def begin(self, objects: Objects, *, settings: Mapping[str, Any], episode: int | None) -> None:
        """Nothing to agree on with anybody."""

    def clear(self) -> None:
        """Make ready for the next episode."""
        self._sums: dict[str, ReplicaSum] = {}
        self._carried: dict[str, dict[str, Any]] = {}
        self._left_out: dict[int, str] = {}

    def add(self, parts: Parts, carried: Carried, *, replica: int, start: Parts, label: str) -> None:
        """Add one replica's parts; carried states of the first are kept, a GradScaler's smallest."""
        sums = {name: self._sums.get(name) or _new_sum(name) for name in parts}
        try:
            # Everything is refused before anything is added.
            equal = {name: sums[name].prepare(part, label=part_label(label, name)) for name, part in parts.items()}
        except HoldsNan as error:
            if self._on_nan == "stop":
                raise
            self._left_out[replica] = str(error)
            return
        for name, part in parts.items():
            sums[name].commit(part, equal[name])
        self._sums = sums
        merge_all(self._carried, carried)

    def mean(self, *, label: str) -> Mean:
        """Mean of what was added since the last `clear()`."""
        if not self._sums:
            refuse_none_left(self._left_out, label)
        missing = {name: total.missing() for name, total in self._sums.items()}
        means = {name: total.mean() for name, total in self._sums.items()}
        return Mean(means, dict(self._carried), missing, dict(self._left_out))

    def state_dict(self) -> dict[str, Any]:
        """The partial sums and carried states, in plain values."""
        return {
            "sums": {name: total.state_dict() for name, total in self._sums.items()},
            "carried": dict(self._carried),
            "left_out": dict(self._left_out),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        self.clear()
        for name, total in state["sums"].items():
            self._sums[name] = _new_sum(name)
            self._sums[name].load_state_dict(total)
        self._carried, self._left_out = dict(state["carried"]), dict(state["left_out"])


def merge_all(first: dict[str, dict[str, Any]], later: Carried) -> None:
    """Join a later replica's carried states to those before, in place."""
    for name, state in later.items():
        first[name] = merge_carried(first[name], state) if name in first else state


def refuse_none_left(left_out: Mapping[int, str], label: str) -> None:
    """Raise for an episode of which no replica is left."""
    first = next(iter(left_out.values()), "")
    raise HoldsNan(f"None of the {len(left_out)} replicas of {label} can be averaged. The first: {first}")


def part_label(replica: str, part: str) -> str:
    """A replica's name in errors, with the part where it is not the model."""
    return replica if part == MODEL else f"{replica} ({part})"


def _new_sum(name: str) -> ReplicaSum:
    """Sum of one part; the optimizer's float `step` is a counter, and its names may lack in some replicas."""
    return ReplicaSum(is_counter=is_counter, partial=True) if name == OPTIMIZER else ReplicaSum()
