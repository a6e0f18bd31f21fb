"""IMWA inside a loop that belongs to somebody else: replicas take turns by two calls a step, and any place of the loop is known.

A trainer's one loop over own * T steps runs the replicas of this process in turn, episode by episode:
Equation  place p of the loop is step s of replica r in episode e, where (own the first replica .. the last of this process)
              e = the episode of step p // |own|,   b_e = (e * T) // E,   r, s - b_e = divmod(p - |own| * b_e, b_{e+1} - b_e).
So which batch comes at a place is a pure function of the place: a loader may read ahead, and a resumed run needs no replay.
Source    IMWA (arXiv 2404.16331); the order of events is `driver.py`'s.
Letters   T steps, E episodes, M replicas.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from imwa.driver import IMWA
from imwa.plan import Plan
from imwa.replica import Replica

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """What happens at one step of the loop.

    Attributes:
        episode: e.
        replica: its index.
        step: the replica's global step, from 0 to T - 1.
    """

    episode: int
    replica: int
    step: int


def place_of(plan: Plan, position: int, *, own: range) -> Place:
    """Place of step number `position` of a loop that trains the replicas `own` in turn; beyond its end the last goes on.

    Example:
        >>> plan = Plan(steps=4, episodes=2, replicas=2)
        >>> [tuple(place_of(plan, position, own=range(2))[1:3]) for position in range(8)]
        [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    """
    beyond = max(0, position - (len(own) * plan.steps - 1))
    position -= beyond
    episode = ((position // len(own) + 1) * plan.episodes - 1) // plan.steps
    begin, end = plan.border(episode), plan.border(episode + 1)
    index, offset = divmod(position - len(own) * begin, end - begin)
    return Place(episode, own[index], begin + offset + beyond)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user says of the run, as `IMWA` takes it; the trainer knows model, optimizer and steps."""

    replicas: int
    episodes: int
    seed: int | None
    optimizer_state: str
    carry: Mapping[str, Any] = field(default_factory=dict)
    average: Mapping[str, Any] = field(default_factory=dict)
    after_average: Callable[[int, torch.nn.Module], None] | None = None
    group: Any = None
    deterministic: bool = False
    batch_norm: str = "average"
    on_nan: str = "stop"

    def own(self) -> range:
        """Replicas that train in this process."""
        if self.group is None:
            return range(self.replicas)
        from imwa.processes import AcrossProcesses

        return AcrossProcesses(self.group, replicas=self.replicas).own

    def start(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, plan: Plan, carry: Mapping[str, Any]
    ) -> IMWA:
        """The driver over what the trainer made; `carry` joins what the user carries."""
        assert self.seed is not None
        return IMWA(
            model,
            optimizer,
            replicas=plan.replicas,
            episodes=plan.episodes,
            steps=plan.steps,
            seed=self.seed,
            optimizer_state=self.optimizer_state,
            carry={**carry, **self.carry},
            average=self.average,
            after_average=self.after_average,
            group=self.group,
            deterministic=self.deterministic,
            batch_norm=self.batch_norm,
            on_nan=self.on_nan,
        )


class Turns:
    """One training: its plan, and the driver's loop taken one event at a time.

    Args:
        settings: of the user, with a seed.
        steps: T.

    Attributes:
        plan: with no empty episode.
        own: replicas of this process.
        total: steps of the loop, own * T.
        iterative: the driver, once model and optimizer are ready; None before.
        place: of the last step that was done; None before any.
        averaged: the live model is an average: no step was done since.
        ended: the loop is over.

    Raises:
        ValueError: a number out of range; named.
    """

    def __init__(self, settings: Settings, *, steps: int) -> None:
        self.settings = settings
        self.plan = Plan(steps=steps, episodes=settings.episodes, replicas=settings.replicas)
        self.own = settings.own()
        self.total = steps * len(self.own)
        self.iterative: IMWA | None = None
        self.place: Place | None = None
        self.averaged = False
        self.ended = False
        self._iterator: Iterator[Replica] = iter(())
        self._replica: Replica | None = None

    @property
    def seed(self) -> int:
        """Of the replicas' streams."""
        assert self.settings.seed is not None
        return self.settings.seed

    @property
    def finished(self) -> bool:
        """Whether all averages are taken."""
        return self.iterative is not None and self.iterative.finished_episodes == self.plan.episodes

    def at(self, position: int) -> Place:
        """Place of step number `position` of the loop."""
        return place_of(self.plan, position, own=self.own)

    def start(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        carry: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Model and optimizer are ready; go on from `state`, an `IMWA.state_dict()`, where there is one."""
        iterative = self.settings.start(model, optimizer, plan=self.plan, carry=carry)
        if state is not None:
            iterative.load_state_dict(state)
        self.iterative, self._iterator = iterative, iter(iterative)

    def begin_step(self) -> None:
        """Before a step: where a replica's turn begins, the live objects become its start."""
        while self._replica is None or not len(self._replica.steps):
            self._replica = next(self._iterator)
        self.averaged = False

    def end_step(self) -> None:
        """After a step; where it ends an episode, the live objects become the average, before anybody looks at them.

        A replica that ends elsewhere stays live until the next step begins, so that it is what is evaluated and saved.
        """
        replica = self._replica
        assert replica is not None
        step = next(replica.steps)
        self.place = Place(replica.episode, replica.index, step)
        if not len(replica.steps) and replica.index == self.own[-1]:
            self._replica = next(self._iterator, None)
            self.averaged = True

    def end(self) -> None:
        """The loop is over; say what the model holds where the run's last average was not reached."""
        self.ended = True
        if not self.finished and self.iterative is not None:
            taken = f"{self.iterative.finished_episodes} of {self.plan.episodes}"
            _log.warning(
                "Training ended before its last average: %s are taken. Unless it stopped right behind one, the model holds a "
                "single replica; restore_average() of the callback's `iterative` goes back to the last average.",
                taken,
            )
