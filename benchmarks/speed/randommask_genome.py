"""Rows of randommask: a genome's file to windows with ids, its time and memory; the peer writes DNABERT's k-mer text by slices."""

import gzip
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from randommask import kmer_ids
from randommask.genome.store import read_genome
from speed.rows import Row, absolute_row, in_turns

K = 6


class _Genome(NamedTuple):
    """CPU seconds of reading a 12-Mb genome into windows with ids: plain, gzipped, and into k-mer text."""

    plain: float
    gzipped: float
    text: float


def _windows_with_ids(path: Path) -> None:
    genome = read_genome([path])
    for index in range(len(genome.names)):
        start, stop = genome.record(index)
        ids = kmer_ids(genome.codes[start:stop], K)
        [ids[place : place + 510] for place in range(0, len(ids), 515)]


def _text_windows(path: Path) -> None:
    """DNABERT's route: windows as k-mers joined by blanks, no ids."""
    for record in path.read_text().split(">")[1:]:
        sequence = record.split("\n", 1)[1].replace("\n", "")
        for start in range(0, len(sequence), 515):
            window = sequence[start : start + 515]
            " ".join([window[i : i + K] for i in range(len(window) - K + 1)])


@cache
def _genome() -> _Genome:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path, packed = Path(folder) / "genome.fa", Path(folder) / "genome.fa.gz"
        lines = (12_000_000 // 16) // 60
        text = "".join(
            f">r{record}\n" + "".join(f"{''.join(draw.choices('ACGT', k=60))}\n" for _ in range(lines))
            for record in range(16)
        )
        path.write_text(text)
        packed.write_bytes(gzip.compress(text.encode(), 6))
        plain, by_text = in_turns(lambda: _windows_with_ids(path), lambda: _text_windows(path), turns=3)
        gzipped = in_turns(lambda: _windows_with_ids(packed), lambda: None, turns=3).ours
    return _Genome(plain, gzipped, by_text)


def genome_row() -> Row:
    """A plain FASTA file of 12 Mb."""
    return absolute_row(
        "a 12-Mb FASTA file to windows with ids", _genome().plain, bar=0.2, unit="CPU s", bound="at most"
    )


def packed_genome_row() -> Row:
    """The same gzipped."""
    what = "a 12-Mb gzipped FASTA file to windows with ids"
    return absolute_row(what, _genome().gzipped, bar=0.3, unit="CPU s", bound="at most")


def text_genome_row() -> Row:
    """The plain file against k-mer text, which is not yet ids."""
    found = _genome()
    what = "a 12-Mb FASTA file to windows with ids"
    return Row(what, found.plain, found.text, "k-mer text by slices", "CPU s", found.plain / found.text, 0.15)


def large_genome_row() -> Row:
    """3.1 Gb by projection from the gzipped file."""
    what = "3.1 Gb of gzipped FASTA to windows with ids, by projection"
    return absolute_row(what, _genome().gzipped * 3100 / 12, bar=120.0, unit="CPU s", bound="at most")


def genome_memory_row() -> Row:
    """Peak memory of reading 200 Mb in one record, over that before, as GB at 3.1 Gb whose longest record has 250 Mb."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom speed.pretraining_step import peak_memory\n"
        "from randommask.genome.store import read_genome\n"
        "before = peak_memory()\nread_genome([Path(sys.argv[1])])\nprint(peak_memory() - before)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with tempfile.TemporaryDirectory() as folder:
        path, found = Path(folder) / "genome.fa", list[float]()
        # A slope and a start: bytes that every base costs, once in its record and once in the genome.
        for size in (100, 200):
            line = "ACGTTGCAAC" * 6 + "\n"
            path.write_text("".join(f">r{r}\n" + line * (50_000_000 // 60) for r in range(size // 50)))
            done = subprocess.run(
                [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, env=environment
            )
            found.append(float(done.stdout) * 2**20 / 1e9)
    per_gigabase = (found[1] - found[0]) / 0.1
    # The longest record is 0.2 Gb longer, held twice on its way.
    gigabytes = found[1] + per_gigabase * (3.1 - 0.2) + 2 * 0.2
    what = "peak memory of reading 3.1 Gb, by projection from 0.1 and 0.2 Gb"
    return absolute_row(what, gigabytes, bar=4.0, unit="GB", bound="at most")


GENOME_ROWS: tuple[Callable[[], Row], ...] = (
    genome_row,
    packed_genome_row,
    text_genome_row,
    large_genome_row,
    genome_memory_row,
)
