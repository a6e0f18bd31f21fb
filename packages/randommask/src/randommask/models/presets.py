"""Sizes of BERT by name, from one that learns within a minute on two cores to DNABERT's.

    tiny    2 layers x  64,  2 heads      the probe's; quickstart
    small   4 layers x 256,  4 heads
    medium  8 layers x 512,  8 heads
    base   12 layers x 768, 12 heads      DNABERT: 89 M parameters at k = 6

Attention dropout is 0 throughout (ours: with it, scaled-dot-product attention on a CPU falls back on the form that stores the
probabilities, a quarter slower and twice the memory); DNABERT has 0.1. Hidden dropout is DNABERT's 0.1, and 0 for tiny.
"""

from typing import Final, Literal, NamedTuple

from transformers import BertConfig

from randommask.kmers import PAD_ID, check_k

SizeName = Literal["tiny", "small", "medium", "base"]


class Size(NamedTuple):
    """Numbers of one size; the feed-forward layer is four times as wide as the states."""

    layers: int
    width: int
    heads: int
    hidden_dropout: float


SIZES: Final[dict[SizeName, Size]] = {
    "tiny": Size(2, 64, 2, 0.0),
    "small": Size(4, 256, 4, 0.1),
    "medium": Size(8, 512, 8, 0.1),
    "base": Size(12, 768, 12, 0.1),
}


def bert_config(
    size: SizeName,
    *,
    k: int = 6,
    positions: int = 512,
    hidden_dropout: float | None = None,
    attention_dropout: float = 0.0,
) -> BertConfig:
    """Configuration of a BERT over k-mers.

    Args:
        size: a name of `SIZES`.
        k: bases a k-mer; the vocabulary has 5 + 4^k entries.
        positions: most tokens of a row, specials included.
        hidden_dropout: None for the size's own.
        attention_dropout: DNABERT has 0.1.

    Raises:
        ValueError: an unknown size, or k out of range; the value is named.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size!r}; choose one of {', '.join(SIZES)}.")
    layers, width, heads, dropout = SIZES[size]
    return BertConfig(
        vocab_size=5 + 4 ** check_k(k),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=positions,
        hidden_dropout_prob=dropout if hidden_dropout is None else hidden_dropout,
        attention_probs_dropout_prob=attention_dropout,
        pad_token_id=PAD_ID,
    )
