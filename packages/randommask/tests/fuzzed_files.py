"""Made-up FASTA files and tables, sound and harmed in every way a file comes harmed; each a function of its seed."""

import bz2
import gzip
import lzma
import random

from reference.block_gzip import END, blocks

NAMES = ["chr1", "chr2", "chrX", "a|b", "contig 7", "", "ü", "chr1 again"]
LETTERS = ["ACGT"] * 6 + ["acgtn", "ACGTN", "ACGTURYSWKMBDHVN", "ACGU", "MKVLAAGE", "ACGT-*", "AC GT\t", "ACGT;5"]
BREAKS = [b"\n"] * 5 + [b"\r\n", b"\n\n", b"\r", b"\n\r"]
CELLS = ["", "  ", "nan", "inf", "-1", "1e999", "x" * 300, '"', "0,1", "é", "\x00", "positive"]


def fasta(seed):
    """Bytes of a file, maybe packed, maybe harmed; and the bytes inside as far as gzip itself sees them, None where it refuses."""
    draw = random.Random(seed)
    parts = [b"\xef\xbb\xbf"] if draw.random() < 0.1 else []
    if draw.random() < 0.1:
        parts.append(
            draw.choice([b"\n", b" \n\t\n", b"ACGT\n", b"@read\nACGT\n", b"\x00", b">", b"<html>\n", b";comment\n"])
        )
    for record in range(draw.choice([0, 1, 1, 2, 3, 5])):
        end = draw.choice(BREAKS)
        name = draw.choice(NAMES) if draw.random() < 0.4 else f"r{record}"
        parts.append(b">" + name.encode() + end)
        alphabet = draw.choice(LETTERS)
        text = "".join(draw.choices(alphabet, k=draw.choice([0, 1, 2, 7, 60, 61, 400]))).encode()
        width = draw.choice([1, 3, 60, 1000]) if len(text) < 100 else 60
        parts += [text[start : start + width] + end for start in range(0, len(text), width)]
    raw = b"".join(parts)
    if draw.random() < 0.3:
        raw = raw.rstrip(b"\r\n")
    return packed(draw, harmed(draw, raw, often=0.1))


def packed(draw, raw):
    kind = draw.choice(["plain", "plain", "gzip", "members", "blocks"])
    if kind == "plain":
        return raw, raw
    cut = draw.randint(0, len(raw))
    stored = {
        "gzip": lambda: gzip.compress(raw, mtime=0),
        "members": lambda: gzip.compress(raw[:cut], mtime=0) + gzip.compress(raw[cut:], mtime=0),
        "blocks": lambda: b"".join(blocks(raw, size=draw.choice([5, 64, 65280]))),
    }[kind]()
    stored = harmed(draw, stored, often=0.4)
    if not stored.startswith(b"\x1f\x8b"):
        return stored, stored
    try:
        inside = gzip.decompress(stored)
    except (OSError, EOFError, ValueError, gzip.zlib.error):
        return stored, None
    if stored[3:4] == b"\x04" and stored[10:16] == b"\x06\x00BC\x02\x00" and not stored.endswith(END):
        return stored, None
    return stored, inside


def harmed(draw, raw, *, often):
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


def table(seed):
    """Bytes of a table; its rows as (sequence, label) where it is sound, else None; and the line refused where that is known."""
    draw = random.Random(seed)
    comma = draw.choice([",", ",", "\t"])
    end = draw.choice(["\n", "\n", "\r\n"])
    header = ["sequence", "label"] + (["extra"] if draw.random() < 0.3 else [])
    draw.shuffle(header)
    rows = [
        {
            "sequence": "".join(draw.choices("ACGTacgtNU", k=draw.choice([1, 5, 70]))),
            "label": str(draw.randrange(3)),
            "extra": "e",
        }
        for _ in range(draw.choice([1, 2, 5, 20]))
    ]
    refused = None
    if draw.random() < 0.4:
        spoilt = draw.randrange(len(rows))
        column, cell = draw.choice(
            [("label", ""), ("sequence", ""), ("sequence", "MKVLAAGE"), ("sequence", "AC-GT"), ("sequence", "é")]
        )
        rows[spoilt][column] = cell
        refused = spoilt + 2
    lines = [comma.join(header), *(comma.join(row[name] for name in header) for row in rows)]
    text = end.join(lines) + (end if draw.random() < 0.7 else "")
    raw = (b"\xef\xbb\xbf" if draw.random() < 0.1 else b"") + text.encode()
    expected = [(row["sequence"].upper(), row["label"]) for row in rows]
    if draw.random() < 0.45:  # anything may come of it but a foreign error
        at = draw.randrange(len(lines))
        cells = lines[at].split(comma)
        cells[draw.randrange(len(cells))] = draw.choice(CELLS)
        lines[at] = comma.join(cells + draw.choices(CELLS, k=draw.choice([0, 0, 1])))
        raw = harmed(draw, end.join(lines).encode(draw.choice(["utf-8", "utf-8", "utf-16"])), often=0.5)
        expected = refused = None
    pack = draw.choice(
        [None, None, None, gzip.compress, bz2.compress, lzma.compress, lambda raw: b"".join(blocks(raw, size=50))]
    )
    if pack is not None:
        whole = pack(raw)
        raw = harmed(draw, whole, often=0.3)
        if raw != whole:
            expected = refused = None
    return raw, expected if refused is None else None, refused
