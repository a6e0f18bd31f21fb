"""What a mask hides: masked share, hidden bases and the loss that even a perfect model pays, in closed form and counted.

    masked share, long row      1 - q^w                                        w width in tokens, p centre probability, q = 1 - p
    hidden bases of r tokens    max(0, r - k + 1)                              a run of masked k-mers between visible ones
    P(base hidden)              1 - q^w (1 + (k - 1) p),  w >= k - 1           k masked tokens in a row cover it
    floor, all shown as [MASK]  F = H k P(base hidden) / (1 - q^w)             nats a masked token; H = ln 4 a base
    floor with 80/10/10         0.9^k F                                        a token left unchanged shows its bases

So a window as wide as a k-mer hides one base, and a narrower one none. At a row's end a base lies in fewer than k tokens;
`count_hidden` counts on the mask itself and is exact there.

k-mers side by side (stride k, `overlap=False`) share no base, so a masked token hides its own k whatever the width:

    hidden bases of r tokens    k r
    P(base hidden)              1 - q^w                                        the masked share, at every place of a row
    floor, all shown as [MASK]  H k;  with 80/10/10 at least 0.9 H k           one of k tokens' chances in place of k

The width then changes only how much is masked, and how near a masked token's visible neighbours are. Losses of the two strides
do not compare: their floors at width k are 1.05 and 7.49 nats (k = 6, p = 0.025).

Source    derived in the package's tests, each closed form against simulation or enumeration; not in the paper. H = ln 4 is
          for independent uniform bases: real DNA has less, every floor scales with it.
Letters   N sequences, T tokens; nats throughout.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

UNIFORM_ENTROPY: Final = math.log(4)


def window_reach(width: int) -> tuple[int, int]:
    """Tokens to the left and right of its centre that a window of `width` covers: (w - 1) // 2 and w // 2."""
    return (width - 1) // 2, width // 2


def masked_share(width: int | Sequence[int], probability: float, *, tokens: int | None = None) -> float:
    """Expected share of the tokens that are masked.

    Args:
        width: tokens a window, or several of which each centre draws one uniformly.
        probability: chance of a token to be a centre.
        tokens: maskable tokens of the row, without gaps; None for a long row.

    Example:
        >>> round(masked_share(6, 0.025), 5), round(masked_share(14, 0.025, tokens=510), 5)
        (0.14093, 0.29663)
    """
    widths = [width] if isinstance(width, int) else list(width)
    reaches = [window_reach(one) for one in widths]
    if tokens is None:
        return 1 - _unmasked(reaches, probability, before=max(widths), behind=max(widths))
    unmasked = (_unmasked(reaches, probability, before=j, behind=tokens - 1 - j) for j in range(tokens))
    return 1 - sum(unmasked) / tokens


def _unmasked(reaches: list[tuple[int, int]], probability: float, *, before: int, behind: int) -> float:
    """Chance that no centre at most `before` tokens to the left or `behind` to the right masks a token."""
    chance = 1 - probability
    for distance in range(1, min(before, max(right for _, right in reaches)) + 1):
        chance *= 1 - probability * sum(right >= distance for _, right in reaches) / len(reaches)
    for distance in range(1, min(behind, max(left for left, _ in reaches)) + 1):
        chance *= 1 - probability * sum(left >= distance for left, _ in reaches) / len(reaches)
    return chance


def hidden_bases_of_run(tokens: int, k: int, *, overlap: bool = True) -> int:
    """Bases that a run of masked k-mers between two visible ones hides: max(0, r - k + 1); side by side k r."""
    return max(0, tokens - k + 1) if overlap else tokens * k


def hidden_bases_of_token(offset: int, *, tokens: int, k: int) -> int:
    """Hidden bases that the token at `offset` (from 0) of a run of masked tokens contains.

    Example:
        >>> [hidden_bases_of_token(offset, tokens=8, k=6) for offset in range(8)]
        [1, 2, 3, 3, 3, 3, 2, 1]
    """
    return max(0, min(offset + k - 1, tokens - 1) - max(offset, k - 1) + 1)


