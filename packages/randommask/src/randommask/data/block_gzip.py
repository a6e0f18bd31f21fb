"""Block gzip (bgzip's files, BGZF): whether such a file has its end, which gzip itself cannot tell.

A block gzip file is gzip members one after the other, each with its size in an extra field `BC`, and an empty member last. Cut
between two members it is still valid gzip, and the letters behind the cut would be missing without a word.

Source    SAM/BAM format specification, section 4.1 (BGZF) and 4.1.2 (end-of-file marker).
"""

from typing import Final

END_BLOCK: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
HEAD: Final = 18  # bytes of a member's header with its one extra field
_BEGIN: Final = b"\x1f\x8b\x08\x04"
_EXTRA: Final = b"\x06\x00BC\x02\x00"  # six bytes of extra: field BC, two bytes long


def lacks_end(head: bytes, tail: bytes) -> bool:
    """Whether a file is block gzip and does not end with the empty block: it was cut.

    Args:
        head: its first 18 bytes or more.
        tail: its last 28 bytes or more.
    """
    return head.startswith(_BEGIN) and head[10:16] == _EXTRA and not tail.endswith(END_BLOCK)
