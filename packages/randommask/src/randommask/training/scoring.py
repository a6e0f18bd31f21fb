"""Masked log-likelihood of sequences: how well a masked-language model predicts each token from the bases around it.

    score of token t   ln p(x_t | row with the w tokens around it shown as [MASK])
    log-likelihood     sum over the tokens t of a sequence                     nats, 0 at most
    a token            that sum / number of scored tokens
    a base             that sum / hidden bases inside the scored tokens         (a base inside k tokens counts k times)

p is over the whole vocabulary. **Overlapping k-mers share bases: with [MASK] at t alone, the neighbours spell x_t out, and the score
says nothing.** A window of w tokens hides w - k + 1 bases. w = 2k - 1, the default, is the narrowest that hides all k bases of its
middle token; a wider one hides n = w - 2(k - 1) whole tokens, which are scored together: cheaper, and harder; a narrower one (k at
least) leaves bases of the scored token in sight: w = k hides one. A model that knows nothing scores about -ln 4^k a token, -ln 4 a
base. Of tokens that share no base (side by side, BPE), w = 1 by default and all w tokens of a window are scored; where a token's bases
are not known, a base is a letter of the sequence.

Windows are cut at a row's ends; specials and [UNK] are neither masked nor scored. Longer sequences are cut into even pieces, each
scored by itself.

Source    pseudo-log-likelihood: Wang and Cho 2019, Salazar et al. 2020 (one token at a time); the window for overlapping k-mers is ours.
Cost      T / n rows of T tokens for a sequence of T tokens.        Letters   N sequences, P pieces, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from randommask.masking import IGNORED
from randommask.models.masked_bert import MaskedBert
from randommask.training.loading import Loaded, Pieces, by_length, padded


class Scores(NamedTuple):
    """Of each of N sequences: `total` Float64[N] in nats, `tokens` Int64[N] scored, `bases` Int64[N] hidden inside them.

    `bases` is 0 where the tokenizer does not say how many bases a token has.
    """

    total: numpy.ndarray
    tokens: numpy.ndarray
    bases: numpy.ndarray


class Window(NamedTuple):
    """Places of a piece: tokens [start, stop) are scored while [left, right) are masked."""

    start: int
    stop: int
    left: int
    right: int


class MaskedRow(NamedTuple):
    """Bare `ids` Int32[T] of a row with a window masked, the `places` scored, their `targets`, and the `owner` sequence."""

    ids: numpy.ndarray
    places: numpy.ndarray
    targets: numpy.ndarray
    owner: int


def default_width(reach: int) -> int:
    """2k - 1 for overlapping k-mers (`reach` = k), 1 for tokens that share no base."""
    return 2 * reach - 1


def windows(tokens: int, *, width: int, reach: int) -> list[Window]:
    """Windows of a row, by which each token is scored exactly once.

    Raises:
        ValueError: the width is below `reach`, so that the neighbours give every base away.

    Example:
        >>> windows(4, width=5, reach=2)[0], len(windows(4, width=5, reach=2))
        (Window(start=0, stop=3, left=0, right=4), 2)
    """
    if width < reach:
        raise ValueError(
            f"width is {width}, but overlapping {reach}-mers share bases: a window below {reach} tokens hides none. Take "
            f"{default_width(reach)} to hide all bases of a token."
        )
    together = max(1, width - 2 * (reach - 1))
    before = (width - together) // 2
    behind = width - together - before
    return [
        Window(start, min(start + together, tokens), max(0, start - before), min(start + together + behind, tokens))
        for start in range(0, tokens, together)
    ]


def scores(
    loaded: Loaded,
    pieces: Pieces,
    *,
    count: int,
    width: int | None = None,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Score sequences; a sequence without a scored token has 0 in all three.

    Args:
        loaded: a masked-language model, on the device it computes on.
        pieces: of N sequences.
        count: N.
        width: of the mask in tokens; None for the default.
        batch_size: masked rows a batch.
        autocast: bfloat16 or float16 for the forward pass.
        advance: called with the number of masked rows done.

    Raises:
        ValueError: the width is too narrow; see `windows`.
    """
    width = default_width(loaded.reach) if width is None else width
    windows(0, width=width, reach=loaded.reach)
    total = numpy.zeros(count)
    tokens, bases = numpy.zeros((2, count), dtype=numpy.int64)
    for piece in range(len(pieces.ids)):
        ids = pieces.ids[piece]
        allowed = maskable(ids, loaded.tokenizer)
        tokens[pieces.owners[piece]] += allowed.sum()
        if loaded.reach > 1:
            bases[pieces.owners[piece]] += int((hidden_bases(allowed, width=width, reach=loaded.reach) * allowed).sum())
    if loaded.reach == 1:
        bases = tokens * getattr(loaded.tokenizer, "k", 0)
    for batch in _batches(masked_rows(loaded, pieces, width=width), batch_size):
        values = _log_probabilities(loaded, batch, autocast=autocast)
        owners = numpy.repeat([row.owner for row in batch], [len(row.places) for row in batch])
        numpy.add.at(total, owners, values)
        advance(len(batch))
    return Scores(total, tokens, bases)