def mean_run_length(width: int, probability: float) -> float:
    """Mean number of masked tokens in a row, in a long row: (1 - q^w) / (p q^w)."""
    kept = (1 - probability) ** width
    return (1 - kept) / (probability * kept)


def base_hidden_probability(width: int, probability: float, *, k: int, overlap: bool = True) -> float:
    """Chance that a base is hidden in a long row.

    Raises:
        ValueError: k-mers overlap and the width is below k - 1, where the closed form does not hold; both are named.
    """
    if not overlap:
        return masked_share(width, probability)
    if width < k - 1:
        raise ValueError(
            f"width is {width}, but the closed form holds from k - 1 = {k - 1} on. Count with count_hidden instead."
        )
    return 1 - (1 - probability) ** width * (1 + (k - 1) * probability)


def hidden_per_masked_token(width: int, probability: float, *, k: int, overlap: bool = True) -> float:
    """Hidden bases over masked tokens of a long row; where k-mers overlap, a masked token contains k times as many on average."""
    if not overlap:
        return float(k)
    return base_hidden_probability(width, probability, k=k) / masked_share(width, probability)


def isolated_floor(width: int, *, k: int, entropy: float = UNIFORM_ENTROPY, overlap: bool = True) -> float:
    """Nats a masked token of a perfect model for one window alone, all shown as [MASK]: H k max(0, w - k + 1) / w, else H k."""
    return entropy * (k if overlap else 1) * hidden_bases_of_run(width, k, overlap=overlap) / width


def loss_floor(
    width: int,
    probability: float,
    *,
    k: int,
    entropy: float = UNIFORM_ENTROPY,
    unchanged_share: float = 0.1,
    overlap: bool = True,
) -> float:
    """Nats a masked token that a perfect model pays in a long row: a lower bound under 80/10/10, exact for 0 unchanged.

    Example:
        >>> round(loss_floor(6, 0.025, k=6), 4), round(loss_floor(14, 0.025, k=6), 4)
        (1.0523, 3.1215)
        >>> round(loss_floor(6, 0.025, k=6, overlap=False), 4)
        7.486
    """
    containing = k if overlap else 1  # masked tokens that contain a hidden base
    hidden = hidden_per_masked_token(width, probability, k=k, overlap=overlap)
    return entropy * containing * hidden * (1 - unchanged_share) ** containing


class Hidden(NamedTuple):
    """Counts of one masked batch, as tensors without dimensions on the batch's device."""

    maskable: Tensor  # Int64: tokens that could be masked
    masked: Tensor  # Int64: tokens that are
    bases: Tensor  # Int64: hidden bases
    expected: Tensor  # Float32: hidden bases summed over the masked tokens that contain them, each times its chance to stay hidden


def count_hidden(
    masked: Tensor, maskable: Tensor, *, k: int, overlap: bool = True, unchanged_share: float = 0.1
) -> Hidden:
    """Count what a mask hides, exactly, row ends and [UNK] gaps included.

    A base is hidden if every maskable token that covers it is masked. Under 80/10/10 it stays so only if none of these is
    left unchanged. `expected / masked` times the entropy of a base is the floor of the loss for this mask.

    Args:
        masked: Bool[N T].
        maskable: Bool[N T]; one sequence a row, its tokens side by side (no packed rows).
        k: bases a k-mer.
        overlap: whether neighbours share k - 1 bases.
        unchanged_share: share of the masked tokens that show their own id, 0 to below 1.
    """
    if not overlap:
        count = masked.sum()
        return Hidden(maskable.sum(), count, count * k, count * (k * (1 - unchanged_share)))
    covering = _window_sums(maskable, k)
    hidden = (covering == _window_sums(masked, k)) & (covering > 0)
    stays = covering * torch.exp(covering * math.log(1 - unchanged_share))
    return Hidden(maskable.sum(), masked.sum(), hidden.sum(), (stays * hidden).sum())


def _window_sums(flags: Tensor, k: int) -> Tensor:
    """Int32[N T+k-1]: flags among the k tokens that end here, that is, those that cover base i of the row."""
    padded = torch.nn.functional.pad(flags.to(torch.int32), (k - 1, k - 1))
    return padded.unfold(1, k, 1).sum(dim=-1, dtype=torch.int32)
