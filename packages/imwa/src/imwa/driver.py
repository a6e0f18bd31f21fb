"""IMWA: every episode, M replicas train from one start and their mean is the next start. The order of events.

Equation  theta^(e+1) = (1/M) sum_m theta_m^(e), theta_m^(e) trained from theta^(e) for T/E steps with its own data order.
Source    IMWA (arXiv 2404.16331). What happens to everything that is not a weight is open there and ours here: see
          `snapshot.py` (what is rewound), `averaging.py` (the mean), `optimizer_state.py` (the three policies).
Order     1. the loop begins: the caller's state is the first start.
          2. a replica begins: the start is loaded, its own random stream and global generators are set.
          3. its loop consumes `replica.steps`; a number handed out counts as done.
          4. it ends: its state is added to the sum, its generators (under `local` its optimizer state) are put away.
          5. the episode ends: mean into the model, next start taken, then `after_average(episode, model)`.
Letters   T steps, E episodes, M replicas.
"""

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from imwa.batches import replica_batches
from imwa.optimizer_state import POLICIES, load_state, take_state
from imwa.plan import Entry, Plan
from imwa.reduction import InTurn, Reduction
from imwa.snapshot import MODEL, OPTIMIZER, Objects, place_like
from scarce_common_utils.random_state import capture_random_state, restore_random_state, seed_random_state
from scarce_common_utils.streams import stream, stream_seed

_log = logging.getLogger(__name__)


class Steps:
    """The global steps of one replica in one episode, handed out once each; a number handed out counts as done."""

    def __init__(self, start: int, stop: int, *, following: int) -> None:
        self.start = start
        self.stop = stop
        self.following = following  # the number that is handed out next

    def __iter__(self) -> "Steps":
        return self

    def __next__(self) -> int:
        if self.following >= self.stop:
            raise StopIteration
        self.following += 1
        return self.following - 1

    def __len__(self) -> int:
        """Number of steps still to be handed out."""
        return self.stop - self.following


class Replica:
    """One of the M models of an episode, while it trains.

    Attributes:
        index: its number m, from 0.
        episode: the episode's number e, from 0.
        steps: iterator over its global steps in this episode; consume it to the end.
        generator: its own random stream (CPU), `stream(seed, "replica", index)`, carried from episode to episode.
    """

    def __init__(self, entry: Entry, *, following: int, generator: torch.Generator, seed: int) -> None:
        self.index = entry.replica
        self.episode = entry.episode
        self.steps = Steps(entry.start, entry.stop, following=following)
        self.generator = generator
        self._seed = seed

    def batches(self, loader: "torch.utils.data.DataLoader[Any]") -> Iterator[tuple[int, Any]]:
        """Pairs (step, batch) of the replica's remaining steps, from a loader's own data set and settings.

        Every epoch is a new order from (seed, replica, epoch), and a step's batch is a pure function of the step: it
        goes on in the middle of an epoch in the next episode and after a resume, and reads no batch before. Random
        draws while a batch is read (augmentation) come from (seed, replica, step), whatever the number of workers. Workers
        start anew with every call, so in each episode.

        Args:
            loader: a map-style DataLoader. Its data set, batch_size, drop_last, collate_fn, workers and pinning are
                used; its sampler's order is replaced, a sampler that has a `generator` (weighted, subset) drawing
                from the replica's.

        Raises:
            ValueError: the loader has an iterable data set, a batch sampler or sampler of the caller's own, no batch
                size, or no batch in an epoch; named.
        """
        return replica_batches(loader, steps=self.steps, seed=self._seed, replica=self.index)


