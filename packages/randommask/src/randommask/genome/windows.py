"""Windows of a genome: a number in, base codes out.

    dnabert   start uniform over the stretches; a full window with probability 1/2, else max(int(u * full), k) bases
    full      start uniform; every window full
    strided   window i begins i full windows on, stretch by stretch; the rest of a stretch is its last window

A full window of T tokens of overlapping k-mers has T + k - 1 bases. No window crosses a record, the border of the held-out part,
or a run of ambiguous letters longer than the set limit.

Source    lengths: DNABERT's `process_pretrain_data.py` (its two samplers have this one law of lengths; drawing every start at
          random in place of cutting half of them side by side is ours). k bases at least, and n - k + 1 tokens: ours.
Letters   L bases of a window, T tokens of a full one.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy
import torch
from torch.utils.data import Dataset

from randommask.alphabet import reverse_complement
from randommask.genome.store import Genome, Stretch, known_stretches
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream

Recipe = Literal["dnabert", "full", "strided"]
RECIPES: Final[tuple[Recipe, ...]] = ("dnabert", "full", "strided")
_ENDLESS: Final = 2**40  # windows that are drawn have no natural number; the run's length decides


def check_windows(recipe: str, *, tokens: int, reverse_complement_share: float) -> None:
    """Raise a ValueError that names the value where a recipe of windows, their length or the share of the other strand is wrong."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe is {recipe!r}; choose one of {', '.join(RECIPES)}.")
    if tokens < 1:
        raise ValueError(f"tokens is {tokens}, but a window has at least 1.")
    if not 0 <= reverse_complement_share <= 1:
        raise ValueError(f"reverse_complement_share is {reverse_complement_share}, but it must be between 0 and 1.")


class GenomeWindows(Dataset):
    """Map-style dataset of windows UInt8[L]; item i is a pure function of (seed, i).

    Args:
        genome: what is read.
        stretches: where windows may lie, `split_held_out(...).training` for example.
        tokens: k-mers of a full window.
        k: bases a k-mer.
        overlap: whether k-mers overlap; without, a full window has k * tokens bases.
        recipe: a name of `RECIPES`.
        seed: of the streams "windows" and "strand".
        reverse_complement_share: chance of a window to be read from the other strand.
        longest_unknown: a window never crosses a run of more ambiguous letters than this.

    Raises:
        UserError: no stretch is as long as a k-mer.
        ValueError: an unknown recipe, or a count out of range.
    """

    def __init__(
        self,
        genome: Genome,
        stretches: Sequence[Stretch],
        *,
        tokens: int,
        k: int,
        overlap: bool = True,
        recipe: Recipe = "dnabert",
        seed: int = 0,
        reverse_complement_share: float = 0.0,
        longest_unknown: int = 0,
    ) -> None:
        check_windows(recipe, tokens=tokens, reverse_complement_share=reverse_complement_share)
        self.genome = genome
        self.k = k
        self.full = tokens + k - 1 if overlap else tokens * k
        self.recipe: Recipe = recipe
        self.seed = seed
        self.reverse_complement_share = reverse_complement_share
        stretches = known_stretches(genome, stretches, longest_unknown=longest_unknown, least=k)
        if not stretches:
            raise UserError(
                f"No stretch without long runs of N has {k} bases, so no window can be cut. Give longer sequences, or hold out less."
            )
        self._starts = numpy.array([stretch.start for stretch in stretches], dtype=numpy.int64)
        self._stops = numpy.array([stretch.stop for stretch in stretches], dtype=numpy.int64)
        lengths = self._stops - self._starts
        # Strided, the rest of a stretch is a window if it holds a k-mer; else, places where a window may begin.
        counts = lengths // self.full + (lengths % self.full >= k) if recipe == "strided" else lengths - k + 1
        self._ends = numpy.cumsum(counts)

    @property
    def bases(self) -> int:
        """Bases that windows may come from."""
        return int((self._stops - self._starts).sum())

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.recipe == "strided" else _ENDLESS

    def __getitem__(self, number: int) -> numpy.ndarray:
        """Base codes UInt8[L] of window `number`, a copy."""
        if not 0 <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        if self.recipe == "strided":
            stretch = int(numpy.searchsorted(self._ends, number, side="right"))
            before = int(self._ends[stretch - 1]) if stretch else 0
            start, length = int(self._starts[stretch]) + (number - before) * self.full, self.full
        else:
            place, share, full = torch.rand(
                3, generator=stream(self.seed, "windows", number), dtype=torch.float64
            ).tolist()
            place = int(place * int(self._ends[-1]))
            stretch = int(numpy.searchsorted(self._ends, place, side="right"))
            before = int(self._ends[stretch - 1]) if stretch else 0
            start = int(self._starts[stretch]) + place - before
            drawn = self.recipe == "dnabert" and full >= 0.5
            length = max(int(share * self.full), self.k) if drawn else self.full
        window = self.genome.codes[start : min(start + length, int(self._stops[stretch]))]
        if self.reverse_complement_share and self._other_strand(number):
            return reverse_complement(window)
        return window.copy()

    def _other_strand(self, number: int) -> bool:
        return float(torch.rand((), generator=stream(self.seed, "strand", number))) < self.reverse_complement_share
