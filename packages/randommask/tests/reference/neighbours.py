"""Nearest neighbours of k-mer embeddings, letter by letter: purity as the module's docstring defines it. Loops, float64."""

import itertools
import math


def kmers(k: int) -> list[str]:
    return ["".join(letters) for letters in itertools.product("ATCG", repeat=k)]


def nearest(rows: list[list[float]], own: int) -> int:
    best, found = -math.inf, -1
    for other, row in enumerate(rows):
        if other == own:
            continue
        dot = sum(a * b for a, b in zip(rows[own], row, strict=True))
        cosine = dot / math.sqrt(sum(a * a for a in rows[own])) / math.sqrt(sum(b * b for b in row))
        if cosine > best:
            best, found = cosine, other
    return found


def hamming(first: str, second: str) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


def shifted(first: str, second: str) -> bool:
    return first[1:] == second[:-1] or second[1:] == first[:-1]


def purity(rows: list[list[float]], k: int) -> tuple[float, float, float]:
    names = kmers(k)
    pairs = [(name, names[nearest(rows, own)]) for own, name in enumerate(names)]
    return (
        sum(hamming(a, b) == 1 for a, b in pairs) / len(pairs),
        sum(shifted(a, b) for a, b in pairs) / len(pairs),
        sum(hamming(a, b) for a, b in pairs) / len(pairs),
    )


def chance(k: int) -> tuple[float, float, float]:
    """Mean over all ordered pairs of different k-mers."""
    pairs = [(a, b) for a in kmers(k) for b in kmers(k) if a != b]
    return (
        sum(hamming(a, b) == 1 for a, b in pairs) / len(pairs),
        sum(shifted(a, b) for a, b in pairs) / len(pairs),
        sum(hamming(a, b) for a, b in pairs) / len(pairs),
    )
