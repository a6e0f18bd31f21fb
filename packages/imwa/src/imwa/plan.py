"""Who trains which steps: the plan of an IMWA run, in integers only.

Equation  episode e runs the global steps b_e .. b_{e+1} - 1 with b_e = (e * T) // E;
          the run is the ordered list of (episode, replica), replicas inside episodes.
Source    IMWA (arXiv 2404.16331): episodes of T/E steps; a T that E does not divide and E > T are readings of ours.
Letters   T steps, E episodes, M replicas; e, m and t count from 0.
"""

import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One replica's share of one episode: global steps `start` to `stop - 1`."""

    episode: int
    replica: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Order of (episode, replica) with the range of global steps of each.

    Args:
        steps: optimizer steps of the baseline's whole schedule (T).
        episodes: averages to take (E); more than `steps` equals `steps`, said in a warning.
        replicas: models trained from each episode's start (M).

    Raises:
        ValueError: one of the three is not an integer of at least 1; the value is named.

    Example:
        >>> plan = Plan(steps=10, episodes=3, replicas=2)
        >>> [plan.border(episode) for episode in range(4)]
        [0, 3, 6, 10]
        >>> plan.entry(3)
        Entry(episode=1, replica=1, start=3, stop=6)
    """

    steps: int
    episodes: int
    replicas: int

    def __post_init__(self) -> None:
        for name in ("steps", "episodes", "replicas"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}. Give a whole number of at least 1.")
        if self.episodes > self.steps:
            warnings.warn(
                f"episodes is {self.episodes}, but the run has {self.steps} steps, so {self.episodes - self.steps} "
                f"episodes would be empty. The run is the one with episodes={self.steps}.",
                UserWarning,
                stacklevel=4,
            )
            object.__setattr__(self, "episodes", self.steps)

    def __len__(self) -> int:
        """Number of entries: episodes x replicas."""
        return self.episodes * self.replicas

    def border(self, episode: int) -> int:
        """First global step of `episode`; `border(episodes)` is `steps`."""
        return (episode * self.steps) // self.episodes

    def entry(self, position: int) -> Entry:
        """Entry number `position`, from 0 to `len(plan) - 1`."""
        episode, replica = divmod(position, self.replicas)
        return Entry(episode, replica, self.border(episode), self.border(episode + 1))
