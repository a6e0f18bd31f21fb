"""Masked-language loss on held-out DNA at fixed widths, between what counting k-mers gives and what no model can beat.

    loss      mean over all masked tokens of the cross-entropy, nats
    floor     ln 4 x (hidden bases inside masked tokens that stay hidden) / masked tokens, counted on the same masks
    ceiling   the loss of k-mer frequencies alone: of the training DNA, add-one, on the same masked tokens

Losses of different widths do not compare; each stands between its own floor and the ceiling. The floor is that of independent
uniform bases: real DNA is more regular, so a model may in principle fall below it.

Letters   N windows, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple

import numpy
import torch
from torch import Tensor

from randommask.collator import RandomMaskCollator
from randommask.genome.store import Genome, Stretch, known_stretches, pieces
from randommask.identities import UNIFORM_ENTROPY, count_hidden
from randommask.kmers import kmer_ids
from randommask.masking import IGNORED

EVALUATION_SEED: Final = 0  # of the masks, whatever the run's own seed: every arm meets the same ones


class MaskedLoss(NamedTuple):
    """Evaluation at one `width`: `loss`, `floor`, `ceiling` in nats a masked token, `masked_share`, `masked` tokens.

    `parts` are the summed loss and the masked tokens of each batch, which an interval comes from.
    """

    width: int
    loss: float
    floor: float
    ceiling: float | None
    masked_share: float
    masked: int
    parts: tuple[tuple[float, int], ...] = ()


def masked_losses(
    model: Any,
    windows: Sequence[numpy.ndarray],
    tokenizer: Any,
    *,
    widths: Sequence[int],
    frequencies: Tensor | None = None,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
) -> list[MaskedLoss]:
    """Evaluate a model at fixed widths.

    Args:
        model: a `MaskedBert`, on the device it computes on; left in evaluation mode.
        windows: N windows of base codes UInt8[L].
        tokenizer: a `KmerTokenizer`.
        widths: mask widths in tokens; each centre is drawn with the default probability of the tokenizer's k.
        frequencies: log of the k-mer frequencies, Float64[V], for the ceiling.
        batch_size: windows a batch; part of what the masks are drawn from, so keep it when comparing.
        autocast: bfloat16 or float16 for the forward pass.

    Raises:
        ValueError: no token of any window was masked at a width; it is named.
    """
    model.eval()
    return [
        _at_width(
            model,
            windows,
            RandomMaskCollator(tokenizer, schedule=width, seed=EVALUATION_SEED),
            frequencies=frequencies,
            batch_size=batch_size,
            autocast=autocast,
        )
        for width in widths
    ]


def _at_width(
    model: Any,
    windows: Sequence[numpy.ndarray],
    collator: RandomMaskCollator,
    *,
    frequencies: Tensor | None,
    batch_size: int,
    autocast: torch.dtype | None,
) -> MaskedLoss:
    assert isinstance(collator.schedule, int)
    device = next(model.parameters()).device
    loss = floor = ceiling = 0.0
    masked = maskable = 0
    parts: list[tuple[float, int]] = []
    for start in range(0, len(windows), batch_size):
        batch = collator(windows[start : start + batch_size])
        where = batch["labels"] != IGNORED
        allowed = where | (batch["input_ids"] >= collator.tokenizer.kmer_vocabulary.start)
        counts = count_hidden(where, allowed, k=collator.tokenizer.k, overlap=collator.tokenizer.overlap)
        masked += int(counts.masked)
        maskable += int(counts.maskable)
        floor += float(counts.expected) * UNIFORM_ENTROPY
        if frequencies is not None:
            ceiling -= float(frequencies[batch["labels"][where]].sum())
        with torch.no_grad(), _autocast(device, autocast):
            out = model(**{name: value.to(device) for name, value in batch.items()}, num_items_in_batch=1)
        loss += float(out.loss)
        if int(counts.masked):
            parts.append((float(out.loss), int(counts.masked)))
    if not masked:
        raise ValueError(
            f"No token was masked at width {collator.schedule}: the {len(windows)} windows are too few or too short."
        )
    return MaskedLoss(
        collator.schedule,
        loss / masked,
        floor / masked,
        None if frequencies is None else ceiling / masked,
        masked / maskable,
        masked,
        tuple(parts),
    )


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def log_frequencies(genome: Genome, stretches: Sequence[Stretch], *, k: int) -> Tensor:
    """Log of the k-mer frequencies of some stretches, each count one more than found: Float64[5 + 4^k], -inf at specials."""
    counts = numpy.zeros(5 + 4**k)
    for stretch in known_stretches(genome, stretches, longest_unknown=0, least=k):
        for start, stop in pieces(stretch, overlap=k - 1):
            counts += numpy.bincount(kmer_ids(genome.codes[start:stop], k), minlength=len(counts))
    counts[5:] += 1
    with numpy.errstate(divide="ignore"):
        return torch.from_numpy(numpy.log(counts / counts.sum()))
