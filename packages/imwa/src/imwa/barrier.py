"""The loss along the straight segment between two replicas' weights, and the height of the barrier on it.

Equation  theta(t) = (1 - t) theta_0 + t theta_1
          B = max over t of [L(theta(t)) - (1 - t) L(theta_0) - t L(theta_1)], at least 0; 0 where L is convex on the segment.
Norms     BatchNorm's running statistics are mixed like weights, so that t = 1/2 is what averaging two replicas gives;
          measured anew at every point beside it, because mixed statistics belong to no network and raise a barrier of their own.
Source    barrier: Entezari et al. 2021 (arXiv 2110.06296), after Frankle et al. 2019 (arXiv 1912.05671). That it is looked
          at between neighbouring replicas of an episode is ours.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from imwa.averaging import module_tensors, write_tensors
from imwa.replica_sum import widened
from imwa.trees import copy_state
from scarce_common_utils.random_state import capture_random_state, restore_random_state

POINTS = tuple(number / 10 for number in range(11))


class Segment(NamedTuple):
    """Losses at the `points` t, in their order: `losses` with mixed statistics, `recomputed` with measured ones, or None."""

    points: tuple[float, ...]
    losses: tuple[float, ...]
    recomputed: tuple[float, ...] | None


def segment_losses(
    model: torch.nn.Module,
    first: Mapping[str, torch.Tensor],
    *,
    second: Mapping[str, torch.Tensor],
    loss: Callable[[torch.nn.Module], float],
    points: Sequence[float] = POINTS,
    recompute: Callable[[torch.nn.Module], Any] | None = None,
) -> Segment:
    """Loss at points of the segment from `first` to `second`; the model, its modes and global generators are put back.

    Memory: one copy of the model's tensors beside the two ends.

    Args:
        model: takes the mixed weights while it is measured.
        first: parameters and buffers by name, as `module_tensors(model)` has them; the end t = 0.
        second: the end t = 1.
        loss: model -> number, such as the mean loss over a fixed set of images in eval mode.
        points: values of t in ascending order from 0 to 1, both among them.
        recompute: called with the model at each point, and measures its BatchNorm statistics anew in place.

    Raises:
        ValueError: `points` do not rise from 0 to 1; they are named.
    """
    check_points(points)
    losses: list[float] = []
    anew: list[float] = []
    live = module_tensors(model)
    with undisturbed(model, live):
        for t in points:
            write_tensors(live, {name: _mixed(first[name], second[name], t) for name in live})
            losses.append(float(loss(model)))
            if recompute is not None:
                recompute(model)
                anew.append(float(loss(model)))
    return Segment(tuple(points), tuple(losses), tuple(anew) if recompute is not None else None)


def barrier_height(points: Sequence[float], losses: Sequence[float]) -> float:
    """B of the module docstring from losses at points of a segment; NaN where one of them is no finite number.

    Example:
        >>> barrier_height([0.0, 0.5, 1.0], [1.0, 5.0, 2.0])
        3.5
    """
    if not all(map(math.isfinite, losses)):
        return math.nan
    start, end = losses[0], losses[-1]
    inner = zip(points[1:-1], losses[1:-1], strict=True)
    return max([0.0, *(value - (1 - t) * start - t * end for t, value in inner)])


def check_points(points: Sequence[float]) -> None:
    """Raise a ValueError that lists the points where they do not rise from 0 to 1."""
    rising = all(one < other for one, other in itertools.pairwise(points))
    if len(points) < 2 or points[0] != 0 or points[-1] != 1 or not rising:
        raise ValueError(
            f"The points of a segment are {list(points)}. Give numbers that rise from 0 to 1, with both ends among them."
        )


@contextmanager
def undisturbed(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """After the block `tensors` of the model, modes of its modules and global generators are what they were before."""
    kept = copy_state(dict(tensors))
    modes = [(module, module.training) for module in model.modules()]
    generators = capture_random_state()
    try:
        with torch.no_grad():
            yield
    finally:
        write_tensors(tensors, kept)
        for module, mode in modes:
            module.training = mode
        restore_random_state(generators)


def _mixed(first: torch.Tensor, second: torch.Tensor, t: float) -> torch.Tensor:
    """The point t between two tensors; of whole numbers the nearer end's."""
    if first.is_floating_point() or first.is_complex():
        return torch.lerp(widened(first), widened(second), t)
    return second if t > 0.5 else first
