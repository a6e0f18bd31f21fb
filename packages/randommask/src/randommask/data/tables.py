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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from randommask.alphabet import FOREIGN, base_codes
from randommask.data.block_gzip import lacks_end
from scarce_common_utils.errors import UserError
from scarce_common_utils.unpacking import refuse_bomb, refuse_parquet_bomb

_PARQUET: Final = b"PAR1"
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_PIECE: Final = 1 << 20  # bytes unpacked at a time
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
    columns = {"sequence": sequence_column, "label": label_column}
    table = Table([], [])
    for place, cells in _rows(path, decompressed(path), columns):
        table.sequences.append(checked_letters(path, place, cells["sequence"], column=sequence_column))
        table.labels.append(_filled(path, place, cells["label"], column=label_column))
    if not table.labels:
        raise UserError(f"{path} has a header and no rows. Give a table with labelled sequences.")
    return table


def sequence_rows(
    path: Path, raw: bytes, *, sequence_column: str, name_column: str | None = None
) -> Iterator[tuple[str, str]]:
    """Name and upper-case letters of each row of a table without labels; a row's number, from 1, where no column names it.

    Args:
        path: of the file, for errors.
        raw: its bytes, decompressed.
        sequence_column: name of the column of letters.
        name_column: name of the column of names.

    Raises:
        UserError: as `read_table`, the labels apart.
    """
    columns = {"sequence": sequence_column} | ({} if name_column is None else {"name": name_column})
    for number, (place, cells) in enumerate(_rows(path, raw, columns), 1):
        letters = checked_letters(path, place, cells["sequence"], column=sequence_column)
        yield (str(number) if name_column is None else _filled(path, place, cells["name"], column=name_column)), letters


def _rows(path: Path, raw: bytes, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Place ("line 3", of parquet "row 3") and the cells of each row, by kind of column."""
    return _parquet_rows(path, raw, columns) if raw.startswith(_PARQUET) else _text_rows(path, raw, columns)


def _text_rows(path: Path, raw: bytes, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV or TSV; empty lines are passed over."""
    text = _decoded(path, raw)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ",")
    try:
        header = [name.strip() for name in next(lines, [])]
        _refuse_data_as_header(path, header, names=list(columns.values()))
        places = {kind: _column(path, header, name, kind) for kind, name in columns.items()}
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(header):
                raise UserError(
                    f"{path}, line {lines.line_num}: the row has {len(row)} cells, but the header line has {len(header)}. Put a "
                    "cell that holds the separator in quotes, or take out what is too much."
                )
            cells = {kind: row[column] if column < len(row) else "" for kind, column in places.items()}
            yield f"line {lines.line_num}", cells
    except csv.Error as error:
        raise UserError(
            f"{path}, line {lines.line_num}: no CSV ({error}). Give a comma- or tab-separated table."
        ) from error


def _parquet_rows(path: Path, raw: bytes, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a parquet file, numbered from 1."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"{path} is a parquet file, which pyarrow reads. Install it: pip install 'randommask[parquet]'"
        ) from error
    try:
        refuse_parquet_bomb(path, io.BytesIO(raw), packed=len(raw))
        file = parquet.ParquetFile(io.BytesIO(raw))
        header = list(file.schema_arrow.names)
        for kind, name in columns.items():
            _column(path, header, name, kind)
        values = file.read(columns=list(dict.fromkeys(columns.values()))).to_pydict()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged: no parquet ({str(error).splitlines()[0]}). Make it again.") from error
    for number, cells in enumerate(zip(*(values[name] for name in columns.values()), strict=True), 1):
        texts = ("" if cell is None else str(cell) for cell in cells)
        yield f"row {number}", dict(zip(columns, texts, strict=True))


