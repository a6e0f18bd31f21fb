"""Tables of labelled sequences: CSV or TSV, gzipped or not, with one column of letters and one of labels.

Errors name file and line. Letters are checked here, so that a table of proteins is refused before any training.
"""

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from randommask.alphabet import FOREIGN, base_codes
from scarce_common_utils.errors import UserError

_GZIP: Final = b"\x1f\x8b"
_DNA: Final = re.compile("[ACGTUN]{8,}", re.IGNORECASE)  # shorter ones, such as "tag" and "act", may be names


class Table(NamedTuple):
    """Rows of one file: `sequences` in upper case and `labels` as they are written, of equal length."""

    sequences: list[str]
    labels: list[str]


def read_table(path: Path, *, sequence_column: str = "sequence", label_column: str = "label") -> Table:
    """Read a table.

    Args:
        path: CSV, or TSV where the header line holds a tab; gzip is recognised by its first bytes.
        sequence_column: name of the column of letters.
        label_column: name of the column of labels.

    Raises:
        UserError: the file is missing or cannot be read, the header line is one of data, a column is missing, a row has no
            sequence, no label, more cells than the header or letters of no nucleotide; file and line are named.
    """
    lines = csv.reader(
        io.StringIO(text := _text(path), newline=""), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ","
    )
    try:
        header = [name.strip() for name in next(lines, [])]
        _refuse_data_as_header(path, header, names=(sequence_column, label_column))
        columns = [
            _column(path, header, name, flag) for name, flag in ((sequence_column, "sequence"), (label_column, "label"))
        ]
        table = Table([], [])
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(header):
                raise UserError(
                    f"{path}, line {lines.line_num}: the row has {len(row)} cells, but the header line has {len(header)}. Put a "
                    "cell that holds the separator in quotes, or take out what is too much."
                )
            sequence, label = _cells(path, lines.line_num, row, columns, names=(sequence_column, label_column))
            table.sequences.append(sequence)
            table.labels.append(label)
    except csv.Error as error:
        raise UserError(
            f"{path}, line {lines.line_num}: no CSV ({error}). Give a comma- or tab-separated table."
        ) from error
    if not table.labels:
        raise UserError(f"{path} has a header and no rows. Give a table with labelled sequences.")
    return table


def _text(path: Path) -> str:
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name a CSV or TSV file.")
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Give the path of a CSV or TSV file.") from error
    except EOFError as error:
        raise UserError(f"{path} ends within a gzip stream, so it was cut short. Download or copy it again.") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is damaged: its gzip stream cannot be read ({error}). Download or copy it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not raw.strip():
        raise UserError(f"{path} is empty. Give a CSV or TSV file with a header line.")
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
    if name in header:
        return header.index(name)
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    hint = f"--{kind}-column {near[0]}" if near else f"--{kind}-column NAME"
    found = ", ".join(repr(column[:30]) for column in header[:6])
    raise UserError(
        f"{path} has no column {name!r}; its header line has {found}. Name the column of {kind}s by {hint}."
    )


def _cells(
    path: Path, line: int, row: Sequence[str], columns: Sequence[int], *, names: tuple[str, str]
) -> Iterator[str]:
    for column, name in zip(columns, names, strict=True):
        value = row[column].strip() if column < len(row) else ""
        if not value:
            raise UserError(f"{path}, line {line}: the column {name!r} is empty. Fill it in, or take the row out.")
        if column == columns[0]:
            value = value.upper()
            codes = base_codes(value)
            if codes.max() >= FOREIGN:
                letter = value[int((codes >= FOREIGN).argmax())]
                raise UserError(
                    f"{path}, line {line}: {letter!r} is no letter of DNA (A, C, G, T, U, N and the IUPAC letters). "
                    "Give nucleotide sequences."
                )
        yield value
