"""Made-up files for the fuzz, sound and harmed in every way a file comes harmed, from random numbers."""

import bz2
import gzip
import io
import lzma
import struct
import zlib
from random import Random

from faults.pictures import png
from faults.twins import END

NAMES = ["chr1", "chr2", "chrX", "a|b", "contig 7", "", "ü", "chr1 again"]
LETTERS = ["ACGT"] * 6 + ["acgtn", "ACGTN", "ACGTURYSWKMBDHVN", "ACGU", "MKVLAAGE", "ACGT-*", "AC GT\t", "ACGT;5"]
BREAKS = [b"\n"] * 5 + [b"\r\n", b"\n\n", b"\r", b"\n\r"]
CELLS = [
    "",
    "  ",
    "nan",
    "inf",
    "-1",
    "1e999",
    "x" * 300,
    '"',
    "0,1",
    "é",
    "\x00",
    "positive",
    '"a\nb"',
    '"AC""GT"',
    '"ACGT"',
]


def block_gzip(content: bytes, *, size: int) -> list[bytes]:
    """Members of a block gzip file by its definition (SAM, section 4.1), and the empty one at its end."""
    found = []
    for start in range(0, len(content), size):
        part = content[start : start + size]
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(part) + packer.flush()
        extra = b"BC" + struct.pack("<HH", 2, 18 + len(packed) + 8 - 1)
        found.append(
            struct.pack("<4BIBBH", 0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6)
            + extra
            + packed
            + struct.pack("<II", zlib.crc32(part), len(part))
        )
    return [*found, END]


def harmed(draw: Random, raw: bytes, *, often: float) -> bytes:
    """Cut, flipped, filled with zeros or noise, said twice, gone on with, or as it was."""
    if draw.random() >= often or not raw:
        return raw
    place = draw.randrange(len(raw))
    kind = draw.choice(["cut", "flip", "zeros", "noise", "twice", "tail"])
    if kind == "cut":
        return raw[:place]
    if kind == "flip":
        return raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :]
    if kind == "zeros":
        return raw[:place] + bytes(draw.randint(1, 9)) + raw[place:]
    if kind == "noise":
        return raw[:place] + draw.randbytes(draw.randint(1, 40)) + raw[place:]
    return raw + raw[place:] if kind == "twice" else raw + draw.randbytes(draw.randint(1, 30))


def packed(draw: Random, raw: bytes) -> bytes:
    """Plain, by gzip in one member, in two, or in blocks."""
    kind, cut = draw.choice(["plain", "plain", "gzip", "members", "blocks"]), draw.randint(0, len(raw))
    if kind == "members":
        return gzip.compress(raw[:cut], 1, mtime=0) + gzip.compress(raw[cut:], 1, mtime=0)
    if kind == "blocks":
        return b"".join(block_gzip(raw, size=draw.choice([5, 64, 65280])))
    return raw if kind == "plain" else gzip.compress(raw, 1, mtime=0)


def fasta(draw: Random) -> bytes:
    """A FASTA file, maybe packed, maybe harmed before and after."""
    parts = [b"\xef\xbb\xbf"] if draw.random() < 0.1 else []
    if draw.random() < 0.1:
        parts.append(
            draw.choice([b"\n", b" \n\t\n", b"ACGT\n", b"@read\nACGT\n", b"\x00", b">", b"<html>\n", b";comment\n"])
        )
    for record in range(draw.choice([0, 1, 1, 2, 3, 5])):
        end = draw.choice(BREAKS)
        name = draw.choice(NAMES) if draw.random() < 0.4 else f"r{record}"
        parts.append(b">" + name.encode() + end)
        text = "".join(draw.choices(draw.choice(LETTERS), k=draw.choice([0, 1, 2, 7, 60, 61, 200]))).encode()
        width = draw.choice([1, 3, 60, 1000]) if len(text) < 100 else 60
        parts += [text[start : start + width] + end for start in range(0, len(text), width)]
    raw = b"".join(parts)
    raw = raw.rstrip(b"\r\n") if draw.random() < 0.3 else raw
    return harmed(draw, packed(draw, harmed(draw, raw, often=0.1)), often=0.3)


