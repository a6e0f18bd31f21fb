"""IMWA: every episode, M replicas train from one start and their mean is the next start. The order of events.

Equation  theta^(e+1) = (1/M) sum_m theta_m^(e), theta_m^(e) trained from theta^(e) for T/E steps with its own data order.
Source    IMWA (arXiv 2404.16331). What happens to everything that is not a weight is open there and ours here: see
          `snapshot.py` (what is rewound), `averaging.py` (the mean), `optimizer_state.py` (the three policies).
Order     1. the loop begins: the caller's state is the first start.
          2. a replica begins: the start is loaded, its own random stream and global generators are set.
          3. its loop consumes `replica.steps`; a number handed out counts as done.
          4. it ends: its state is added to the sum, its generators (under `local` its optimizer state) are put away.
          5. the episode ends: mean into the model, next start taken, then `after_average(episode, model)`.
          With a group each process does 2 to 4 for its own replicas, and all do 5 together.
Letters   T steps, E episodes, M replicas.
"""

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from imwa.averaging import module_tensors
from imwa.batch_norm import POOLINGS
from imwa.compatibility import require_same_form
from imwa.optimizer_state import POLICIES, load_state, take_state
from imwa.plan import Entry, Plan
from imwa.reduction import ON_NAN, InTurn, Reduction
from imwa.replica import Replica
from imwa.snapshot import MODEL, OPTIMIZER, Objects, place_like
from scarce_common_utils.random_state import capture_random_state, restore_random_state, seed_random_state
from scarce_common_utils.streams import stream, stream_seed

