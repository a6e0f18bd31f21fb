"""FASTA files to records of base codes: plain, gzip or block gzip, read in pieces, errors with file and line.

    >name description
    ACGTNacgtn...

A name is the first word behind ">". Lower case (soft-masking) is the same base. Letters outside the IUPAC nucleotide alphabet
are refused: most often the file holds proteins.

Letters   L bases of a record.
"""

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Final, NamedTuple

import numpy

from randommask.alphabet import FOREIGN, base_codes
from randommask.data.block_gzip import END_BLOCK, HEAD, lacks_end
from scarce_common_utils.errors import UserError
from scarce_common_utils.unpacking import Measured

_PIECE: Final = 1 << 24  # bytes read at a time
_GZIP: Final = b"\x1f\x8b"
_BLANKS: Final = b" \t\r\n"


class FastaRecord(NamedTuple):
    """One sequence: its `name` and base `codes` UInt8[L]."""

    name: str
    codes: numpy.ndarray


def read_fasta(path: Path, *, keep_soft_masked: bool = True) -> Iterator[FastaRecord]:
    """Records of a FASTA file, in order; records without a letter are passed over.

    Args:
        path: the file; gzip (plain or block) is recognised by its first bytes, not by its name.
        keep_soft_masked: whether lower case is the same base, or ambiguous.

    Raises:
        UserError: the file is missing, a folder, empty, no FASTA, has CR alone at line ends, holds letters of no
            nucleotide, ends within a gzip stream or without block gzip's end, unpacks to over 100 times its size (and 256 MiB),
            or names two records alike; file and line are named.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name the FASTA files in it, such as {path / '*.fa'}.")
    try:
        packed = _is_gzip(path)
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            bounded = Measured(file, path=path, packed=path.stat().st_size) if packed else file
            yield from records_in(bounded, path=path, keep_soft_masked=keep_soft_masked)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Give the path of a FASTA file.") from error
    except EOFError as error:
        raise UserError(f"{path} ends within a gzip stream, so it was cut short. Download or copy it again.") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is damaged: its gzip stream cannot be read ({error}). Download or copy it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _is_gzip(path: Path) -> bool:
    """Whether the file is gzip; one in blocks that lacks its end block is refused."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if not head.startswith(_GZIP):
            return False
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(END_BLOCK)))
        if lacks_end(head, file.read()):
            raise UserError(
                f"{path} is gzip in blocks (bgzip) without its end block, so it was cut short. Download or copy it again."
            )
        return True


def records_in(file: BufferedIOBase, *, path: Path, keep_soft_masked: bool = True) -> Iterator[FastaRecord]:
    """Records of an open FASTA file, decompressed; `path` is named in errors. See `read_fasta`."""
    name, pieces, names = None, list[numpy.ndarray](), dict[str, int]()
    line = 1  # of the piece's first byte
    fresh = True  # whether the piece begins a line
    for piece in _whole_lines(file):
        start = 0
        if name is None:
            start = len(piece) - len(piece.removeprefix(b"\xef\xbb\xbf").lstrip(_BLANKS))
            if start < len(piece) and piece[start : start + 1] != b">":
                first = piece[start : start + 20].split(b"\n")[0].decode("ascii", "replace")
                raise UserError(
                    f"{path}, line {line + piece.count(10, 0, start)}: a FASTA file begins with '>', this one with {first!r}. "
                    "Give a FASTA file, plain or gzipped."
                )
        while start < len(piece):
            if piece[start : start + 1] == b">" and (fresh or start):
                if name is not None:
                    yield from _record(name, pieces)
                stop = _or_end(piece.find(b"\n", start), piece)
                at = line + piece.count(10, 0, start)
                if b"\r" in piece[start:stop].rstrip():
                    raise UserError(
                        f"{path}, line {at}: the line ends of old Macs (CR alone) stand in it, so letters would be taken for a "
                        "name. Convert the file to LF."
                    )
                words = piece[start + 1 : stop].split(None, 1)
                if not words:
                    raise UserError(f"{path}, line {at}: a record has no name behind '>'. Give it one.")
                name, pieces = words[0].decode("utf-8", "replace"), []
                if name in names:
                    raise UserError(
                        f"{path}, line {at}: the name {name!r} stands in line {names[name]} too. Give each record its own name."
                    )
                names[name] = at
                start = stop
            else:
                stop = _or_end(piece.find(b"\n>", start) + 1, piece)
                at = line + piece.count(10, 0, start)
                pieces.append(_codes(piece[start:stop], path=path, line=at, keep_soft_masked=keep_soft_masked))
                start = stop
        line += piece.count(10)
        fresh = piece.endswith(b"\n")
    if name is None:
        raise UserError(f"{path} is empty. Give a FASTA file with at least one record.")
    yield from _record(name, pieces)


def _whole_lines(file: BufferedIOBase) -> Iterator[bytes]:
    """Pieces of the file that end with a line break; only a line of letters, which may hold a chromosome, comes in parts."""
    rest, first, fresh = b"", True, True
    while piece := file.read(_PIECE):
        rest += piece
        cut = rest.rfind(b"\n") + 1
        if cut == 0 and not first and not (fresh and rest.startswith(b">")) and len(rest) >= _PIECE:
            cut = len(rest)
        if cut:
            yield rest[:cut]
            fresh = rest[cut - 1 : cut] == b"\n"
            rest, first = rest[cut:], False
    if rest:
        yield rest


def _or_end(place: int, piece: bytes) -> int:
    return place if place > 0 else len(piece)


def _record(name: str, pieces: Sequence[numpy.ndarray]) -> Iterator[FastaRecord]:
    codes = pieces[0] if len(pieces) == 1 else numpy.concatenate([numpy.empty(0, dtype=numpy.uint8), *pieces])
    if codes.size:
        yield FastaRecord(name, codes)


def _codes(letters: bytes, *, path: Path, line: int, keep_soft_masked: bool) -> numpy.ndarray:
    codes = base_codes(letters.translate(None, _BLANKS), keep_soft_masked=keep_soft_masked)
    if codes.size and codes.max() >= FOREIGN:
        raise _foreign(letters, path=path, line=line)
    return codes


def _foreign(letters: bytes, *, path: Path, line: int) -> UserError:
    for number, text in enumerate(letters.split(b"\n"), line):
        codes = base_codes(text.translate(None, _BLANKS))
        if codes.size and codes.max() >= FOREIGN:
            letter = chr(text.translate(None, _BLANKS)[int(numpy.argmax(codes >= FOREIGN))])
            return UserError(
                f"{path}, line {number}: {letter!r} is no letter of DNA (A, C, G, T, U, N and the IUPAC letters), so this may be "
                "a protein file. Give nucleotide sequences."
            )
    raise AssertionError("a foreign letter was seen and is gone")
