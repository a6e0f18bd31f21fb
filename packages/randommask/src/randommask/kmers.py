"""Base codes to k-mer ids and back, whole batches and chromosomes at once, in DNABERT's order of ids.

    id = 5 + sum over j of code(base_j) * 4^(k-1-j),   j = 0 ... k-1,  most significant base first
    0 [PAD]  1 [UNK]  2 [CLS]  3 [SEP]  4 [MASK]

A window that covers a code above 3 (ambiguous or foreign) is one [UNK]. Overlapping k-mers of L bases: L - k + 1 tokens;
non-overlapping (stride k, frame 0): L // k tokens, the remaining L mod k bases are dropped (ours).

Source    DNABERT's `vocab.txt` for k = 3 to 6, identical by SHA-256 (tests); k = 1, 2, 7, 8 by the same rule (ours).
Letters   N sequences, L bases, T tokens.
Speed     numbers grow by joining halves in the narrowest type that holds them (uint8 to 4 bases, uint16 to 8), in
          blocks that stay in cache; int64 comes last.
"""

from typing import Final

import numpy

from .alphabet import AMBIGUOUS, BASES

SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
FIRST_KMER: Final = len(SPECIAL_TOKENS)
LARGEST_K: Final = 8
_BLOCK: Final = 131_072  # bases joined at a time: uint16 halves of that many stay in a second-level cache