def rows(draw: Random) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a sound table."""
    header = ["sequence", "label", *(["extra"] if draw.random() < 0.3 else [])]
    draw.shuffle(header)
    count = draw.choice([1, 2, 5, 12])
    letters = ("".join(draw.choices("ACGTacgtNU", k=draw.choice([1, 5, 40]))) for _ in range(count))
    return header, [{"sequence": text, "label": str(draw.randrange(3)), "extra": "e"} for text in letters]


def table(draw: Random) -> bytes:
    """A CSV or TSV, maybe with odd cells, quotes and line breaks, maybe harmed."""
    comma, end = draw.choice([",", ",", "\t"]), draw.choice(["\n", "\n", "\r\n"])
    header, content = rows(draw)
    lines = [comma.join(header), *(comma.join(row[name] for name in header) for row in content)]
    for _ in range(draw.choice([0, 0, 1, 2])):
        at = draw.randrange(len(lines))
        cells = lines[at].split(comma)
        cells[draw.randrange(len(cells))] = draw.choice([*CELLS, "MKVLAAGE", "AC-GT", ""])
        lines[at] = comma.join(cells + draw.choices(CELLS, k=draw.choice([0, 0, 0, 1])))
    text = end.join(lines) + (end if draw.random() < 0.7 else "")
    raw = (b"\xef\xbb\xbf" if draw.random() < 0.1 else b"") + text.encode("utf-8" if draw.random() < 0.97 else "utf-16")
    raw = harmed(draw, raw, often=0.1)
    return harmed(draw, packed(draw, raw), often=0.3)


def packed_twice(draw: Random, raw: bytes) -> tuple[bytes, bytes]:
    """The same by bzip2 or xz, one stream or two; and it harmed."""
    pack = draw.choice([bz2.compress, lambda part: lzma.compress(part, preset=0)])
    cut = draw.choice([0, len(raw) // 2])
    whole = pack(raw[cut:]) if not cut else pack(raw[:cut]) + pack(raw[cut:])
    return whole, harmed(draw, whole, often=0.8)


def small_picture(draw: Random) -> tuple[str, bytes]:
    """Ending and bytes of a picture of few pixels: PNG in any filter, BMP, PPM, PGM by their definitions."""
    width, height, kind = draw.randint(1, 6), draw.randint(1, 6), draw.choice(["png", "png", "bmp", "ppm", "pgm"])
    channels = 1 if kind == "pgm" or (kind == "png" and draw.random() < 0.4) else 3
    line = width * channels
    if kind == "png":
        lines = b"".join(bytes([draw.randrange(5)]) + draw.randbytes(line) for _ in range(height))
        return kind, png(width, height, kind=2 if channels == 3 else 0, data=zlib.compress(lines))
    if kind == "bmp":
        pad = bytes(-line % 4)
        body = b"".join(draw.randbytes(line) + pad for _ in range(height))
        size = struct.pack("<IHHI", 54 + len(body), 0, 0, 54)
        return kind, b"BM" + size + struct.pack(
            "<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), 0, 0, 0, 0
        ) + body
    return kind, f"P{6 if channels == 3 else 5} {width} {height} 255\n".encode() + draw.randbytes(line * height)


def other_picture(draw: Random) -> tuple[str, bytes]:
    """Ending and bytes of a picture by Pillow: JPEG, GIF, WebP or TIFF."""
    from PIL import Image

    kind = draw.choice(["jpg", "gif", "webp", "tif"])
    image = Image.frombytes("RGB", (8, 8), draw.randbytes(192))
    found = io.BytesIO()
    image.save(found, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper()))
    return kind, found.getvalue()
