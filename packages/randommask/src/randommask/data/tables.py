"""Tables of labelled sequences: CSV, TSV or parquet, compressed or not, with one column of letters and one of labels.

Errors name file and line (of a parquet file the row). Letters are checked here, so that a table of proteins is refused before any
training. Kinds are known by a file's first bytes, not by its name.
"""

import bz2
import csv
import difflib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from randommask.alphabet import FOREIGN, base_codes
from randommask.data.block_gzip import lacks_end
from scarce_common_utils.errors import UserError

_PARQUET: Final = b"PAR1"
_COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ": ("xz", lzma.decompress),
}
_ZSTANDARD: Final = b"\x28\xb5\x2f\xfd"
_DNA: Final = re.compile("[ACGTUN]{8,}", re.IGNORECASE)  # shorter ones, such as "tag" and "act", may be names


class Table(NamedTuple):
    """Rows of one file: `sequences` in upper case and `labels` as they are written, of equal length."""

    sequences: list[str]
    labels: list[str]

    def rows(self, chosen: Sequence[int]) -> "Table":
        """Some of the rows, in the order given."""
        return Table([self.sequences[row] for row in chosen], [self.labels[row] for row in chosen])


def read_table(path: Path, *, sequence_column: str = "sequence", label_column: str = "label") -> Table:
    """Read a table.

    Args:
        path: parquet, CSV, or TSV where the header line holds a tab; gzip, bzip2 and xz are read through.
        sequence_column: name of the column of letters.
        label_column: name of the column of labels.

    Raises:
        UserError: the file is missing or cannot be read, the header line is one of data, a column is missing, a row has no
            sequence, no label, more cells than the header or letters of no nucleotide; file and line are named.
    """
    names = (sequence_column, label_column)
    raw = _raw(path)
    table = Table([], [])
    for place, cells in _parquet_rows(path, raw, names) if raw.startswith(_PARQUET) else _text_rows(path, raw, names):
        sequence, label = _checked(path, place, cells, names=names)
        table.sequences.append(sequence)
        table.labels.append(label)
    if not table.labels:
        raise UserError(f"{path} has a header and no rows. Give a table with labelled sequences.")
    return table


def _text_rows(path: Path, raw: bytes, names: tuple[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Place ("line 3") and both cells of each row of a CSV or TSV; empty lines are passed over."""
    text = _decoded(path, raw)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ",")
    try:
        header = [name.strip() for name in next(lines, [])]
        _refuse_data_as_header(path, header, names=names)
        columns = [_column(path, header, name, flag) for name, flag in zip(names, ("sequence", "label"), strict=True)]
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(header):
                raise UserError(
                    f"{path}, line {lines.line_num}: the row has {len(row)} cells, but the header line has {len(header)}. Put a "
                    "cell that holds the separator in quotes, or take out what is too much."
                )
            yield f"line {lines.line_num}", [row[column] if column < len(row) else "" for column in columns]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {lines.line_num}: no CSV ({error}). Give a comma- or tab-separated table."
        ) from error


def _parquet_rows(path: Path, raw: bytes, names: tuple[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Place ("row 3", from 1) and both cells of each row of a parquet file."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"{path} is a parquet file, which pyarrow reads. Install it: pip install 'randommask[parquet]'"
        ) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(raw))
        header = list(file.schema_arrow.names)
        for name, flag in zip(names, ("sequence", "label"), strict=True):
            _column(path, header, name, flag)
        columns = file.read(columns=list(dict.fromkeys(names))).to_pydict()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged: no parquet ({str(error).splitlines()[0]}). Make it again.") from error
    for number, cells in enumerate(zip(*(columns[name] for name in names), strict=True), 1):
        yield f"row {number}", ["" if cell is None else str(cell) for cell in cells]


def _raw(path: Path) -> bytes:
    """Bytes of the file, decompressed."""
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name a CSV, TSV or parquet file.")
    kind = ""
    try:
        raw = path.read_bytes()
        if raw.startswith(_ZSTANDARD):
            raise UserError(
                f"{path} is compressed by zstd, which is not read here. Give it plain, or as gzip, bzip2 or xz."
            )
        if lacks_end(raw, raw):
            raise UserError(
                f"{path} is gzip in blocks (bgzip) without its end block, so it was cut short. Download or copy it again."
            )
        magic = next((magic for magic in _COMPRESSED if raw.startswith(magic)), None)
        if magic is not None:
            kind, opened = _COMPRESSED[magic]
            raw = opened(raw)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Give the path of a CSV or TSV file.") from error
    except EOFError as error:
        raise UserError(
            f"{path} ends within a {kind} stream, so it was cut short. Download or copy it again."
        ) from error
    except (zlib.error, gzip.BadGzipFile, lzma.LZMAError, ValueError) as error:
        reason = str(error)
        if "end-of-stream" in reason:  # what bz2 and lzma say of a file that was cut
            raise UserError(
                f"{path} ends within a {kind} stream, so it was cut short. Download or copy it again."
            ) from error
        raise UserError(
            f"{path} is damaged: its {kind} stream cannot be read ({reason}). Download or copy it again."
        ) from error
    except OSError as error:
        if kind and error.errno is None:
            raise UserError(
                f"{path} is damaged: its {kind} stream cannot be read ({error}). Download or copy it again."
            ) from error
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not raw.strip():
        raise UserError(f"{path} is empty. Give a CSV or TSV file with a header line.")
    return raw


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + raw[: error.start].count(b"\n")
        raise UserError(f"{path}, line {line}: no text in UTF-8. Give a CSV or TSV file.") from error


def _refuse_data_as_header(path: Path, header: Sequence[str], *, names: tuple[str, str]) -> None:
    """A file without a header would lose its first row, or be told to name a column that it does not have."""
    if not set(names) <= set(header) and any(_DNA.fullmatch(cell) for cell in header):
        raise UserError(f"The first line of {path} seems to be data; add a header line such as {','.join(names)}.")


def _column(path: Path, header: Sequence[str], name: str, kind: str) -> int:
    if header.count(name) > 1:
        raise UserError(f"{path} has {header.count(name)} columns {name!r}. Rename all but one of them.")
    if name in header:
        return header.index(name)
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    hint = f"--{kind}-column {near[0]}" if near else f"--{kind}-column NAME"
    found = ", ".join(repr(column[:30]) for column in header[:6])
    raise UserError(
        f"{path} has no column {name!r}; its header line has {found}. Name the column of {kind}s by {hint}."
    )


def _checked(path: Path, place: str, cells: Sequence[str], *, names: tuple[str, str]) -> tuple[str, str]:
    """Upper-case letters and label of a row."""
    sequence, label = (cell.strip() for cell in cells)
    for value, name in ((sequence, names[0]), (label, names[1])):
        if not value:
            raise UserError(f"{path}, {place}: the column {name!r} is empty. Fill it in, or take the row out.")
    sequence = sequence.upper()
    codes = base_codes(sequence)
    if codes.max() >= FOREIGN:
        letter = sequence[int((codes >= FOREIGN).argmax())]
        raise UserError(
            f"{path}, {place}: {letter!r} is no letter of DNA (A, C, G, T, U, N and the IUPAC letters). "
            "Give nucleotide sequences."
        )
    return sequence, label
