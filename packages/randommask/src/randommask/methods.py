"""The masking methods by name: RandomMask, DNABERT's masking, and the controls that tell their parts apart.

    randommask      the schedule's width, p = 0.025                    widening (our reading of the schedule)
    uniform         each window draws its width up to the schedule's   the other reading of "expanding"
    dnabert         width k always                                     the baseline: RandomMask switched off
    constant        width k + 8 always                                 wide from the start: is it the order?
    constant_share  the schedule's width, p = 0.15 / width             same share of masked tokens: is it the share?
    iid             width 1, p = 0.15                                  BERT's own masking: hides next to nothing

Source    RandomMask (arXiv 2310.07644); DNABERT's README for p = 0.025 at k = 6, p = 0.15 / k for other k is our reading.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from randommask.schedule import WIDENING, MaskSchedule

SHARE: Final = 0.15  # BERT's share of masked tokens, nominal
PROBABILITY_OF_SIX: Final = 0.025


def default_probability(k: int) -> float:
    """Chance of a token to be a centre: 0.025 at k = 6 (DNABERT), else 0.15 / k (our reading of "about 15 %")."""
    return PROBABILITY_OF_SIX if k == 6 else SHARE / k


class Masking(NamedTuple):
    """Arguments of `RandomMaskCollator` that make a method."""

    schedule: MaskSchedule | int
    probability: float | None
    share: float | None = None


def _widening(schedule: MaskSchedule) -> Masking:
    return Masking(schedule, default_probability(schedule.k))


def _uniform(schedule: MaskSchedule) -> Masking:
    uniform = MaskSchedule(
        k=schedule.k,
        widths=schedule.widths,
        milestones=schedule.milestones,
        total_steps=schedule.total_steps,
        uniform=True,
    )
    return Masking(uniform, default_probability(schedule.k))


def _dnabert(schedule: MaskSchedule) -> Masking:
    return Masking(schedule.k, default_probability(schedule.k))


def _constant(schedule: MaskSchedule) -> Masking:
    return Masking(schedule.k + WIDENING[-1], default_probability(schedule.k))


def _constant_share(schedule: MaskSchedule) -> Masking:
    return Masking(schedule, None, share=SHARE)


def _iid(schedule: MaskSchedule) -> Masking:
    return Masking(1, SHARE)


METHODS: Final[dict[str, Callable[[MaskSchedule], Masking]]] = {
    "randommask": _widening,
    "uniform": _uniform,
    "dnabert": _dnabert,
    "constant": _constant,
    "constant_share": _constant_share,
    "iid": _iid,
}
