"""Dividing labelled rows so that no sequence stands on two sides.

Rows with the same letters are one group; groups are shuffled by `stream(seed, "split")` and dealt until a side has its share
of the rows.
"""

from collections.abc import Sequence

import torch

from scarce_common_utils.streams import stream


def split_by_sequence(sequences: Sequence[str], *, shares: Sequence[float], seed: int) -> list[list[int]]:
    """Row indices of each side, ascending.

    Args:
        sequences: letters of each row.
        shares: of each side, together 1; the first side takes what is left over.
        seed: of the shuffling.

    Raises:
        ValueError: there are fewer distinct sequences than sides; both numbers are named.
    """
    groups: dict[str, list[int]] = {}
    for row, sequence in enumerate(sequences):
        groups.setdefault(sequence, []).append(row)
    if len(groups) < len(shares):
        raise ValueError(
            f"{len(groups)} distinct sequences cannot be divided into {len(shares)} parts. Give more rows."
        )
    names = list(groups)
    order = torch.randperm(len(names), generator=stream(seed, "split")).tolist()
    sides: list[list[int]] = [[] for _ in shares]
    place = 0
    for side in range(1, len(shares)):
        wanted = max(1, round(shares[side] * len(sequences)))
        left = len(shares) - side  # sides still to come, the first included, that need a group each
        while len(sides[side]) < wanted and place < len(order) - left + (not sides[side]):
            sides[side] += groups[names[order[place]]]
            place += 1
    for index in order[place:]:
        sides[0] += groups[names[index]]
    return [sorted(side) for side in sides]


def repeated(rows: Sequence[str], earlier: Sequence[str]) -> int:
    """How many of `rows` stand in `earlier` too."""
    known = set(earlier)
    return sum(row in known for row in rows)


def fresh_rows(rows: Sequence[str], *earlier: Sequence[str]) -> list[int]:
    """Indices of `rows`, the first of each sequence, that stand in none of `earlier`: what a score without repeats is over.

    Example:
        >>> fresh_rows(["A", "C", "C", "T"], ["A"], ["G"])
        [1, 3]
    """
    seen = set().union(*earlier)
    found = []
    for row, sequence in enumerate(rows):
        if sequence not in seen:
            seen.add(sequence)
            found.append(row)
    return found