def check_k(k: int) -> int:
    """Return k.

    Raises:
        ValueError: k is not an integer from 1 to 8; the value is named.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= LARGEST_K:
        raise ValueError(
            f"k is {k!r}, but a k-mer has between 1 and {LARGEST_K} bases. Choose an integer in that range."
        )
    return k


def kmer_vocabulary(k: int) -> range:
    """Ids of the 4^k k-mers, without the five specials: `range(5, 5 + 4**k)`."""
    return range(FIRST_KMER, FIRST_KMER + 4 ** check_k(k))


def vocabulary(k: int) -> list[str]:
    """All 5 + 4^k tokens in the order of their ids, as in DNABERT's `vocab.txt`.

    Example:
        >>> vocabulary(1)[5:]
        ['A', 'T', 'C', 'G']
    """
    kmers = [""]
    for _ in range(check_k(k)):
        kmers = [kmer + base for kmer in kmers for base in BASES]
    return [*SPECIAL_TOKENS, *kmers]


def kmer_ids(codes: numpy.ndarray, k: int, *, overlap: bool = True, out: numpy.ndarray | None = None) -> numpy.ndarray:
    """Ids of the k-mers of base codes.

    Args:
        codes: UInt8[L] or UInt8[N L], from `alphabet.base_codes`.
        k: bases a k-mer, 1 to 8.
        overlap: stride 1 (DNABERT) when true, stride k when false.
        out: Int64[N T] to write into, for codes UInt8[N L].

    Returns:
        Int64[T] or Int64[N T], T = max(0, L - k + 1) overlapping, L // k otherwise.

    Raises:
        ValueError: k out of range, or `codes` is not of dtype uint8.

    Example:
        >>> from randommask.alphabet import base_codes
        >>> kmer_ids(base_codes("GATTACA"), 6).tolist()
        [3159, 333]
    """
    check_k(k)
    if codes.dtype != numpy.uint8:
        raise ValueError(
            f"codes are of dtype {codes.dtype}; pass base codes (uint8) from randommask.alphabet.base_codes."
        )
    rows = codes.reshape(1, -1) if codes.ndim == 1 else codes
    length = rows.shape[-1]
    tokens = max(0, length - k + 1) if overlap else length // k
    ids = numpy.empty((rows.shape[0], tokens), dtype=numpy.int64) if out is None else out
    stride = 1 if overlap else k
    if tokens:
        for first_row in range(0, rows.shape[0], max(1, _BLOCK // length)):
            block = rows[first_row : first_row + max(1, _BLOCK // length)]
            part = ids[first_row : first_row + block.shape[0]]
            for start in range(0, tokens, _BLOCK):
                stop = min(start + _BLOCK, tokens)
                _fill(part[:, start:stop], block[:, start * stride : (stop - 1) * stride + k], k=k, stride=stride)
    return ids[0] if codes.ndim == 1 else ids


def _fill(out: numpy.ndarray, codes: numpy.ndarray, *, k: int, stride: int) -> None:
    numbers = _numbers(codes, k)[:, ::stride]
    if k < LARGEST_K and k != 4:  # the largest number + 5 fits the narrow type, except where 4^k fills it
        numpy.copyto(out, numbers + numbers.dtype.type(FIRST_KMER))
    else:
        numpy.copyto(out, numbers)
        out += FIRST_KMER
    unknown = codes >= AMBIGUOUS
    if unknown.any():
        out[any_in_window(unknown, k)[:, ::stride]] = UNK_ID


def _numbers(codes: numpy.ndarray, k: int) -> numpy.ndarray:
    """Number of each window of k codes (UInt[N L-k+1]); garbage, within its own windows only, where a code is above 3."""
    known = {1: codes}
    while 2 * max(known) <= k:
        half = max(known)
        known[2 * half] = _join(known[half], half, known[half], half)
    size = max(known)
    number = known[size]
    for part in sorted(known, reverse=True):
        if size + part <= k:
            number = _join(number, size, known[part], part)
            size += part
    return number


def _join(left: numpy.ndarray, left_size: int, right: numpy.ndarray, right_size: int) -> numpy.ndarray:
    # multiply, not shift: left_shift on uint8 is ten times slower. The type is set before, else uint8 wraps at 5 bases.
    kind = numpy.uint8 if left_size + right_size <= 4 else numpy.uint16
    number = numpy.multiply(left[:, : left.shape[1] - right_size], kind(4**right_size % 2**16), dtype=kind)
    number += right[:, left_size:]
    return number


def any_in_window(flags: numpy.ndarray, size: int) -> numpy.ndarray:
    """Bool[... L-size+1]: does the window of `size` that starts here hold a flag? By doubling."""
    window, reach = flags, 1
    while 2 * reach <= size:
        window = window[..., :-reach] | window[..., reach:]
        reach *= 2
    rest = size - reach
    return window[..., : window.shape[-1] - rest] | window[..., rest:] if rest else window


def codes_of_ids(ids: numpy.ndarray, k: int, *, overlap: bool = True) -> numpy.ndarray:
    """Base codes of a row of k-mer ids; bases that no k-mer shows are AMBIGUOUS.

    Args:
        ids: Int64[T]; ids below 5 ([UNK], [MASK]) stand for a k-mer that is not known.
        k: bases a k-mer.
        overlap: whether neighbours share k - 1 bases.

    Returns:
        UInt8[L], L = T + k - 1 overlapping (0 for T = 0), k T otherwise.

    Raises:
        ValueError: an id is outside the vocabulary, or two overlapping k-mers disagree about a base; the place is named.
    """
    ids = numpy.asarray(ids, dtype=numpy.int64)
    if ids.size and not (ids.min() >= 0 and ids.max() < kmer_vocabulary(k).stop):
        wrong = ids[(ids < 0) | (ids >= kmer_vocabulary(k).stop)][0]
        raise ValueError(
            f"Token id {wrong} is outside the vocabulary of k = {k}, ids 0 to {kmer_vocabulary(k).stop - 1}."
        )
    if not ids.size:
        return numpy.empty(0, dtype=numpy.uint8)
    stride = 1 if overlap else k
    codes = numpy.full((ids.size - 1) * stride + k, AMBIGUOUS, dtype=numpy.uint8)
    places = numpy.flatnonzero(ids >= FIRST_KMER)
    numbers = ids[places] - FIRST_KMER
    for j in range(k):
        digit = (numbers // 4 ** (k - 1 - j) % 4).astype(numpy.uint8)
        at = places * stride + j
        clash = (codes[at] != AMBIGUOUS) & (codes[at] != digit)
        if clash.any():
            where = int(places[clash.argmax()])
            raise ValueError(
                f"The {k}-mer at token {where} and a neighbour disagree about base {where * stride + j}, so the ids spell "
                "no sequence. Decode ids that come from one sequence, or look at single tokens with convert_ids_to_tokens."
            )
        codes[at] = digit
    return codes
