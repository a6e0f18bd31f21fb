"""Entropy of masked k-mers given the visible ones, by enumeration of all sequences over a small alphabet.

Every sequence is equally likely; the visible k-mers fix some letters, and the entropy of a masked k-mer is taken over the
sequences that agree with them. Unit: letters, that is, entropy over log(alphabet).
"""

import math
from collections import Counter
from itertools import product


def mean_letters(run: int, k: int, alphabet: int) -> float:
    """Mean entropy, in letters, of the `run` masked k-mers between k visible ones on either side."""
    tokens = run + 2 * k
    length = tokens + k - 1
    shown = [t for t in range(tokens) if t < k or t >= k + run]
    groups: dict[tuple, list[tuple[int, ...]]] = {}
    for letters in product(range(alphabet), repeat=length):
        groups.setdefault(tuple(letters[t : t + k] for t in shown), []).append(letters)
    total = 0.0
    for t in range(k, k + run):
        for group in groups.values():
            counts = Counter(letters[t : t + k] for letters in group)
            size = len(group)
            entropy = -sum(count / size * math.log(count / size) for count in counts.values())
            total += entropy * size / alphabet**length
    return total / run / math.log(alphabet)
