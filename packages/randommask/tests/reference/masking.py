"""Span masking by loops over rows, centres and window positions, from arrays that were drawn before.

Source: RandomMask (arXiv 2310.07644), Algorithm 1 as its reviews restate it: a draw <= p at i masks i - m/2 + 1 ... i + m/2;
DNABERT's run_pretrain.py, MASK_LIST, for the odd widths, and mask_tokens for 80 / 10 / 10.
"""

from collections.abc import Sequence

# Offsets by width as DNABERT (3, 4, 5, 6), the reviews (even) and Genomics-FM (14) have them, written out by hand.
OFFSETS = {
    1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 2), 5: (2, 2), 6: (2, 3), 7: (3, 3), 8: (3, 4), 9: (4, 4), 10: (4, 5),
    11: (5, 5), 12: (5, 6), 13: (6, 6), 14: (6, 7),
}  # fmt: skip


def masked(
    centres: Sequence[Sequence[bool]],
    maskable: Sequence[Sequence[bool]],
    widths: Sequence[Sequence[int]],
    segments: Sequence[Sequence[int]] | None = None,
) -> list[list[bool]]:
    """Union of windows, each centre with its own width; cut at row ends, passing over what is not maskable."""
    result = []
    for row in range(len(centres)):
        length = len(centres[row])
        out = [False] * length
        for c in range(length):
            if not (centres[row][c] and maskable[row][c]):
                continue
            left, right = OFFSETS[widths[row][c]]
            for i in range(c - left, c + right + 1):
                if i < 0 or i >= length or not maskable[row][i]:
                    continue
                if segments is not None and segments[row][i] != segments[row][c]:
                    continue
                out[i] = True
        result.append(out)
    return result


def replaced(
    ids: Sequence[Sequence[int]],
    mask: Sequence[Sequence[bool]],
    choice: Sequence[float],
    random_ids: Sequence[int],
    mask_id: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """Inputs and labels; `choice` holds one draw a masked token, row by row, `random_ids` one a token that needs it."""
    inputs, labels = [list(row) for row in ids], [[-100] * len(row) for row in ids]
    at = drawn = 0
    for row in range(len(ids)):
        for i in range(len(ids[row])):
            if not mask[row][i]:
                continue
            labels[row][i] = ids[row][i]
            if choice[at] < 0.8:
                inputs[row][i] = mask_id
            elif choice[at] < 0.9:
                inputs[row][i] = random_ids[drawn]
                drawn += 1
            at += 1
    return inputs, labels


def hidden_bases(mask: Sequence[bool], k: int, visible: Sequence[bool] | None = None) -> list[int]:
    """Bases of a row of overlapping k-mers that no visible token shows and some masked token contains.

    `visible` says which tokens show their bases; by default those that are not masked. A token that is neither masked nor
    visible ([UNK]) shows nothing.
    """
    shows = [not m for m in mask] if visible is None else visible
    hidden = []
    for base in range(len(mask) + k - 1):
        covering = [t for t in range(len(mask)) if t <= base <= t + k - 1]
        if any(mask[t] for t in covering) and not any(shows[t] for t in covering):
            hidden.append(base)
    return hidden


def contained(mask: Sequence[bool], hidden: Sequence[int], k: int) -> list[int]:
    """Hidden bases inside each masked token, in order."""
    return [sum(t <= base <= t + k - 1 for base in hidden) for t in range(len(mask)) if mask[t]]
