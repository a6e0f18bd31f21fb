"""Masks drawn at random over many tokens, with numpy's own generator, to hold closed forms against."""

import numpy

from reference.masking import OFFSETS


def long_row(tokens: int, widths: list[int], probability: float, seed: int) -> numpy.ndarray:
    """Bool[tokens]: one long row, each centre with a width drawn from `widths`."""
    generator = numpy.random.default_rng(seed)
    centres = numpy.flatnonzero(generator.random(tokens) < probability)
    drawn = generator.choice(widths, len(centres))
    change = numpy.zeros(tokens + 1, dtype=numpy.int64)
    left = numpy.array([OFFSETS[w][0] for w in drawn], dtype=numpy.int64)
    right = numpy.array([OFFSETS[w][1] for w in drawn], dtype=numpy.int64)
    numpy.add.at(change, numpy.maximum(centres - left, 0), 1)
    numpy.add.at(change, numpy.minimum(centres + right, tokens - 1) + 1, -1)
    return numpy.cumsum(change[:-1]) > 0


def rows(count: int, tokens: int, width: int, probability: float, seed: int) -> numpy.ndarray:
    """Bool[count tokens]: short rows whose windows are cut at their ends."""
    generator = numpy.random.default_rng(seed)
    centres = generator.random((count, tokens)) < probability
    left, right = OFFSETS[width]
    mask = numpy.zeros_like(centres)
    for offset in range(-left, right + 1):
        if offset >= 0:
            mask[:, offset:] |= centres[:, : tokens - offset]
        else:
            mask[:, :offset] |= centres[:, -offset:]
    return mask


def hidden_share(mask: numpy.ndarray, k: int) -> float:
    """Share of the bases of a long row that k masked tokens in a row cover."""
    sums = numpy.concatenate(([0], numpy.cumsum(mask)))
    return float(numpy.mean(sums[k:] - sums[:-k] == k))


def run_lengths(mask: numpy.ndarray) -> numpy.ndarray:
    edges = numpy.flatnonzero(numpy.diff(numpy.concatenate(([0], mask.astype(numpy.int8), [0]))))
    return edges[1::2] - edges[::2]
