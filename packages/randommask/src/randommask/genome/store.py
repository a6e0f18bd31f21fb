"""A genome in memory or mapped from a file: the base codes of all records side by side, and which stretches of them may be read.

Letters   L bases of the whole genome, R records.
"""

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy

from randommask.alphabet import AMBIGUOUS
from randommask.genome.fasta import FastaRecord, read_fasta
from scarce_common_utils.errors import UserError

_PIECE: Final = 1 << 24  # bases looked at together


class Stretch(NamedTuple):
    """Places [start, stop) of a genome's codes."""

    start: int
    stop: int


@dataclass(frozen=True)
class Genome:
    """Records side by side.

    Attributes:
        names: of the R records.
        starts: first place of each record, and L at the end: R + 1 integers.
        codes: UInt8[L].
        file: what the codes are mapped from, if they are.
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    codes: numpy.ndarray
    file: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the codes where they are mapped from a file: a loader worker maps it again."""
        if self.file is None:
            return Genome, (self.names, self.starts, self.codes)
        return mapped_genome, (self.names, self.starts, self.file)

    @classmethod
    def of(cls, records: Sequence[FastaRecord]) -> "Genome":
        """Lay records side by side."""
        starts = numpy.cumsum([0, *(len(record.codes) for record in records)]).tolist()
        codes = numpy.concatenate([record.codes for record in records])
        return cls(tuple(record.name for record in records), tuple(starts), codes)

    def record(self, index: int) -> Stretch:
        """Where record `index` lies."""
        return Stretch(self.starts[index], self.starts[index + 1])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256, first 16 hexadecimal digits, of names, lengths and bases; case and ambiguity letters do not count."""
        digest = hashlib.sha256(repr((self.names, self.starts)).encode())
        for start in range(0, len(self.codes), _PIECE):
            digest.update(numpy.ascontiguousarray(self.codes[start : start + _PIECE]).data)
        return digest.hexdigest()[:16]


def mapped_genome(names: tuple[str, ...], starts: tuple[int, ...], file: Path) -> Genome:
    """A genome whose codes are mapped from `file`, as loader workers open it anew."""
    codes = numpy.memmap(file, dtype=numpy.uint8, mode="r", shape=(starts[-1],))
    return Genome(names, starts, codes, file)


def read_genome(paths: Sequence[Path], *, records: Sequence[str] = (), keep_soft_masked: bool = True) -> Genome:
    """Read FASTA files into one genome in memory, a byte a base.

    Args:
        paths: FASTA files.
        records: names of the records to take; none takes all.
        keep_soft_masked: see `base_codes`.

    Raises:
        UserError: as `read_fasta`; no file, no base at all, one name in two files, or a name that no record has.
    """
    names, starts, codes = [], [0], bytearray()
    for record in chosen_records(paths, records=records, keep_soft_masked=keep_soft_masked):
        codes += numpy.ascontiguousarray(record.codes).data
        names.append(record.name)
        starts.append(len(codes))
    return Genome(tuple(names), tuple(starts), numpy.frombuffer(codes, dtype=numpy.uint8))


def chosen_records(
    paths: Sequence[Path], *, records: Sequence[str] = (), keep_soft_masked: bool = True
) -> Iterator[FastaRecord]:
    """Records of FASTA files, one after the other; see `read_genome`."""
    origin: dict[str, Path] = {}
    wanted = set(records)
    for path in paths:
        for record in read_fasta(path, keep_soft_masked=keep_soft_masked):
            if record.name in origin:
                raise UserError(
                    f"{path}: the record {record.name!r} stands in {origin[record.name]} too. Give each record its own name."
                )
            origin[record.name] = path
            if not wanted or record.name in wanted:
                yield record
    if not origin:
        raise UserError(
            f"{', '.join(map(str, paths)) or 'No file'}: no record with a base was found. Give a FASTA file with DNA."
        )
    missing = next((name for name in records if name not in origin), None)
    if missing is not None:
        raise UserError(
            f"--records names {missing!r}, but no record is called so; {nearest_name(missing, tuple(origin))}"
        )


def nearest_name(name: str, names: Sequence[str]) -> str:
    """Words that end the sentence on an unknown record: the nearest name, or the first names."""
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"the records are {', '.join(names[:5])}" + (", ..." if len(names) > 5 else ".")


def known_stretches(genome: Genome, stretches: Sequence[Stretch], *, longest_unknown: int, least: int) -> list[Stretch]:
    """Split stretches at runs of ambiguous letters.

    Args:
        genome: where the stretches lie.
        stretches: to be split.
        longest_unknown: a run of more ambiguous letters than this is never part of a window; 0 leaves out every one.
        least: shorter pieces are left out.
    """
    found: list[Stretch] = []
    for stretch in stretches:
        runs = _unknown_runs(genome.codes, stretch)
        begin = stretch.start
        for start, stop in runs[runs[:, 1] - runs[:, 0] > longest_unknown].tolist():
            found.append(Stretch(begin, start))
            begin = stop
        found.append(Stretch(begin, stretch.stop))
    return [stretch for stretch in found if stretch.stop - stretch.start >= least]


def _unknown_runs(codes: numpy.ndarray, stretch: Stretch) -> numpy.ndarray:
    """First place of each run of ambiguous letters and the place behind it, Int64[R 2]; piece by piece, to bound the memory."""
    edges, before = list[numpy.ndarray](), False
    for start in range(stretch.start, stretch.stop, _PIECE):
        unknown = codes[start : min(start + _PIECE, stretch.stop)] >= AMBIGUOUS
        if before != bool(unknown[0]):
            edges.append(numpy.array([start]))
        edges.append(numpy.flatnonzero(unknown[1:] != unknown[:-1]) + (start + 1))
        before = bool(unknown[-1])
    if before:
        edges.append(numpy.array([stretch.stop]))
    return numpy.concatenate([numpy.empty(0, dtype=numpy.int64), *edges]).reshape(-1, 2)


def pieces(stretch: Stretch, *, overlap: int) -> Iterator[Stretch]:
    """A stretch in pieces that share `overlap` places with the next, to bound the memory of what is computed from them."""
    for start in range(stretch.start, max(stretch.stop - overlap, stretch.start), _PIECE):
        yield Stretch(start, min(start + _PIECE + overlap, stretch.stop))
