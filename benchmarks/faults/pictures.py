"""Poisoned images, and a writer of small ones: PNG, BMP and PPM by their definitions, others by Pillow."""

import struct
import zlib
from pathlib import Path
from random import Random

from faults.payloads import Poison, evil_pickle, zeros, zlib_member
from faults.watching import MARK


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG: length, name, data, CRC-32."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, kind: int = 2, data: bytes, before: bytes = b"", depth: int = 8) -> bytes:
    """A PNG of packed `data` (zlib), with more chunks `before` it; `kind` is 0 grey, 2 RGB, 3 palette, 4 and 6 with alpha."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def too_many_pixels(_: bytes, draw: Random, outside: Path) -> bytes:
    """10^10 pixels by the header, of each format that has one."""
    side = 100_000
    return draw.choice(
        [
            png(side, side, data=b"\x78\x9c" + zeros(64)),
            png(side, side, kind=0, depth=1, data=b"\x78\x9c" + zeros(8)),
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 10**6, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(200),
            b"P6 100000 100000 255\n" + bytes(200),
            b"P1 100000 100000\n" + b"0 " * 200,
            b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01\0\0;",
            _tiff(side, side),
        ]
    )  # fmt: skip


def packed_bomb(_: bytes, draw: Random, outside: Path) -> bytes:
    """Few pixels, and text, a profile or image data of 2 GiB once unpacked."""
    zlib_head = b"\x78\x9c"
    body = zlib_head + zlib_member(bytes(25 * 8)) + zeros(1)
    bomb = zlib_head + zeros(2048)
    return draw.choice(
        [
            png(8, 8, data=body, before=chunk(b"zTXt", b"Comment\0\0" + bomb)),
            png(8, 8, data=body, before=chunk(b"iCCP", b"profile\0\0" + bomb)),
            png(8, 8, data=body, before=chunk(b"iTXt", b"Comment\0\x01\0en\0\0" + bomb)),
            png(8, 8, data=zlib_head + zeros(256)),
            png(4000, 4000, data=zlib_head + zeros(1)),
        ]
    )


def program(_: bytes, draw: Random, outside: Path) -> bytes:
    """PostScript, which a reader would give to Ghostscript."""
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    body = f"({outside}) (w) file ({MARK}) writestring\nshowpage\n%%EOF\n".encode()
    preview = struct.pack("<4s6IH", b"\xc5\xd0\xd3\xc6", 30, len(head + body), 0, 0, 0, 0, 0xFFFF)
    return draw.choice([b"", preview]) + head + body


def no_image(_: bytes, draw: Random, outside: Path) -> bytes:
    """A pickle, SVG, HTML, a playlist, or noise under an image's name."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{outside}"/></svg>'.encode()
    return draw.choice([evil_pickle(b"", draw, outside), svg, b"<html>", b"%PDF-1.4\n", draw.randbytes(100), b""])


def odd_exif(_: bytes, draw: Random, outside: Path) -> bytes:
    """A turn that is none, entries that lead into each other."""
    entry = struct.pack(
        ">HHII", 0x0112, draw.choice([3, 4, 7, 99]), draw.choice([1, 1 << 31]), draw.choice([0, 8, 1 << 31])
    )
    loop = struct.pack(">HHII", 0x8769, 4, 1, 8)
    exif = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 2) + entry + loop + struct.pack(">I", 8)
    return png(8, 8, data=zlib.compress(bytes(25 * 8)), before=chunk(b"eXIf", exif))


def _tiff(width: int, height: int) -> bytes:
    sizes = [(256, 4, width), (257, 4, height), (278, 4, height), (279, 4, 10**10 % 2**32)]
    tags = sorted([*sizes, (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)])
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + bytes(4)


IMAGES = (
    Poison("10^10 pixels", too_many_pixels),
    Poison("a bomb within an image", packed_bomb, refused=False, seconds=5.0, costly=True),
    Poison("a program for Ghostscript", program),
    Poison("no image", no_image),
    Poison("EXIF in a loop", odd_exif, refused=False),
)
