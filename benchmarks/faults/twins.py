"""Slow twins of the readers, from the formats' definitions, with nothing of the packages: what a file holds, or where it is wrong.

FASTA     lines that begin with ">" name a record by their first word, the others are its letters (IUPAC); blanks are nothing
CSV       RFC 4180: cells by commas (or tabs), quotes around what holds a separator, a quote within quotes twice
gzip      RFC 1952, members end to end: header, deflate, CRC-32 and size; BGZF (SAM, 4.1) ends with an empty member
PNG, BMP, PPM     the W3C's chunks and filters; Windows' header and rows from below; Netpbm's P5 and P6
"""

import struct
import zlib
from typing import NamedTuple

CODES = dict(zip("ACGTURYSWKMBDHVN", "ACGTTNNNNNNNNNNN", strict=True))
END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class Bad(NamedTuple):
    """What cannot be read: the `line` where that is known, 0 where it is the whole."""

    line: int = 0


def gunzipped(raw: bytes) -> bytes | Bad:
    """What is packed, or Bad where a member is cut or damaged; bytes that are no gzip as they are."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    found, rest = b"", raw
    while rest.strip(b"\0"):
        rest = rest.lstrip(b"\0") if found or rest is not raw else rest
        body = _behind_header(rest)
        if body is None:
            return Bad()
        unpacker = zlib.decompressobj(-15)
        try:
            part = unpacker.decompress(body)
        except zlib.error:
            return Bad()
        tail = unpacker.unused_data
        if not unpacker.eof or len(tail) < 8 or struct.unpack("<II", tail[:8]) != (zlib.crc32(part), len(part) % 2**32):
            return Bad()
        found, rest = found + part, tail[8:]
    blocks = raw[:4] == b"\x1f\x8b\x08\x04" and raw[10:16] == b"\x06\0BC\x02\0"
    return Bad() if blocks and not raw.endswith(END) else found


def _behind_header(raw: bytes) -> bytes | None:
    """What follows a member's header; None where it is none or is cut."""
    if len(raw) < 10 or raw[:3] != b"\x1f\x8b\x08":
        return None
    flags, place = raw[3], 10
    if flags & 4:
        if len(raw) < place + 2:
            return None
        place += 2 + int.from_bytes(raw[place : place + 2], "little")
    for bit in (8, 16):
        if flags & bit:
            end = raw.find(b"\0", place)
            if end < 0:
                return None
            place = end + 1
    place += 2 if flags & 2 else 0
    return raw[place:] if place <= len(raw) else None


def fasta(raw: bytes) -> list[tuple[str, str]] | Bad:
    """Names and letters, U as T and ambiguous letters as N; records without a letter are passed over."""
    names, found, name = set(), [], None
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if name is None and not line.strip(b" \t\r"):
            continue
        start = line.lstrip(b" \t\r") if name is None else line
        if start.startswith(b">"):
            words = start[1:].split(None, 1)
            if not words or b"\r" in start.rstrip(b" \t\r\x0b\x0c") or words[0] in names:
                return Bad(number)
            name = words[0]
            names.add(name)
            found.append([name.decode("utf-8", "replace"), ""])
            continue
        if name is None:
            return Bad(number)
        for letter in line.translate(None, b" \t\r").decode("latin-1"):
            if letter.upper() not in CODES or not letter.isascii():
                return Bad(number)
            found[-1][1] += CODES[letter.upper()]
    return Bad() if name is None else [(name, letters) for name, letters in found if letters]