def count_rows(loaded: Loaded, pieces: Pieces, *, width: int) -> int:
    """How many masked rows `scores` will run, where no window is all [UNK]."""
    together = max(1, width - 2 * (loaded.reach - 1))
    return sum(-(-len(ids) // together) for ids in pieces.ids)


def masked_rows(loaded: Loaded, pieces: Pieces, *, width: int) -> Iterator[MaskedRow]:
    """A row for each window that holds a token to score, longest pieces first."""
    mask = loaded.tokenizer.mask_token_id
    for piece in by_length(pieces.ids):
        ids = pieces.ids[piece]
        allowed = maskable(ids, loaded.tokenizer)
        for window in windows(len(ids), width=width, reach=loaded.reach):
            places = window.start + numpy.flatnonzero(allowed[window.start : window.stop])
            if places.size:
                row = ids.copy()
                row[window.left : window.right][allowed[window.left : window.right]] = mask
                yield MaskedRow(row, places, ids[places], int(pieces.owners[piece]))


def maskable(ids: numpy.ndarray, tokenizer: Any) -> numpy.ndarray:
    """Bool[T]: what is neither special nor [UNK]."""
    return ~numpy.isin(ids, [*tokenizer.all_special_ids])


def hidden_bases(allowed: numpy.ndarray, *, width: int, reach: int) -> numpy.ndarray:
    """Int64[T]: bases of each overlapping k-mer that its window hides, at most k = `reach`.

    A base is hidden if every maskable token that covers it lies in the window.
    """
    length = len(allowed)
    if width >= default_width(reach):
        return numpy.full(length, reach)
    before, behind = (width - 1) // 2, width // 2
    place = numpy.arange(length)
    sums = numpy.concatenate([[0], numpy.cumsum(allowed)])

    def among(
        low: numpy.ndarray, high: numpy.ndarray
    ) -> numpy.ndarray:  # maskable tokens from low to high, both counted
        low, high = numpy.clip(low, 0, length), numpy.clip(high + 1, 0, length)
        return numpy.where(high > low, sums[high] - sums[numpy.minimum(low, high)], 0)

    hidden = numpy.zeros(length, dtype=numpy.int64)
    for base in range(reach):  # its covering tokens are place + base - reach + 1 ... place + base
        outside = among(place + base - reach + 1, place - before - 1) + among(place + behind + 1, place + base)
        hidden += outside == 0
    return hidden


def _batches(rows: Iterator[MaskedRow], size: int) -> Iterator[list[MaskedRow]]:
    batch = list[MaskedRow]()
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _log_probabilities(loaded: Loaded, batch: Sequence[MaskedRow], *, autocast: torch.dtype | None) -> numpy.ndarray:
    """Float64[M]: ln p of the targets of all rows, row by row."""
    device = next(loaded.model.parameters()).device
    ids, attention = padded([row.ids for row in batch], loaded.specials, device=device)
    front, width = len(loaded.specials.front), ids.shape[1]
    flat = numpy.concatenate([number * width + front + row.places for number, row in enumerate(batch)])
    positions = torch.from_numpy(flat.astype(numpy.int64)).to(device)
    targets = torch.from_numpy(numpy.concatenate([row.targets for row in batch]).astype(numpy.int64)).to(device)
    with torch.no_grad(), torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        logits = _logits(loaded.model, ids, attention, positions, targets)
    found = logits.float().log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    return found.double().cpu().numpy()


def _logits(model: Any, ids: Tensor, attention: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
    """Float[M V] at flat positions; our own model computes its head there alone."""
    if isinstance(model, MaskedBert):
        labels = torch.full_like(ids, IGNORED)
        labels.view(-1)[positions] = targets
        return model(input_ids=ids, attention_mask=attention, labels=labels, masked_positions=positions).logits
    out = model(input_ids=ids, attention_mask=attention)
    logits = out[0] if isinstance(out, tuple) else out.logits
    return logits.reshape(-1, logits.shape[-1]).index_select(0, positions)
