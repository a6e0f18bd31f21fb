"""Sequences longer than the model: cut into even pieces of tokens, and the logits of a sequence's pieces averaged.

    pieces   ceil(T / M) of T tokens, M = tokens a model takes without specials; lengths differ by at most 1; each in its own specials
    logits   mean over the pieces of a sequence, in training and in evaluation alike

Every token stands in exactly one piece. Ours: DNABERT's answers to this question differ from one another.

Letters   N sequences, P pieces, T tokens, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor


class Specials(NamedTuple):
    """What a tokenizer puts in front of and behind a piece, its padding id, and the most tokens between them."""

    front: tuple[int, ...]
    behind: tuple[int, ...]
    pad: int
    most: int


def even_pieces(tokens: int, *, most: int) -> list[tuple[int, int]]:
    """Begin and end of each piece of a row of `tokens`, one piece at least.

    Example:
        >>> even_pieces(10, most=4), even_pieces(0, most=4)
        ([(0, 3), (3, 6), (6, 10)], [(0, 0)])
    """
    count = max(1, -(-tokens // most))
    ends = [place * tokens // count for place in range(count + 1)]
    return list(pairwise(ends))


def collate_pieces(rows: Sequence[dict[str, Any]], *, pad: int) -> dict[str, Tensor]:
    """Batch of rows with `pieces` (arrays of ids, specials included) and `labels`.

    Returns:
        `input_ids` and `attention_mask` Int64[P T]; `rows` Int64[P], the row of each piece; `labels` [N].
    """
    pieces = [piece for row in rows for piece in row["pieces"]]
    longest = max(len(piece) for piece in pieces)
    ids = numpy.full((len(pieces), longest), pad, dtype=numpy.int64)
    attention = numpy.zeros_like(ids)
    for place, piece in enumerate(pieces):
        ids[place, : len(piece)] = piece
        attention[place, : len(piece)] = 1
    owner = [number for number, row in enumerate(rows) for _ in row["pieces"]]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(attention),
        "rows": torch.tensor(owner),
        "labels": torch.stack([row["labels"] for row in rows]),
    }


def pooled(logits: Tensor, rows: Tensor, *, count: int) -> Tensor:
    """Float32[N K]: mean of the logits Float[P K] of each row's pieces; rows Int64[P], N = `count`."""
    sums = torch.zeros((count, logits.shape[1]), dtype=torch.float32, device=logits.device)
    sums = sums.index_add(0, rows, logits.float())
    pieces = torch.zeros(count, dtype=torch.float32, device=logits.device)
    pieces = pieces.index_add(0, rows, torch.ones_like(rows, dtype=torch.float32))
    return sums / pieces[:, None]
