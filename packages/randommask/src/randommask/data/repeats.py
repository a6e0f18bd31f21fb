"""Rows of labelled sequences that repeat one another, on either strand, inside a side and across sides.

A sequence and its reverse complement are one molecule, read from its two ends; whether they count as the same depends on the task.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from randommask.alphabet import base_codes, bases, reverse_complement


class Repeats(NamedTuple):
    """Rows that repeat an earlier one: `same` letter for letter, `other_strand` as its reverse complement alone."""

    same: int
    other_strand: int


def repeats_by_side(sides: Mapping[str, Sequence[str]]) -> dict[str, Repeats]:
    """Repeats within each side, and of each later side's rows in an earlier one; those without a repeat are left out.

    Args:
        sides: name -> upper-case letters of its rows, the training side first.

    Example:
        >>> repeats_by_side({"train": ["AAC", "AAC", "GTT"], "test": ["AAC", "CCC"]})
        {'within train': Repeats(same=1, other_strand=1), 'test in train too': Repeats(same=1, other_strand=0)}
    """
    found: dict[str, Repeats] = {}
    known: dict[str, tuple[set[str], set[str]]] = {}  # letters, and the letters of the other strand
    for side, rows in sides.items():
        letters, others = set[str](), set[str]()
        same = other = 0
        across: dict[str, tuple[int, int]] = dict.fromkeys(known, (0, 0))
        for row in rows:
            same += row in letters
            other += row not in letters and row in others
            for earlier, (theirs, turned) in known.items():
                here = across[earlier]
                across[earlier] = (here[0] + (row in theirs), here[1] + (row not in theirs and row in turned))
            letters.add(row)
            others.add(other_strand(row))
        found[f"within {side}"] = Repeats(same, other)
        found |= {f"{side} in {earlier} too": Repeats(*counts) for earlier, counts in across.items()}
        known[side] = (letters, others)
    return {name: repeats for name, repeats in found.items() if any(repeats)}


def other_strand(letters: str) -> str:
    """The reverse complement of letters; what is no base becomes N.

    Example:
        >>> other_strand("GATTACA")
        'TGTAATC'
    """
    return bases(reverse_complement(base_codes(letters)))


def differing_labels(rows: Sequence[str], labels: Sequence[object]) -> int:
    """How many distinct sequences stand under more than one label."""
    seen: dict[str, set[object]] = {}
    for row, label in zip(rows, labels, strict=True):
        seen.setdefault(row, set()).add(label)
    return sum(len(found) > 1 for found in seen.values())