def decompressed(path: Path, packed: bytes | None = None, *, wanted: str = "a CSV, TSV or parquet file") -> bytes:
    """Bytes of a file, plain or packed by gzip (blocks too), bzip2 or xz; known by the first bytes.

    Args:
        path: of the file.
        packed: its bytes where they are read already, as from standard input.
        wanted: what a person should give, for errors.

    Raises:
        UserError: the file is missing, a folder, empty, damaged, cut short, packed by zstd, or unpacks to over 100 times its size
            (and 256 MiB).
    """
    if packed is None and path.is_dir():
        raise UserError(f"{path} is a folder. Name {wanted}.")
    kind = ""
    try:
        raw = path.read_bytes() if packed is None else packed
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
            kind = _COMPRESSED[magic]
            raw = _unpacked(path, raw, kind)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Give the path of {wanted}.") from error
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
        raise UserError(f"{path} is empty. Give {wanted} with at least one row.")
    return raw


def _unpacked(path: Path, raw: bytes, kind: str) -> bytes:
    """All that is packed, piece by piece, so that what was made to fill the memory is refused before it does."""
    pieces, size = [], 0
    for piece in _gunzipped(raw) if kind == "gzip" else _streams(raw, kind):
        size += len(piece)
        refuse_bomb(path, packed=len(raw), unpacked=size)
        pieces.append(piece)
    return b"".join(pieces)


def _gunzipped(raw: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        while piece := file.read(_PIECE):
            yield piece


def _streams(raw: bytes, kind: str) -> Iterator[bytes]:
    """Streams of bzip2 or xz end to end; what is behind one, padding apart, has to be one: Python's own readers would drop it."""
    view, place = memoryview(raw), 0
    while place < len(view):
        unpacker = bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor()
        while not unpacker.eof:
            more = view[place : place + _PIECE] if unpacker.needs_input else b""
            if unpacker.needs_input and not more:
                raise EOFError(f"{kind} without its end")
            place += len(more)
            yield unpacker.decompress(more, _PIECE)
        place -= len(unpacker.unused_data)
        while place < len(view) and view[place] == 0:
            place += 1


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + raw[: error.start].count(b"\n")
        raise UserError(f"{path}, line {line}: no text in UTF-8. Give a CSV or TSV file.") from error


def _refuse_data_as_header(path: Path, header: Sequence[str], *, names: Sequence[str]) -> None:
    """A file without a header would lose its first row, or be told to name a column that it does not have."""
    if not set(names) <= set(header) and any(_DNA.fullmatch(cell) for cell in header):
        raise UserError(f"The first line of {path} seems to be data; add a header line such as {','.join(names)}.")


def _column(path: Path, header: Sequence[str], name: str, kind: str) -> int:
    if header.count(name) > 1:
        raise UserError(f"{path} has {header.count(name)} columns {name!r}. Rename all but one of them.")
    if name in header:
        return header.index(name)
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    hint = f"--{kind}-column {near[0]}" if near and near[0].isprintable() else f"--{kind}-column NAME"
    found = ", ".join(repr(column[:30]) for column in header[:6])
    raise UserError(
        f"{path} has no column {name!r}; its header line has {found}. Name the column of {kind}s by {hint}."
    )


def _filled(path: Path, place: str, cell: str, *, column: str) -> str:
    value = cell.strip()
    if not value:
        raise UserError(f"{path}, {place}: the column {column!r} is empty. Fill it in, or take the row out.")
    return value


def checked_letters(path: Path, place: str, cell: str, *, column: str) -> str:
    """Upper-case letters of a cell.

    Raises:
        UserError: it is empty or holds a letter of no nucleotide; file and place are named.
    """
    sequence = _filled(path, place, cell, column=column).upper()
    codes = base_codes(sequence)
    if codes.max() >= FOREIGN:
        letter = sequence[int((codes >= FOREIGN).argmax())]
        raise UserError(
            f"{path}, {place}: {letter!r} is no letter of DNA (A, C, G, T, U, N and the IUPAC letters). "
            "Give nucleotide sequences."
        )
    return sequence
