"""A genome in memory: the base codes of all records side by side, and which stretches of them may be read.

Letters   L bases of the whole genome, R records.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy

from randommask.alphabet import AMBIGUOUS
from randommask.genome.fasta import FastaRecord, read_fasta
from scarce_common_utils.errors import UserError


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
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    codes: numpy.ndarray

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
        digest.update(numpy.ascontiguousarray(self.codes).data)
        return digest.hexdigest()[:16]


def read_genome(paths: Sequence[Path]) -> Genome:
    """Read FASTA files into one genome.

    Raises:
        UserError: as `read_fasta`; no file, no base at all, or one name in two files.
    """
    records: list[FastaRecord] = []
    origin: dict[str, Path] = {}
    for path in paths:
        for record in read_fasta(path):
            if record.name in origin:
                raise UserError(
                    f"{path}: the record {record.name!r} stands in {origin[record.name]} too. Give each record its own name."
                )
            origin[record.name] = path
            records.append(record)
    if not records:
        raise UserError(
            f"{', '.join(map(str, paths)) or 'No file'}: no record with a base was found. Give a FASTA file with DNA."
        )
    return Genome.of(records)


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
        unknown = genome.codes[stretch.start : stretch.stop] >= AMBIGUOUS
        edges = numpy.flatnonzero(numpy.diff(numpy.concatenate(([False], unknown, [False])).astype(numpy.int8)))
        runs = edges.reshape(-1, 2) + stretch.start
        begin = stretch.start
        for start, stop in runs[runs[:, 1] - runs[:, 0] > longest_unknown].tolist():
            found.append(Stretch(begin, start))
            begin = stop
        found.append(Stretch(begin, stretch.stop))
    return [stretch for stretch in found if stretch.stop - stretch.start >= least]
