"""Windows of a stream of sequences, such as a `datasets.IterableDataset`: a number in, base codes out, one pass after the other.

    row of the stream -> its training or held-out part -> stretches without long runs of N -> windows, numbered as they come
    dnabert   a full window with probability 1/2, else max(int(u * full), k) bases, side by side; the rest of a stretch is the last
    full      full windows side by side, from a place drawn among the first `full` bases of each stretch and pass
    strided   full windows side by side from the first base

Window i is a pure function of (stream, seed, i), so everything that holds for a genome's windows holds here: batches are numbered by
the sampler, the mask's width is that of the batch's own step, workers, processes and resume change no number. Each reader keeps its
place, and reads over what is not its own: no state is saved, and to go on at window i costs reading the rows before it.

A row over 100,000 bases holds out its last tenth. Of shorter rows one in ten is held out, by the SHA-256 of (seed, letters), so that equal
rows are on one side, wherever they stand.

Source    the walk with random lengths is DNABERT's (`process_pretrain_data.py`); numbering it, and what is held out: ours.
Letters   L bases of a window, T tokens of a full one.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy
import torch
from torch.utils.data import Dataset

from randommask.alphabet import FOREIGN, base_codes, reverse_complement
from randommask.genome.fasta import FastaRecord
from randommask.genome.held_out import LONG, SHARE, Parts
from randommask.genome.store import Genome, Stretch, known_stretches
from randommask.genome.windows import Recipe, check_windows
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream, stream_seed

Side = Literal["all", "training", "held out"]
_ENDLESS: Final = 2**40  # windows; the run's length decides
_ROWS: Final = 64  # rows fetched together
_SAMPLED: Final = 4096  # full windows of training DNA that the k-mer frequencies are counted on


class StreamError(UserError):
    """A row that cannot be used; torch hands it from a loader worker as a traceback, of which the last line is kept."""

    def __init__(self, text: str) -> None:
        last = text.strip().splitlines()[-1]
        super().__init__(last.removeprefix(f"{type(self).__module__}.{type(self).__name__}: "))


class Rows(NamedTuple):
    """A stream of rows: `source`, anything to iterate more than once; `column` of letters; what errors call it.

    With a `shuffle_buffer` the source's own `shuffle(seed=, buffer_size=)` is called for each pass.
    """

    source: Iterable[Any]
    column: str = "sequence"
    name: str = "the stream"
    shuffle_buffer: int = 0
    keep_soft_masked: bool = True

    def codes(self, turn: int = 0, *, seed: int = 0) -> Iterator[tuple[str, numpy.ndarray]]:
        """Name ("row 3", from 1, as read) and base codes UInt8[L] of each row of a pass.

        Raises:
            StreamError: the column is missing, a row holds no letters, or letters of no nucleotide, or reading fails.
        """
        number = 0
        try:
            for letters in self._letters(turn, seed=seed):
                number += 1
                yield f"row {number}", self._checked(letters, number)
        except (UserError, GeneratorExit):
            raise
        except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise StreamError(f"{self.name} cannot be read behind row {number} ({reason}).") from error

    def _letters(self, turn: int, *, seed: int) -> Iterator[Any]:
        source: Any = self.source
        if self.shuffle_buffer:
            source = source.shuffle(seed=stream_seed(seed, "example order", turn), buffer_size=self.shuffle_buffer)
        # By batches: in a loader worker, plain iteration of a datasets.IterableDataset hands out that worker's shards alone.
        batches = source.iter(batch_size=_ROWS) if hasattr(source, "iter") else ({self.column: [one]} for one in source)
        for batch in batches:
            if self.column not in batch:
                raise StreamError(
                    f"{self.name} has no column {self.column!r}; it has {', '.join(map(repr, list(batch)[:6]))}. Name the column of "
                    "letters by --column."
                )
            for row in batch[self.column]:
                yield row[self.column] if isinstance(row, Mapping) and self.column in row else row

    def _checked(self, letters: Any, number: int) -> numpy.ndarray:
        if not isinstance(letters, str):
            raise StreamError(
                f"{self.name}, row {number}: the column {self.column!r} holds {str(letters)[:30]!r}, no letters. Name the column of "
                "letters by --column."
            )
        text = letters.strip()
        codes = base_codes(text, keep_soft_masked=self.keep_soft_masked)
        if codes.size and codes.max() >= FOREIGN:
            raise StreamError(
                f"{self.name}, row {number}: {text[int((codes >= FOREIGN).argmax())]!r} is no letter of DNA (A, C, G, T, U, N and the "
                f"IUPAC letters), in {text[:20]!r}. Give nucleotide sequences."
            )
        return codes


class StreamWindows(Dataset):
    """Map-style dataset of windows UInt8[L] of a stream; see the module.

    Args:
        rows: the stream.
        tokens: k-mers of a full window.
        k: bases a k-mer.
        overlap: whether k-mers overlap; without, a full window has k * tokens bases.
        recipe: dnabert, full or strided; see the module.
        seed: of the streams "windows", "strand" and "example order", and of what is held out.
        side: which part of the rows.
        reverse_complement_share: chance of a window to be read from the other strand.
        longest_unknown: a window never crosses a run of more ambiguous letters than this.

    Raises:
        ValueError: an unknown recipe, or a count out of range.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        tokens: int,
        k: int,
        overlap: bool = True,
        recipe: Recipe = "dnabert",
        seed: int = 0,
        side: Side = "training",
        reverse_complement_share: float = 0.0,
        longest_unknown: int = 0,
    ) -> None:
        check_windows(recipe, tokens=tokens, reverse_complement_share=reverse_complement_share)
        self.rows = rows
        self.k = k
        self.full = tokens + k - 1 if overlap else tokens * k
        self.recipe: Recipe = recipe
        self.seed = seed
        self.side: Side = side
        self.reverse_complement_share = reverse_complement_share
        self.longest_unknown = longest_unknown
        self._walk: Iterator[numpy.ndarray] | None = None
        self._next = self._process = 0

    def __len__(self) -> int:
        return _ENDLESS

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open stream: it is only a place that was reached."""
        return self.__dict__ | {"_walk": None}

    def __getitem__(self, number: int) -> numpy.ndarray:
        """Base codes UInt8[L] of window `number`, a copy; quick in ascending order."""
        if not 0 <= number < _ENDLESS:
            raise IndexError(f"window {number} of {_ENDLESS}")
        # A forked worker must not read on in its parent's file.
        if self._walk is None or number < self._next or self._process != os.getpid():
            self._walk, self._next, self._process = self._windows(), 0, os.getpid()
        while True:
            window = next(self._walk)
            self._next += 1
            if self._next > number:
                break
        if self.reverse_complement_share and self._other_strand(number):
            return reverse_complement(window)
        return window.copy()

    def _windows(self) -> Iterator[numpy.ndarray]:
        turn = 0
        while True:
            found = False
            for place, (_, codes) in enumerate(self.rows.codes(turn, seed=self.seed)):
                generator = stream(self.seed, "windows", turn, place)
                for stretch in known_stretches(
                    _alone(codes),
                    part_of_row(codes, self.side, seed=self.seed),
                    longest_unknown=self.longest_unknown,
                    least=self.k,
                ):
                    for start, stop in self._cut(stretch, generator):
                        found = True
                        yield codes[start:stop]
            if not found:
                raise StreamError(
                    f"{self.rows.name} holds no {self.side} row with {self.k} known bases side by side, so no window can be cut. Give "
                    "longer sequences, or more rows."
                )
            turn += 1

    def _cut(self, stretch: Stretch, generator: torch.Generator) -> Iterator[Stretch]:
        place = stretch.start
        if self.recipe == "full":
            free = min(self.full, stretch.stop - stretch.start - self.k + 1)
            place += int(torch.rand((), generator=generator, dtype=torch.float64) * free)
        while stretch.stop - place >= self.k:
            length = self.full
            if self.recipe == "dnabert" and stretch.stop - place > self.full:
                share, full = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
                length = self.full if full < 0.5 else max(int(share * self.full), self.k)
            yield Stretch(place, min(place + length, stretch.stop))
            place += length

    def _other_strand(self, number: int) -> bool:
        return float(torch.rand((), generator=stream(self.seed, "strand", number))) < self.reverse_complement_share


def part_of_row(codes: numpy.ndarray, side: Side, *, seed: int) -> list[Stretch]:
    """The stretch of a row that lies on a side, or none."""
    length = len(codes)
    if side == "all":
        return [Stretch(0, length)]
    if length > LONG:
        cut = length - length // SHARE
        return [Stretch(0, cut) if side == "training" else Stretch(cut, length)]
    digest = hashlib.sha256(f"{seed} ".encode() + codes.tobytes()).digest()
    held_out = int.from_bytes(digest[:8], "big") % SHARE == 0
    return [Stretch(0, length)] if held_out == (side == "held out") else []


def sample_stream(training: Rows, held_out: Rows | None, *, full: int, windows: int, seed: int) -> tuple[Genome, Parts]:
    """The first rows of a stream as a genome: what k-mer frequencies are counted on, and the held-out DNA to evaluate on.

    Args:
        training: the stream, read in its own order.
        held_out: another stream to evaluate on; None divides the rows of `training`.
        full: bases of a full window.
        windows: full windows of held-out DNA that are wanted.
        seed: of the division.

    Raises:
        UserError: a row that cannot be used, or no row at all on one of the sides.
    """
    wanted = {"training": _SAMPLED * full, "held out": windows * full}
    if held_out is None:
        found = _first_rows(training, wanted, seed=seed)
    else:
        found = {
            "training": _first_rows(training, {"all": wanted["training"]}, seed=seed)["all"],
            "held out": _first_rows(held_out, {"all": wanted["held out"]}, seed=seed)["all"],
        }
    for side, name in (("training", training.name), ("held out", (held_out or training).name)):
        if not found[side]:
            raise UserError(f"{name} has no {side} row. Give more rows, or a split to evaluate on by --held-out.")
    genome = Genome.of([*found["training"], *found["held out"]])
    stretches, cut = [genome.record(index) for index in range(len(genome.names))], len(found["training"])
    return genome, Parts(stretches[:cut], stretches[cut:])


def _first_rows(rows: Rows, wanted: Mapping[Any, int], *, seed: int) -> dict[str, list[FastaRecord]]:
    """Parts of the first rows by side, until each side has the bases that are wanted of it or the stream ends."""
    found: dict[str, list[FastaRecord]] = {side: [] for side in wanted}
    left = dict(wanted)
    for name, codes in rows._replace(shuffle_buffer=0).codes():
        for side in wanted:
            for start, stop in part_of_row(codes, side, seed=seed):
                kept = codes[start : min(stop, start + left[side])]
                if kept.size:
                    found[side].append(FastaRecord(name, kept))
                    left[side] -= len(kept)
        if not any(left.values()):
            break
    return found


def _alone(codes: numpy.ndarray) -> Genome:
    return Genome(("row",), (0, len(codes)), codes)
