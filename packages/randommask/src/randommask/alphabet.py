"""Letters of DNA as base codes: one byte a letter, in the digit order of DNABERT's vocabulary.

A = 0, T = 1, C = 2, G = 3. U is read as T, lower case (soft-masking) as the same base. The other letters of the
IUPAC nucleotide alphabet (R Y S W K M B D H V N) are AMBIGUOUS = 4, every other byte is FOREIGN = 5; a code above 3 is
no base. Complement of a base is its code XOR 1.

Source    digits: DNABERT, `vocab.txt` (Ji et al. 2021), equal for k = 3 to 6; ambiguity codes: IUPAC-IUB 1984.
Letters   L bases of a sequence.
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


def base_codes(letters: str | bytes) -> numpy.ndarray:
    """Base codes UInt8[L] of L letters; any text is accepted, what is no base gets a code above 3.

    Example:
        >>> base_codes("ACgtNx").tolist()
        [0, 2, 3, 1, 4, 5]
    """
    raw = letters.encode("latin-1", "replace") if isinstance(letters, str) else letters
    return numpy.frombuffer(raw.translate(CODE_OF_BYTE), dtype=numpy.uint8)


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
