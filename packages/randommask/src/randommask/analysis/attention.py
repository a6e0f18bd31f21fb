"""Where each head looks: entropy, top-1 mass, mass on [CLS], on [SEP] and nearby, over unmasked rows.

    entropy    - sum over keys j of a_j ln a_j / ln T        1 = all keys alike, 0 = one key
    top1       max over j of a_j                             mass on the one most attended key
    cls, sep   a of the first token, a of the last one       an attention sink there is common and can be healthy
    near       sum of a_j over |i - j| <= k - 1              keys that share bases with query i where k-mers overlap, i itself included

a is the attention of one query of a row of T tokens, specials included, padding left out. Each number is the mean over all
queries of all rows. Attention that is uniform over T keys gives entropy 1, top1 = cls = sep = 1 / T and near = near keys / T: the
level printed beside every number.

Source    RandomMask (arXiv 2310.07644) says that attention "of the middle layers" concentrates on few tokens with overlap, and shows
          maps; these definitions are ours. The weights need eager attention, which is used here alone.
Letters   N rows, T tokens, L layers, H heads.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy
import torch
from torch import Tensor

MEASURES: Final = ("entropy", "top1", "cls", "sep", "near")
_AT_ONCE: Final = 1 << 24  # attention weights held at a time: 64 MB in float32


class AttentionSums(NamedTuple):
    """Sums over queries: `sums` Float64[H 5] in the order of MEASURES, and the number of `queries`."""

    sums: Tensor
    queries: int


def attention_sums(attention: Tensor, present: Tensor, *, reach: int) -> AttentionSums:
    """Measures of one layer, summed over the queries that are not padding.

    Args:
        attention: Float[N H T T], rows of weights that sum to 1 over the last axis.
        present: Bool[N T], false at padding; padding stands at the right.
        reach: keys up to this many tokens from the query are near; k - 1 for k-mers.

    Raises:
        ValueError: a row has fewer than two tokens, for which the entropy has no scale.
    """
    lengths = present.sum(1)
    if int(lengths.min()) < 2:
        raise ValueError(f"A row has {int(lengths.min())} tokens; attention is measured over at least 2.")
    weights = attention.double() * present[:, None, None, :]
    tokens = torch.arange(attention.shape[-1], device=attention.device)
    near = (tokens[:, None] - tokens).abs() <= reach
    last = (lengths - 1)[:, None, None, None].expand(*weights.shape[:3], 1)
    each = torch.stack(
        [
            torch.special.entr(weights).sum(-1) / lengths.double().log()[:, None, None],
            weights.amax(-1),
            weights[..., 0],
            weights.gather(-1, last)[..., 0],
            (weights * near).sum(-1),
        ],
        dim=-1,
    )  # [N H T 5]
    return AttentionSums((each * present[:, None, :, None]).sum((0, 2)), int(lengths.sum()))


def uniform_level(lengths: Sequence[int], *, reach: int) -> dict[str, float]:
    """What attention that is uniform over each row's tokens gives, by measure, over rows of these lengths.

    Example:
        >>> level = uniform_level([10, 10], reach=5)
        >>> level["entropy"], level["top1"], round(level["near"], 3)
        (1.0, 0.1, 0.8)
    """
    queries = sum(lengths)
    # A row of T tokens holds T pairs at distance 0 and 2 (T - d) at distance d.
    near = (n + 2 * sum(n - d for d in range(1, min(reach, n - 1) + 1)) for n in lengths)
    shares = [count / n for count, n in zip(near, lengths, strict=True)]
    one = len(lengths) / queries
    return {"entropy": 1.0, "top1": one, "cls": one, "sep": one, "near": math.fsum(shares) / queries}


def attention_measures(
    model: Any, windows: Sequence[numpy.ndarray], tokenizer: Any, *, reach: int | None = None
) -> dict[str, Tensor]:
    """The measures of a model by layer and head.

    Args:
        model: a `MaskedBert` (or BertForMaskedLM) with eager attention, on the device it computes on; left in evaluation mode.
        windows: rows of base codes UInt8[bases]; nothing is masked.
        tokenizer: a `KmerTokenizer`.
        reach: keys this many tokens away are near; None for k - 1.

    Returns:
        Measure -> Float64[L H], on the CPU.

    Raises:
        ValueError: no window, or a model that gives no attention weights.
    """
    if not windows:
        raise ValueError("There is no window to measure attention on.")
    if model.config._attn_implementation != "eager":
        raise ValueError(
            f"The model computes attention by {model.config._attn_implementation!r}, which keeps no weights. Load it with "
            'attn_implementation="eager".'
        )
    model.eval()
    near = tokenizer.k - 1 if reach is None else reach
    device = next(model.parameters()).device
    rows = sorted(windows, key=len)  # of like length together: little padding
    longest = len(rows[-1]) + 2
    each = model.config.num_hidden_layers * model.config.num_attention_heads * longest**2
    together = max(1, _AT_ONCE // each)
    sums, queries = torch.zeros((), dtype=torch.float64), 0
    for start in range(0, len(rows), together):
        ids, attention = _batch(rows[start : start + together], tokenizer)
        with torch.no_grad():
            out = model.bert(
                ids.to(device), attention_mask=attention.to(device), output_attentions=True, return_dict=True
            )
        layers = [attention_sums(one, attention.to(device) == 1, reach=near) for one in out.attentions]
        sums = sums + torch.stack([layer.sums.cpu() for layer in layers])
        queries += layers[0].queries
    return {name: sums[..., number] / queries for number, name in enumerate(MEASURES)}


def row_lengths(windows: Sequence[numpy.ndarray], tokenizer: Any) -> list[int]:
    """Tokens of each window, [CLS] and [SEP] included."""
    _, attention = _batch(windows, tokenizer)
    return attention.sum(1).tolist()


def _batch(windows: Sequence[numpy.ndarray], tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Ids Int64[N T] and attention mask Int64[N T] of windows, padded at the right."""
    lengths = numpy.array([len(window) for window in windows], dtype=numpy.int64)
    codes = numpy.zeros((len(windows), int(lengths.max())), dtype=numpy.uint8)  # behind a row: never read
    for place, window in zip(codes, windows, strict=True):
        place[: len(window)] = window
    ids, attention, _ = tokenizer.token_rows(codes, lengths)
    return torch.from_numpy(ids), torch.from_numpy(attention)
