"""Two starts of a BERT over k-mers: the usual one, and a structured one from which copying between neighbours is near.

    usual        every weight normal, std 0.02 (BERT's)
    structured   embedding of a k-mer = sum over its k places of a vector for (place, base), plus noise;
                 position table = sinusoids; all other weights normal
                 k-mer embeddings of std 0.2, sinusoids of amplitude 0.4, the other weights of std 0.1

Overlapping k-mers share bases; the structured start says so before the first step. It changes initial values alone: ids, model
and loss stay. Ours, not the paper's, and not in any of its experiments: a model that is compared with one of this start must have it too.

Letters   V vocabulary, D width of the states.
"""

import math
from typing import Any, Final, Literal

import torch
from torch import Tensor

from randommask.kmers import FIRST_KMER, check_k
from scarce_common_utils.streams import stream

StartName = Literal["usual", "structured"]
STD: Final = 0.2  # of the k-mer embeddings
OTHER_STD: Final = 0.1  # of all other weights
POSITION_SCALE: Final = 2.0  # amplitude of the sinusoids, in units of STD
NOISE_SHARE: Final = 0.01  # of the k-mer embeddings' variance; the rest is the sum over places


def start_weights(model: Any, start: StartName, *, k: int, seed: int) -> None:
    """Set all weights of a fresh BERT from `stream(seed, "init")`.

    Args:
        model: a transformers BERT (its `bert.embeddings`, `config` and `_init_weights` are used).
        start: `usual` or `structured`.
        k: bases a k-mer.
        seed: the run's seed.

    Raises:
        ValueError: an unknown start, or k out of range.
    """
    if start not in ("usual", "structured"):
        raise ValueError(f"start is {start!r}; choose usual or structured.")
    generator = stream(seed, "init")
    std = OTHER_STD if start == "structured" else model.config.initializer_range
    model.config.initializer_range = std  # so that a head put on later begins alike
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
                if isinstance(module, torch.nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
        embeddings = model.bert.embeddings
        words, positions = embeddings.word_embeddings.weight, embeddings.position_embeddings.weight
        if start == "structured":
            words.copy_(kmer_sums(check_k(k), words.shape[1], generator=generator))
            positions.copy_(sinusoids(*positions.shape) * (POSITION_SCALE * STD))
        words[model.config.pad_token_id].zero_()
        model.tie_weights()


def kmer_sums(k: int, width: int, *, generator: torch.Generator) -> Tensor:
    """Float[V D], V = 5 + 4^k: sums of k vectors, one for each (place in the k-mer, base), plus noise; std 0.2."""
    vectors = torch.randn((k, 4, width), generator=generator) * (STD * math.sqrt((1 - NOISE_SHARE) / k))
    table = torch.randn((FIRST_KMER + 4**k, width), generator=generator) * (STD * math.sqrt(NOISE_SHARE))
    numbers = torch.arange(4**k)
    for place in range(k):
        table[FIRST_KMER:] += vectors[place, numbers // 4 ** (k - 1 - place) % 4]
    return table


def sinusoids(positions: int, width: int) -> Tensor:
    """Float[positions D]: sine in the even columns, cosine in the odd ones, of wavelengths from 2 pi to 20,000 pi."""
    angles = torch.arange(positions)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    table = torch.zeros(positions, width)
    table[:, 0::2] = torch.sin(angles)
    table[:, 1::2] = torch.cos(angles)[:, : width // 2]
    return table
