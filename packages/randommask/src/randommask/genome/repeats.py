"""DNA that stands in a genome twice: whole records, and held-out windows in the training DNA, on either strand.

A window is looked up by its first 32 bases (or 16), packed two bits a base into one number, and then compared as a whole.

Letters   L bases of a window, W windows.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy

from randommask.alphabet import reverse_complement
from randommask.genome.store import Genome, Stretch, pieces

_MULTIPLIER: Final = numpy.uint64(0x9E37_79B9_7F4A_7C15)  # 2^64 over the golden section: spreads the numbers of a table
_TABLE_BITS: Final = 22
_MOST_PLACES: Final = 1000  # of one window in one piece that are compared: a run of one base is found at the first


class Repeated(NamedTuple):
    """Of `windows` looked up, how many stand in the training DNA: as they are (`same_strand`), and the others on the `other_strand`.

    `bases` of the training DNA were looked through.
    """

    windows: int
    same_strand: int
    other_strand: int
    bases: int


def repeated_records(genome: Genome) -> list[tuple[str, str, bool]]:
    """Records that repeat an earlier one, base for base: (name, the earlier one's, whether it is its reverse complement)."""
    lengths: dict[int, list[int]] = {}
    for number in range(len(genome.names)):
        start, stop = genome.record(number)
        lengths.setdefault(stop - start, []).append(number)
    found: list[tuple[str, str, bool]] = []
    for numbers in (some for some in lengths.values() if len(some) > 1):
        known: dict[bytes, int] = {}
        for number in numbers:
            start, stop = genome.record(number)
            codes = genome.codes[start:stop]
            digest, other = _digest(codes), _digest(reverse_complement(codes))
            earlier = known.get(digest, known.get(other))
            if earlier is None:
                known[digest] = number
            else:
                found.append((genome.names[number], genome.names[earlier], digest not in known))
    return found


def repeated_windows(
    genome: Genome, training: Sequence[Stretch], windows: Sequence[numpy.ndarray], *, seconds: float
) -> Repeated | None:
    """Look windows up in the training stretches.

    Args:
        genome: where the stretches lie.
        training: stretches that are looked through, in order.
        windows: W of them, UInt8[L] each, of at least 16 bases.
        seconds: after that no further piece of the training DNA is begun.

    Returns:
        What was found; None where there is no window, or one of fewer than 16 bases, which would be found by chance.
    """
    length = min(map(len, windows), default=0)
    if length < 16:
        return None
    span, longest = 32 if length >= 32 else 16, max(map(len, windows))
    wanted: dict[int, list[tuple[int, bool]]] = {}
    strands = [(window, reverse_complement(window)) for window in windows]
    for index, both in enumerate(strands):
        for other, codes in enumerate(both):
            wanted.setdefault(int(_packed(codes[:span], span)[0]), []).append((index, bool(other)))
    keys = numpy.array(list(wanted), dtype=numpy.uint64)
    table = numpy.zeros(1 << _TABLE_BITS, dtype=numpy.bool_)
    table[_slot(keys)] = True
    found: tuple[set[int], set[int]] = (set(), set())
    bases, end = 0, time.monotonic() + seconds
    for piece in (piece for stretch in training for piece in pieces(stretch, overlap=longest - 1)):
        if bases and time.monotonic() > end:
            break
        codes = genome.codes[piece.start : piece.stop]
        bases += len(codes)
        if len(codes) >= span:
            _look_up(codes, span, keys=keys, table=table, wanted=wanted, strands=strands, found=found)
    return Repeated(len(windows), len(found[0]), len(found[1] - found[0]), bases)


def _look_up(
    codes: numpy.ndarray,
    span: int,
    *,
    keys: numpy.ndarray,
    table: numpy.ndarray,
    wanted: dict[int, list[tuple[int, bool]]],
    strands: list[tuple[numpy.ndarray, numpy.ndarray]],
    found: tuple[set[int], set[int]],
) -> None:
    """Add to `found` (same strand, other strand) the windows that stand in one piece."""
    packed = _packed(codes, span)
    places = numpy.flatnonzero(table[_slot(packed)])
    places = places[numpy.isin(packed[places], keys)]
    order = numpy.argsort(packed[places], kind="stable")
    places = places[order]
    values, first, counts = numpy.unique(packed[places], return_index=True, return_counts=True)
    for value, begin, count in zip(values.tolist(), first.tolist(), counts.tolist(), strict=True):
        for index, other in wanted[value]:
            if index in found[other]:
                continue
            window = strands[index][other]
            for place in places[begin : begin + min(count, _MOST_PLACES)].tolist():
                if numpy.array_equal(codes[place : place + len(window)], window):
                    found[other].add(index)
                    break


def _packed(codes: numpy.ndarray, span: int) -> numpy.ndarray:
    """UInt64[L - span + 1]: the `span` bases from each place on, two bits each; a power of two up to 32. Unknown letters count as A."""
    packed = numpy.bitwise_and(codes, 3).astype(numpy.uint64)
    width = 1
    while width < span:
        packed = (packed[:-width] << numpy.uint64(2 * width)) | packed[width:]
        width *= 2
    return packed


def _slot(packed: numpy.ndarray) -> numpy.ndarray:
    with numpy.errstate(over="ignore"):
        return (packed * _MULTIPLIER) >> numpy.uint64(64 - _TABLE_BITS)


def _digest(codes: numpy.ndarray) -> bytes:
    return hashlib.blake2b(numpy.ascontiguousarray(codes).data, digest_size=16).digest()