def table(raw: bytes) -> list[tuple[str, str]] | Bad:
    """Sequence in upper case and label of each row of a sound header; Bad with the line of the first row that cannot be."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Bad(1 + raw[: error.start].count(b"\n"))
    rows = _rows(text, "\t" if "\t" in text.split("\n", 1)[0] else ",")
    if not rows:
        return Bad()
    header = [cell.strip() for cell in rows[0][1]]
    if header.count("sequence") != 1 or header.count("label") != 1:
        return Bad()
    found = []
    for line, cells in rows[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            return Bad(line)
        sequence, label = ((cells + [""] * len(header))[header.index(name)].strip() for name in ("sequence", "label"))
        if not sequence or not label or any(letter not in CODES for letter in sequence.upper()):
            return Bad(line)
        found.append((sequence.upper(), label))
    return found or Bad()


def _rows(text: str, comma: str) -> list[tuple[int, list[str]]]:
    """Cells of each row with the line that it ends in. A quote opens a cell at its beginning alone; CR, LF and CRLF end lines."""
    rows, cells, cell, quoted, was, line, place = [], [], "", False, False, 1, 0
    while place < len(text):
        sign = text[place]
        place += 1
        if quoted:
            if sign == '"' and text[place : place + 1] == '"':
                cell, place = cell + '"', place + 1
            elif sign == '"':
                quoted = False
            else:
                cell += sign
                line += sign == "\n" or (sign == "\r" and text[place : place + 1] != "\n")
        elif sign == '"' and not cell and not was:
            quoted = was = True
        elif sign == comma:
            cells, cell, was = [*cells, cell], "", False
        elif sign in "\r\n":
            place += sign == "\r" and text[place : place + 1] == "\n"
            rows.append((line, [*cells, cell] if cells or cell or was else []))
            cells, cell, was, line = [], "", False, line + 1
        else:
            cell += sign
    if cells or cell or was:
        rows.append((line - (quoted and text.endswith(("\n", "\r"))), [*cells, cell]))  # a quote that nothing closes
    return rows


class Picture(NamedTuple):
    """Pixels: `rows` of `height` x `width` x `channels` bytes."""

    height: int
    width: int
    channels: int
    rows: bytes


def picture(raw: bytes) -> Picture | Bad | None:
    """The pixels of a PNG, BMP or PPM; Bad where it is cut or damaged; None of a kind that this twin does not know."""
    if raw[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(raw[8:])
    if raw[:2] == b"BM":
        return _bmp(raw)
    return _ppm(raw) if raw[:2] in (b"P5", b"P6") else None


def _png(raw: bytes) -> Picture | Bad | None:
    head, data, place, ended = None, b"", 0, False
    while place < len(raw) and not ended:
        size, kind = int.from_bytes(raw[place : place + 4], "big"), raw[place + 4 : place + 8]
        body, check = raw[place + 8 : place + 8 + size], raw[place + 8 + size : place + 12 + size]
        if len(check) < 4 or zlib.crc32(kind + body) != int.from_bytes(check, "big"):
            return Bad()
        head, data, ended = (
            body if kind == b"IHDR" else head,
            data + (body if kind == b"IDAT" else b""),
            kind == b"IEND",
        )
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            return None
        place += 12 + size
    if head is None or len(head) != 13 or not ended:
        return Bad()
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", head)
    if (depth, *rest) != (8, 0, 0, 0) or kind not in (0, 2):
        return None
    channels = 3 if kind == 2 else 1
    try:
        lines = zlib.decompress(data)
    except zlib.error:
        return Bad()
    stride, found, above = width * channels, b"", bytes(width * channels)
    if len(lines) < height * (stride + 1) or width * height == 0:
        return Bad()
    for row in range(height):
        line = lines[row * (stride + 1) : (row + 1) * (stride + 1)]
        if line[0] > 4:
            return Bad()
        above = _unfiltered(line[0], line[1:], above, channels)
        found += above
    return Picture(height, width, channels, found)


def _unfiltered(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    found = bytearray()
    for place, value in enumerate(line):
        left = found[place - channels] if place >= channels else 0
        corner = above[place - channels] if place >= channels else 0
        up = above[place]
        guess = min((left, up, corner), key=lambda one, p=left + up - corner: abs(p - one))
        found.append((value + (0, left, up, (left + up) // 2, guess)[kind]) % 256)
    return bytes(found)


def _bmp(raw: bytes) -> Picture | Bad | None:
    if len(raw) < 54:
        return Bad()
    start, size, width, height, planes, bits, packing = struct.unpack("<I I i i H H I", raw[10:34])
    if (size, planes, bits, packing) != (40, 1, 24, 0) or width <= 0 or height <= 0 or start < 54:
        return None
    stride, rows = (width * 3 + 3) // 4 * 4, []
    for row in reversed(range(height)):
        line = raw[start + row * stride : start + row * stride + width * 3]
        if len(line) < width * 3:
            return Bad()
        rows.append(b"".join(line[place : place + 3][::-1] for place in range(0, len(line), 3)))
    return Picture(height, width, 3, b"".join(rows))


def _ppm(raw: bytes) -> Picture | Bad | None:
    words, place, channels = [], 2, 3 if raw[1:2] == b"6" else 1
    while len(words) < 3:
        while raw[place : place + 1].isspace():
            place += 1
        end = place
        while raw[end : end + 1].isdigit():
            end += 1
        if end == place:
            return None if place < len(raw) else Bad()
        words.append(int(raw[place:end]))
        place = end
    width, height, most = words
    if most != 255 or not raw[place : place + 1].isspace() or width * height == 0:
        return None
    body = raw[place + 1 : place + 1 + width * height * channels]
    return Bad() if len(body) < width * height * channels else Picture(height, width, channels, body)
