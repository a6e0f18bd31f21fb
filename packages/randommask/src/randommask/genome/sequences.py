"""Sequences to look at one by one: the records of a FASTA file, or the rows of a table, from a path or from standard input.

The kind is known by the content: what begins with ">" is FASTA, everything else CSV, TSV or parquet, packed or not. Letters come in
upper case; of a FASTA file U comes as T and every ambiguous letter as N.
"""

import io
import sys
from pathlib import Path
from typing import Final, NamedTuple

from randommask.alphabet import bases
from randommask.data.tables import decompressed, sequence_rows
from randommask.genome.fasta import records_in
from scarce_common_utils.errors import UserError

STANDARD: Final = Path("-")  # standard input, or output
_WANTED: Final = "a FASTA file, or a CSV, TSV or parquet file"


class Sequences(NamedTuple):
    """`names` of N sequences (records of FASTA, row numbers from 1 of a table without names) and their `letters`."""

    names: list[str]
    letters: list[str]


def read_sequences(path: Path, *, sequence_column: str = "sequence", name_column: str | None = None) -> Sequences:
    """Read all sequences of a file.

    Args:
        path: FASTA, CSV, TSV or parquet, packed or not; `-` is standard input.
        sequence_column: of a table.
        name_column: of a table.

    Raises:
        UserError: as `read_fasta` and `read_table`; no sequence at all, or a column named for a FASTA file.
    """
    given = sys.stdin.buffer.read() if path == STANDARD else None
    path = Path("standard input") if path == STANDARD else path
    raw = decompressed(path, given, wanted=_WANTED)
    if raw.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith(b">"):
        if name_column is not None:
            raise UserError(
                f"--name-column is {name_column!r}, but {path} is FASTA, whose records have names. Leave it out."
            )
        found = [(record.name, bases(record.codes)) for record in records_in(io.BytesIO(raw), path=path)]
    else:
        found = list(sequence_rows(path, raw, sequence_column=sequence_column, name_column=name_column))
    if not found:
        raise UserError(f"{path} holds no sequence. Give {_WANTED} with at least one.")
    return Sequences([name for name, _ in found], [letters for _, letters in found])
