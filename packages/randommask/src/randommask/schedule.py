"""The mask width of each optimizer step: RandomMask's widening in phases, in exact integers.

    the phase with milestone M is open at step s  iff  s * 480_000 >= M * total_steps

so that the same shares hold at any budget. Milestones are steps of a run of 480,000; s counts optimizer steps completed
before the batch, from 0. Past the end the last width holds.

Source    RandomMask (arXiv 2310.07644): five phases, certain; start width k from DNABERT's code, end width 14 from
          Genomics-FM's code. Widths 6, 8, 10, 12, 14 and the milestones are OUR READING, no readable source confirms
          them: widths are k, k+2, ..., k+8 for any k (ours).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from randommask.kmers import check_k

REFERENCE_STEPS: Final = 480_000
MILESTONES: Final = (0, 30_000, 100_000, 200_000, 300_000)  # our reading
WIDENING: Final = (0, 2, 4, 6, 8)  # tokens over k, a phase each; our reading


class Phase(NamedTuple):
    """A width and the first optimizer step that has it."""

    width: int
    first_step: int


@dataclass(frozen=True, kw_only=True)
class MaskSchedule:
    """Widths by phase, our reading of RandomMask's schedule by default.

    Args:
        k: bases a k-mer; the first width by default.
        widths: tokens a window, one a phase. None: k, k+2, k+4, k+6, k+8.
        milestones: first step of each phase in a run of 480,000, starting with 0, growing. None: 0, 30,000, 100,000,
            200,000, 300,000.
        total_steps: optimizer steps of this run.
        uniform: inside a phase each window draws its own width, uniformly from `widths[0]` to the phase's width (the other
            reading of the paper's text; ours).

    Raises:
        ValueError: a value out of range, or as many milestones as widths are missing; the values are named.

    Example:
        >>> MaskSchedule(total_steps=2000).phases()[:2]
        (Phase(width=6, first_step=0), Phase(width=8, first_step=125))
    """

    k: int = 6
    widths: tuple[int, ...] | None = None
    milestones: tuple[int, ...] | None = None
    total_steps: int = REFERENCE_STEPS
    uniform: bool = False

    def __post_init__(self) -> None:
        check_k(self.k)
        widths = tuple(self.k + more for more in WIDENING) if self.widths is None else tuple(self.widths)
        milestones = MILESTONES if self.milestones is None else tuple(self.milestones)
        if not widths or any(not _is_integer(width) or width < 1 for width in widths):
            raise ValueError(
                f"widths are {widths}, but a window has at least 1 token. Give one integer for each phase."
            )
        if len(milestones) != len(widths):
            raise ValueError(
                f"There are {len(widths)} widths {widths} and {len(milestones)} milestones {milestones}. "
                "Give one milestone for each width."
            )
        growing = all(a < b for a, b in pairwise(milestones))
        if not all(_is_integer(milestone) for milestone in milestones) or milestones[0] != 0 or not growing:
            raise ValueError(f"milestones are {milestones}, but they must be integers that start with 0 and grow.")
        if not _is_integer(self.total_steps) or self.total_steps < 1:
            raise ValueError(f"total_steps is {self.total_steps!r}, but a run has at least 1 step.")
        if self.uniform and min(widths) != widths[0]:
            raise ValueError(
                f"widths are {widths}, but uniform draws from the first width up: let none be below the first."
            )
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "milestones", milestones)

    @classmethod
    def scaled(cls, *, total_steps: int) -> "MaskSchedule":
        """The same shares of a budget of `total_steps` optimizer steps."""
        return cls(total_steps=total_steps)

    def phase(self, step: int) -> int:
        """Number of the phase, from 0, that optimizer step `step` (from 0) is in.

        Raises:
            ValueError: the step is negative or not an integer.
        """
        if not _is_integer(step) or step < 0:
            raise ValueError(f"step is {step!r}, but optimizer steps are integers that count from 0.")
        assert self.milestones is not None
        return sum(step * REFERENCE_STEPS >= milestone * self.total_steps for milestone in self.milestones) - 1

    def width(self, step: int) -> int:
        """Mask width in tokens at optimizer step `step`, from 0; past the end the last.

        Raises:
            ValueError: the step is negative or not an integer.
        """
        assert self.widths is not None
        return self.widths[self.phase(step)]

    def draw_from(self, step: int) -> int | range:
        """What `random_mask` takes as `width` at this step: the phase's width, or all widths up to it if `uniform`."""
        assert self.widths is not None
        return range(self.widths[0], self.width(step) + 1) if self.uniform else self.width(step)

    def phases(self) -> tuple[Phase, ...]:
        """Each phase's width and first step; phases that a short run skips are left out."""
        assert self.widths is not None
        assert self.milestones is not None
        first = [-(-milestone * self.total_steps // REFERENCE_STEPS) for milestone in self.milestones]
        ends = [*first[1:], self.total_steps + max(first) + 1]
        return tuple(
            Phase(width, start) for width, start, end in zip(self.widths, first, ends, strict=True) if start < end
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