class IMWA:
    """The IMWA loop around a training loop of one's own.

    Args:
        model: the module that trains; changed in place, its parameters keep their identity.
        optimizer: a torch optimizer over its parameters.
        replicas: M, models trained from each episode's start. The cost is M x `steps` optimizer steps.
        episodes: E, number of averages. 1 is vanilla model weight averaging.
        steps: T, optimizer steps of the whole schedule. An E that does not divide T gives lengths that differ by 1.
        seed: of the replicas' random streams.
        optimizer_state: "average", "local" or "reset"; see `optimizer_state.py`. Under "average" and "local" one
            replica is the plain run bit for bit; under "reset" it is not, unless the optimizer is stateless.
        carry: objects with `state_dict` and `load_state_dict` (a scheduler, a GradScaler) that are rewound to the
            episode's start for every replica and go on from replica 0's end (a GradScaler: the smallest scale).
        average: such objects whose float state is averaged like the model's (an EMA).
        after_average: called as `after_average(episode, model)` on every average. What it does to the model reaches
            no later replica (the next start is taken before), and training modes are put back after it.

    Raises:
        ValueError: a value out of range, an unknown policy, an object without `state_dict`; named. At the loop's
            start: a parameter of the optimizer that belongs to no averaged module. In the loop: `replica.steps` left
            early; a NaN in a replica, or whole numbers that differ and are no counter (the tensor is named).

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> iterative = IMWA(model, optimizer, replicas=2, episodes=2, steps=4)
        >>> for replica in iterative:
        ...     for step in replica.steps:
        ...         optimizer.zero_grad()
        ...         model(torch.randn(8, 2, generator=replica.generator)).square().mean().backward()
        ...         optimizer.step()
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        replicas: int = 3,
        episodes: int = 10,
        steps: int,
        seed: int = 0,
        optimizer_state: str = "average",
        carry: Mapping[str, Any] | None = None,
        average: Mapping[str, Any] | None = None,
        after_average: Callable[[int, torch.nn.Module], None] | None = None,
    ) -> None:
        self.plan = Plan(steps=steps, episodes=episodes, replicas=replicas)
        stream_seed(seed)  # refuses what is no integer
        _check_policy(optimizer_state)
        self.model, self.optimizer = model, optimizer
        self.seed, self.optimizer_state, self.after_average = seed, optimizer_state, after_average
        self._objects = Objects(model, optimizer, carry=carry or {}, average=average or {})
        self._reduction: Reduction = InTurn()
        self._position = 0  # entry of the plan that is under way or comes next
        self._replica: Replica | None = None
        self._start: dict[str, Any] | None = None  # never changed once taken: later starts are new copies
        self._is_start = False  # the live objects are the start, untouched
        self._streams = [stream(seed, "replica", index) for index in range(replicas)]
        self._globals: list[dict[str, Any] | None] = [None] * replicas
        self._optimizer_states: list[Any] = [None] * replicas  # what each replica's optimizer starts from

    @property
    def finished_episodes(self) -> int:
        """Number of averages taken so far."""
        return self._position // self.plan.replicas

    def __iter__(self) -> Iterator[Replica]:
        """Replicas in the plan's order, from where the run stands; model and all else hold the replica's start."""
        self._begin()
        while self._position < len(self.plan):
            yield self._replica or self._enter()
            self._leave()

    def restore_average(self) -> None:
        """Go back to the last finished episode (before the first: the caller's start), after a break or an exception.

        Model, optimizer, carried and averaged objects hold what that average left, global generators are replica 0's
        at that point, and a new loop over this object trains the unfinished episode again.
        """
        if self._start is None:
            return
        self._reduction.clear()
        self._replica = None
        self._position = self.finished_episodes * self.plan.replicas
        for generator, state in zip(self._streams, self._start["streams"], strict=True):
            generator.set_state(state)
        self._globals, self._optimizer_states = list(self._start["globals"]), list(self._start[OPTIMIZER])
        self._load_start(0)
        self._is_start = True
        self._restore_first_globals()

    def state_dict(self) -> dict[str, Any]:
        """The whole run as it stands, in plain values: `torch.load(..., weights_only=True)` reads it back.

        Inside `for step in replica.steps` the step that was yielded counts as done. Loaded into a fresh IMWA of the
        same settings over a fresh model and optimizer, the run goes on with the next step, to the same bits.
        """
        return {
            "settings": self._settings(),
            "position": self._position,
            "following": None if self._replica is None else self._replica.steps.following,
            "start": self._start,
            "sums": self._reduction.state_dict(),
            "streams": [generator.get_state() for generator in self._streams],
            "globals": list(self._globals),
            OPTIMIZER: list(self._optimizer_states),
            "live": {
                **self._objects.take(),
                "optimizer": take_state(self.optimizer),
                "globals": capture_random_state(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`; model, optimizer and the other objects are written in place.

        Raises:
            ValueError: it comes from a run of other settings, or of another model; what differs is named.
        """
        mine = self._settings()
        other = [
            f"{name} is {mine[name]!r} here and {value!r} there"
            for name, value in state["settings"].items()
            if mine[name] != value
        ]
        if other:
            raise ValueError(f"This state comes from a run of other settings: {'; '.join(other)}. Use the same ones.")
        live, start = state["live"], state["start"]
        self._objects.load(live)
        load_state(self.optimizer, live[OPTIMIZER])
        self._start = None if start is None else {**start, MODEL: place_like(self.model, start[MODEL])}
        self._reduction.load_state_dict(state["sums"])
        for generator, saved in zip(self._streams, state["streams"], strict=True):
            generator.set_state(saved.cpu())
        self._globals, self._optimizer_states = list(state["globals"]), list(state[OPTIMIZER])
        self._position, following = state["position"], state["following"]
        self._replica = None if following is None else self._new_replica(following)
        self._is_start = False
        restore_random_state(live["globals"])

    def _begin(self) -> None:
        """The loop begins: the caller's state is the first start."""
        if self._start is not None:
            return
        self._objects.check()
        self._globals[0] = capture_random_state()
        self._optimizer_states = [take_state(self.optimizer)] * self.plan.replicas
        self._take_start()

    def _enter(self) -> Replica:
        """A replica begins: live objects become the start, generators its own."""
        entry = self.plan.entry(self._position)
        if not self._is_start:
            self._load_start(entry.replica)
        self._is_start = False
        if self.plan.replicas > 1:
            for parameter in self.model.parameters():
                parameter.grad = None  # another replica's
        own = self._globals[entry.replica]
        if own is None:
            seed_random_state(stream_seed(self.seed, "replica global", entry.replica))
        else:
            restore_random_state(own)
        self._replica = self._new_replica(entry.start)
        return self._replica

    def _leave(self) -> None:
        """A replica ends: into the sum, its generators and (under `local`) its optimizer state put away."""
        replica = self._replica
        assert replica is not None
        if len(replica.steps):
            raise ValueError(
                f"Replica {replica.index} of episode {replica.episode} was left before its step {replica.steps.following}; "
                f"its steps are {replica.steps.start} to {replica.steps.stop - 1}. Consume replica.steps to the end; to "
                "stop the whole run, break out of the outer loop and call restore_average()."
            )
        averages_optimizer = self.optimizer_state == "average" or (
            self.optimizer_state == "reset" and self._is_last(replica)
        )
        label = f"replica {replica.index} of episode {replica.episode}"
        self._reduction.add(
            self._objects.parts(with_optimizer=averages_optimizer), self._objects.carried(), label=label
        )
        self._globals[replica.index] = capture_random_state()
        if self.optimizer_state == "local":
            self._optimizer_states[replica.index] = take_state(self.optimizer)
        self._replica = None
        self._position += 1
        if replica.index == self.plan.replicas - 1:
            self._end_episode(replica)

    def _end_episode(self, last: Replica) -> None:
        """The mean becomes the model and the next start; then the caller's function sees it."""
        mean = self._reduction.mean()
        self._reduction.clear()
        self._objects.write(mean.parts, mean.carried)
        if mean.missing.get(OPTIMIZER):
            names = mean.missing[OPTIMIZER]
            _log.info("episode %d: optimizer state of some replicas only, averaged over those: %s", last.episode, names)
        del mean  # its memory is wanted for the next start
        if self.optimizer_state == "local":
            load_state(self.optimizer, self._optimizer_states[0])
        elif self.optimizer_state == "reset" and not self._is_last(last):
            load_state(self.optimizer, {})
        if self.optimizer_state != "local":
            self._optimizer_states = [take_state(self.optimizer)] * self.plan.replicas
        self._take_start()
        if self.after_average is not None:
            self._call_after_average(last.episode)
        if self._position == len(self.plan):
            self._restore_first_globals()

    def _call_after_average(self, episode: int) -> None:
        """The caller's function on the average; what it leaves reaches no replica, training modes are put back."""
        assert self.after_average is not None
        self._is_start = False
        self._restore_first_globals()
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.after_average(episode, self.model)
        finally:
            for module, mode in modes:
                module.training = mode
            self._restore_first_globals()

    def _take_start(self) -> None:
        self._start = {
            **self._objects.take(),
            OPTIMIZER: list(self._optimizer_states),
            "streams": [generator.get_state() for generator in self._streams],
            "globals": list(self._globals),
        }
        self._is_start = True

    def _load_start(self, replica: int) -> None:
        assert self._start is not None
        self._objects.load(self._start)
        load_state(self.optimizer, self._start[OPTIMIZER][replica])

    def _restore_first_globals(self) -> None:
        first = self._globals[0]
        if first is not None:
            restore_random_state(first)

    def _new_replica(self, following: int) -> Replica:
        entry = self.plan.entry(self._position)
        return Replica(entry, following=following, generator=self._streams[entry.replica], seed=self.seed)

    def _is_last(self, replica: Replica) -> bool:
        return replica.episode == self.plan.episodes - 1

    def _settings(self) -> dict[str, Any]:
        objects = {"carry": sorted(self._objects.carry), "average": sorted(self._objects.average)}
        plan = {"replicas": self.plan.replicas, "episodes": self.plan.episodes, "steps": self.plan.steps}
        return {**plan, "seed": self.seed, "optimizer_state": self.optimizer_state, **objects}


def _check_policy(name: str) -> None:
    if name not in POLICIES:
        near = difflib.get_close_matches(str(name), POLICIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"optimizer_state is {name!r}, and may be {', '.join(map(repr, POLICIES))}{hint}.")
