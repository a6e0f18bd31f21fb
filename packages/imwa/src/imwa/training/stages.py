"""A run in stages that share the model, the optimizer and the global step: IMWA, and the controls around it.

    plain                    T steps of M replicas in E episodes
    shared start             one replica for the first share, then M from there (guards against replicas that part at once)
    average, then one run    M replicas up to a share, and from their last average on one run: when does averaging help?

Cost      optimizer steps: sum over stages of their length times their replicas.
Source    IMWA (arXiv 2404.16331) averages early; both controls are ours.
Letters   T steps, E episodes, M replicas.
"""

from typing import NamedTuple


class Stage(NamedTuple):
    """Global steps `start` to `stop - 1`, trained by `replicas` from one start each of `episodes` times."""

    start: int
    stop: int
    replicas: int
    episodes: int

    @property
    def cost(self) -> int:
        """Optimizer steps over all replicas."""
        return (self.stop - self.start) * self.replicas


def stages_of(
    steps: int, *, replicas: int, episodes: int, shared_start: float = 0.0, average_until: float = 1.0
) -> list[Stage]:
    """The stages of a run, none of them empty.

    Args:
        steps: T.
        replicas: M.
        episodes: E, of the stage of M replicas.
        shared_start: share of T that one replica trains first.
        average_until: share of T from which on one run goes on.
    """
    begin, end = round(shared_start * steps), round(average_until * steps)
    found = [
        Stage(0, begin, 1, 1),
        Stage(begin, end, replicas, min(episodes, max(1, end - begin))),
        Stage(end, steps, 1, 1),
    ]
    return [stage for stage in found if stage.stop > stage.start]


def cost_of(stages: list[Stage]) -> int:
    """Optimizer steps of all stages."""
    return sum(stage.cost for stage in stages)
