"""Base codes to k-mer ids and back, whole batches and chromosomes at once, in DNABERT's order of ids.

    id = 5 + sum over j of code(base_j) * 4^(k-1-j),   j = 0 ... k-1,  most significant base first
    0 [PAD]  1 [UNK]  2 [CLS]  3 [SEP]  4 [MASK]

A window that covers a code above 3 (ambiguous or foreign) is one [UNK]. Overlapping k-mers of L bases: L - k + 1 tokens;
non-overlapping (stride k, frame 0): L // k tokens, the remaining L mod k bases are dropped (ours).

Source    DNABERT's `vocab.txt` for k = 3 to 6, identical by SHA-256 (tests); k = 1, 2, 7, 8 by the same rule (ours).
Letters   N sequences, L bases, T tokens.
Speed     numbers grow in the narrowest type that holds them (uint8 to 4 bases, uint16 to 8), over rows laid end to end, in
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
    if tokens and rows.shape[0]:
        stride = 1 if overlap else k
        together = max(1, _BLOCK // length)
        longest = together * min(length, (_BLOCK - 1) * stride + k)
        # three rows of uint8, then, as uint16, a half and the whole number: two bytes each, at even addresses
        space = numpy.empty((7, longest + longest % 2), dtype=numpy.uint8)
        for row in range(0, rows.shape[0], together):
            for start in range(0, tokens, _BLOCK):
                stop = min(start + _BLOCK, tokens)
                part = rows[row : row + together, start * stride : (stop - 1) * stride + k]
                _fill(ids[row : row + together, start:stop], part, k=k, stride=stride, space=space)
    return ids[0] if codes.ndim == 1 else ids


def _fill(out: numpy.ndarray, codes: numpy.ndarray, *, k: int, stride: int, space: numpy.ndarray) -> None:
    """Ids of a block of rows. The rows lie end to end: windows over two of them are computed and passed over."""
    flat = numpy.ascontiguousarray(codes).reshape(-1)
    numbers, five_too_low = _numbers(flat, k, space=space)
    within = ((out.shape[1] - 1) * stride + 1) * numbers.itemsize  # the last window's end is the block's end
    steps = (codes.shape[1] * numbers.itemsize, stride * numbers.itemsize)
    assert (codes.shape[0] - 1) * steps[0] + within <= numbers.nbytes
    # the constructor, not as_strided: that one costs as much as two of the passes above
    numpy.copyto(out, numpy.ndarray(out.shape, numbers.dtype, buffer=numbers, strides=steps))
    if five_too_low:
        out += FIRST_KMER
    if flat.max() >= AMBIGUOUS:
        out[any_in_window(codes >= AMBIGUOUS, k)[:, ::stride]] = UNK_ID


def _numbers(codes: numpy.ndarray, k: int, *, space: numpy.ndarray) -> tuple[numpy.ndarray, bool]:
    """Number of each window of k codes, UInt[L-k+1], and whether 5 has still to be added; garbage where a code is above 3.

    Up to 4 bases a number grows base by base in uint8; longer ones are two of these side by side, the right one of 3 bases (of
    4 at k = 8). The 5 goes into a uint8 where it fits; of two equal halves each takes 5 / (4^low + 1) modulo 2^16, so that one
    widening serves both.
    """
    known = {1: codes}
    for size, half in ((2, 1), (3, 2), (4, 2)):
        if size in _PARTS[k]:
            known[size] = _join(known[half], half, known[size - half], size - half, out=space[size - 2])
    high, low = _PARTS[k][-2:]
    if not high:
        if low == 4:
            return known[4], True
        return numpy.add(known[low], FIRST_KMER, out=space[2, : known[low].size]), False
    count = codes.size - k + 1
    number = space[5:].reshape(-1).view(numpy.uint16)[:count]
    if high == low:
        half = space[3:5].reshape(-1).view(numpy.uint16)[: known[low].size]
        part = 0 if k == LARGEST_K else FIRST_KMER * pow(4**low + 1, -1, 2**16) % 2**16  # 5 + 4^8 - 1 needs 17 bits
        numpy.add(known[low], numpy.uint16(part), out=half)
        numpy.multiply(half[:count], numpy.uint16(4**low), out=number)
        number += half[high:]
        return number, not part
    numpy.multiply(known[high][:count], numpy.uint16(4**low), out=number)
    right = known[low][high:]
    # the pairs in space[0] are read no more
    number += numpy.add(right, FIRST_KMER, out=space[0, : right.size])
    return number, False


# Sizes of numbers that are needed on the way to k, then the two parts of k, or none and k itself.
_PARTS: Final = {
    1: (0, 1),
    2: (2, 0, 2),
    3: (2, 3, 0, 3),
    4: (2, 4, 0, 4),
    5: (2, 3, 2, 3),
    6: (2, 3, 3, 3),
    7: (2, 3, 4, 4, 3),
    8: (2, 4, 4, 4),
}


def _join(
    left: numpy.ndarray, left_size: int, right: numpy.ndarray, right_size: int, *, out: numpy.ndarray
) -> numpy.ndarray:
    # multiply, not shift: left_shift on uint8 is ten times slower
    count = left.size - right_size
    number = numpy.multiply(left[:count], 4**right_size, out=out[:count])
    number += right[left_size : left_size + count]
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
