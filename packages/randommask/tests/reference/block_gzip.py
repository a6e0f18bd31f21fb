"""A block gzip file (BGZF) written by its definition (SAM specification, section 4.1), with nothing of gzip but deflate and CRC-32."""

import struct
import zlib

END = bytes([0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 0xFF, 6, 0, 0x42, 0x43, 2, 0, 0x1B, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0])


def block(content):
    """One member: header with the extra field BC (whole size less 1), raw deflate, CRC-32, size."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    extra = b"BC" + struct.pack("<HH", 2, 18 + len(packed) + 8 - 1)
    header = struct.pack("<4BIBBH", 0x1F, 0x8B, 8, 4, 0, 0, 0xFF, len(extra)) + extra
    return header + packed + struct.pack("<II", zlib.crc32(content), len(content))


def blocks(content, *, size):
    """The members of a file, `size` bytes each, and the empty one at its end."""
    return [*(block(content[start : start + size]) for start in range(0, len(content), size)), END]