_log = logging.getLogger(__name__)
OWN = "first and last replica of this process"


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
        after_average: called as `after_average(episode, model)` on every average, in every process. What it does to
            the model reaches no later replica (the next start is taken before), and training modes are put back.
        group: an averaging group of torch.distributed: replicas are shared out over its processes, which all run this
            same loop and see their own. The first start is process 0's. None trains all replicas here, in turn.
        deterministic: with a group, sum in replica order, to the bits of replicas in turn, for M broadcasts an episode
            in place of one all-reduce.
        batch_norm: "average" averages running statistics like floats; "pooled" makes variances those of the mixture.
        on_nan: "stop" raises where a replica ends with a NaN; "leave out" takes the mean over the others and notes it
            in `left_out`.

    Attributes:
        left_out: (episode, replica, sentence) of every replica that was left out for a NaN.

    Raises:
        ValueError: a value out of range, an unknown policy, an object without `state_dict`; named. At the loop's
            start: a parameter of the optimizer that belongs to no averaged module; processes whose models, settings or
            episodes differ. In the loop: `replica.steps` left early; a NaN in a replica, or whole numbers that differ
            and are no counter (the tensor is named).
        ProcessLost: another process of the group ended or did not answer within the group's timeout.

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
        group: Any = None,
        deterministic: bool = False,
        batch_norm: str = "average",
        on_nan: str = "stop",
    ) -> None:
        self.plan = Plan(steps=steps, episodes=episodes, replicas=replicas)
        stream_seed(seed)  # refuses what is no integer
        _check_choice("optimizer_state", optimizer_state, POLICIES)
        _check_choice("batch_norm", batch_norm, POOLINGS)
        _check_choice("on_nan", on_nan, ON_NAN)
        self.model, self.optimizer = model, optimizer
        self.seed, self.optimizer_state, self.after_average = seed, optimizer_state, after_average
        self.batch_norm, self.on_nan, self.deterministic = batch_norm, on_nan, deterministic
        self.left_out: list[tuple[int, int, str]] = []
        pooled = batch_norm == "pooled"
        self._objects = Objects(model, optimizer, carry=carry or {}, average=average or {}, pooled=pooled)
        self._reduction = _reduction(group, replicas=replicas, deterministic=deterministic, on_nan=on_nan)
        self._position = 0  # entry of this process's plan that is under way or comes next
        self._replica: Replica | None = None
        self._start: dict[str, Any] | None = None  # never changed once taken: later starts are new copies
        self._is_start = False  # the live objects are the start, untouched
        self._streams = [stream(seed, "replica", index) for index in range(replicas)]
        self._globals: list[dict[str, Any] | None] = [None] * replicas
        self._optimizer_states: list[Any] = [None] * replicas  # what each replica's optimizer starts from

    @property
    def finished_episodes(self) -> int:
        """Number of averages taken so far."""
        return self._position // len(self.own)

    @property
    def start(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers, by name, that the episode under way started from; to be read, never changed."""
        return {} if self._start is None else self._start[MODEL]["tensors"]

    @property
    def own(self) -> range:
        """Replicas that train in this process: all of them without a group."""
        return self._reduction.own

    def generator(self, replica: int) -> torch.Generator:
        """A replica's own random stream, which its `Replica.generator` is."""
        return self._streams[replica]

    def __iter__(self) -> Iterator[Replica]:
        """Replicas in the plan's order, from where the run stands; model and all else hold the replica's start."""
        self._begin()
        while self._position < self.plan.episodes * len(self.own):
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
        self._position = self.finished_episodes * len(self.own)
        for generator, state in zip(self._streams, self._start["streams"], strict=True):
            generator.set_state(state)
        self._globals, self._optimizer_states = list(self._start["globals"]), list(self._start[OPTIMIZER])
        self._load_start(self.own[0])
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
            "left_out": list(self.left_out),
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
        if start is not None:
            require_same_form([module_tensors(self.model), start[MODEL]["tensors"]], what="start state")
        self._objects.load(live)
        load_state(self.optimizer, live[OPTIMIZER])
        self._start = None if start is None else {**start, MODEL: place_like(self.model, start[MODEL])}
        self._reduction.load_state_dict(state["sums"])
        self.left_out = [tuple(entry) for entry in state["left_out"]]
        for generator, saved in zip(self._streams, state["streams"], strict=True):
            generator.set_state(saved.cpu())
        self._globals, self._optimizer_states = list(state["globals"]), list(state[OPTIMIZER])
        self._position, following = state["position"], state["following"]
        self._replica = None if following is None else self._new_replica(following)
        self._is_start = False
        restore_random_state(live["globals"])

    def _begin(self) -> None:
        """The loop begins: the caller's state (with a group: process 0's) is the first start."""
        fresh = self._start is None
        if fresh:
            self._objects.check()
        settings = {name: value for name, value in self._settings().items() if name != OWN}
        self._reduction.begin(self._objects, settings=settings, episode=None if fresh else self.finished_episodes)
        if not fresh:
            return
        self._globals[0] = capture_random_state()
        self._optimizer_states = [take_state(self.optimizer)] * self.plan.replicas
        self._take_start()

    def _enter(self) -> Replica:
        """A replica begins: live objects become the start, generators its own."""
        entry = self._entry()
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
        assert self._start is not None
        self._reduction.add(
            self._objects.parts(self._start, with_optimizer=averages_optimizer),
            self._objects.carried(),
            replica=replica.index,
            start={MODEL: self._start[MODEL]["tensors"]},
            label=f"replica {replica.index} of episode {replica.episode}",
        )
        self._globals[replica.index] = capture_random_state()
        if self.optimizer_state == "local":
            self._optimizer_states[replica.index] = take_state(self.optimizer)
        self._replica = None
        self._position += 1
        if replica.index == self.own[-1]:
            self._end_episode(replica)

    def _end_episode(self, last: Replica) -> None:
        """The mean becomes the model and the next start; then the caller's function sees it."""
        assert self._start is not None
        mean = self._reduction.mean(label=f"episode {last.episode}")
        self._reduction.clear()
        self._objects.write(mean.parts, mean.carried, start=self._start)
        for index, sentence in mean.left_out.items():
            _log.warning(
                "%s It is left out of the average, which is over %d.", sentence, self.plan.replicas - len(mean.left_out)
            )
            self.left_out.append((last.episode, index, sentence))
            self._optimizer_states[index] = self._start[OPTIMIZER][index]
        if mean.missing.get(OPTIMIZER):
            names = mean.missing[OPTIMIZER]
            _log.info("episode %d: optimizer state of some replicas only, averaged over those: %s", last.episode, names)
        del mean  # its memory is wanted for the next start
        if self.optimizer_state == "local":
            load_state(self.optimizer, self._optimizer_states[self.own[0]])
        elif self.optimizer_state == "reset" and not self._is_last(last):
            load_state(self.optimizer, {})
        if self.optimizer_state != "local":
            self._optimizer_states = [take_state(self.optimizer)] * self.plan.replicas
        self._take_start()
        if self.after_average is not None:
            self._call_after_average(last.episode)
        if self._is_last(last):
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
        first = self._globals[self.own[0]]
        if first is not None:
            restore_random_state(first)

    def _entry(self) -> Entry:
        """Entry of the plan at this process's position."""
        episode, place = divmod(self._position, len(self.own))
        return self.plan.entry(episode * self.plan.replicas + self.own[place])

    def _new_replica(self, following: int) -> Replica:
        entry = self._entry()
        return Replica(entry, following=following, generator=self._streams[entry.replica], seed=self.seed)

    def _is_last(self, replica: Replica) -> bool:
        return replica.episode == self.plan.episodes - 1

    def _settings(self) -> dict[str, Any]:
        objects = {"carry": sorted(self._objects.carry), "average": sorted(self._objects.average)}
        plan = {"replicas": self.plan.replicas, "episodes": self.plan.episodes, "steps": self.plan.steps}
        choices = {"optimizer_state": self.optimizer_state, "batch_norm": self.batch_norm, "on_nan": self.on_nan}
        here = {OWN: [self.own.start, self.own.stop - 1], "deterministic": self.deterministic}
        return {**plan, "seed": self.seed, **choices, **objects, **here}


def _reduction(group: Any, *, replicas: int, deterministic: bool, on_nan: str) -> Reduction:
    if group is None:
        return InTurn(replicas=replicas, on_nan=on_nan)
    from imwa.processes import AcrossProcesses

    return AcrossProcesses(group, replicas=replicas, deterministic=deterministic, on_nan=on_nan)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} is {value!r}, and may be {', '.join(map(repr, choices))}{hint}.")
