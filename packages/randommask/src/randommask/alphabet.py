"""Letters of DNA as base codes: one byte a letter, in the digit order of DNABERT's vocabulary.

A = 0, T = 1, C = 2, G = 3. U is read as T, lower case (soft-masking) as the same base. The other letters of the
IUPAC nucleotide alphabet (R Y S W K M B D H V N) are AMBIGUOUS = 4, every other byte is FOREIGN = 5; a code above 3 is
no base. Complement of a base is its code XOR 1.

Source    digits: DNABERT, `vocab.txt` (Ji et al. 2021), equal for k = 3 to 6; ambiguity codes: IUPAC-IUB 1984.
Letters   L bases of a sequence.
Speed     bits 1 and 2 of the ASCII letter tell A, C, G and T apart, in both cases; a block that holds anything else goes through a table.
"""

from typing import Final

import numpy

BASES: Final = "ATCG"
AMBIGUITY_LETTERS: Final = "RYSWKMBDHVN"
AMBIGUOUS: Final = 4
FOREIGN: Final = 5


def _table() -> bytes:
    table = bytearray([FOREIGN]) * 256
    for code, letters in enumerate(("A", "TU", "C", "G", AMBIGUITY_LETTERS)):
        for letter in letters + letters.lower():
            table[ord(letter)] = code
    return bytes(table)


CODE_OF_BYTE: Final = _table()
LETTER_OF_CODE: Final = numpy.frombuffer(b"ATCGNN", dtype=numpy.uint8)
_COMPLEMENT: Final = numpy.array([1, 0, 3, 2, AMBIGUOUS, FOREIGN], dtype=numpy.uint8)
_LOWER_CASE: Final = bytes(AMBIGUOUS if chr(byte) in "acgtu" else CODE_OF_BYTE[byte] for byte in range(256))
_BLOCK: Final = 131_072  # bytes at a time: what stays in a second-level cache
_SMALL: Final = 24_576  # bytes below which the table is quicker than a dozen calls of numpy


def base_codes(letters: str | bytes, *, keep_soft_masked: bool = True) -> numpy.ndarray:
    """Base codes UInt8[L] of L letters; any text is accepted, what is no base gets a code above 3.

    Args:
        letters: DNA or RNA.
        keep_soft_masked: whether lower case is the same base (true), or AMBIGUOUS, so that repeats are masked out.

    Example:
        >>> base_codes("ACgtNx").tolist()
        [0, 2, 3, 1, 4, 5]
        >>> base_codes("ACgtNx", keep_soft_masked=False).tolist()
        [0, 2, 4, 4, 4, 5]
    """
    raw = letters.encode("latin-1", "replace") if isinstance(letters, str) else letters
    if not keep_soft_masked:
        return numpy.frombuffer(raw.translate(_LOWER_CASE), dtype=numpy.uint8)
    if len(raw) < _SMALL:
        return numpy.frombuffer(raw.translate(CODE_OF_BYTE), dtype=numpy.uint8)
    source = numpy.frombuffer(raw, dtype=numpy.uint8)
    codes = numpy.empty_like(source)
    one, two = numpy.empty((2, min(_BLOCK, len(raw))), dtype=numpy.uint8)
    for start in range(0, len(raw), _BLOCK):
        block = source[start : start + _BLOCK]
        _fill(codes[start : start + _BLOCK], block, one=one[: block.size], two=two[: block.size])
    return codes


def _fill(codes: numpy.ndarray, letters: numpy.ndarray, *, one: numpy.ndarray, two: numpy.ndarray) -> None:
    # A 100 0001, C 100 0011, G 100 0111, T 101 0100, lower case 32 more. Codes: bit 1 of the letter, and 1 for its bit 2.
    numpy.bitwise_and(letters, 4, out=one)
    numpy.not_equal(one, 0, out=one.view(numpy.bool_))
    numpy.bitwise_and(letters, 2, out=codes)
    numpy.bitwise_or(codes, one, out=codes)
    # What these two bits and the case leave over is 100 -0-1 in A, C and G; T has 15 more.
    numpy.equal(codes, 1, out=one.view(numpy.bool_))
    numpy.multiply(one, 15, out=one)
    numpy.bitwise_and(letters, 0b1101_1001, out=two)
    numpy.subtract(two, one, out=two)
    if two.min() != 0b0100_0001 or two.max() != 0b0100_0001:
        codes[:] = numpy.frombuffer(letters.tobytes().translate(CODE_OF_BYTE), dtype=numpy.uint8)


def bases(codes: numpy.ndarray) -> str:
    """Upper-case letters of base codes UInt8[L]; whatever is no base is written N.

    Example:
        >>> bases(base_codes("acgun-"))
        'ACGTNN'
    """
    return LETTER_OF_CODE[codes].tobytes().decode("ascii")


def reverse_complement(codes: numpy.ndarray) -> numpy.ndarray:
    """Base codes UInt8[... L] of the other strand, read in its own direction; ambiguous and foreign stay so."""
    return _COMPLEMENT[codes[..., ::-1]]
