"""Embeddings of sequences: one vector a sequence from an encoder's states.

    mean   e = sum over the tokens of all pieces of h_t / number of tokens       specials and padding left out, [UNK] counted
    cls    e = mean over the pieces of the state of the first special token

h is the state at layer l: 0 is the embedding layer's, L the last. A sequence longer than the model is cut into even pieces, as in
fine-tuning; every token stands in exactly one. Batches go by length; a sequence's vector depends on its batch by rounding alone.

Letters   N sequences, T tokens, D width of the states, L layers.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy
import torch
from torch import Tensor

from randommask.training.loading import Loaded, Pieces, by_length, padded

Pooling = Literal["mean", "cls"]
POOLINGS: Final[tuple[Pooling, ...]] = ("mean", "cls")


def embeddings(
    loaded: Loaded,
    pieces: Pieces,
    *,
    pooling: Pooling = "mean",
    layer: int | None = None,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> numpy.ndarray:
    """One vector a sequence.

    Args:
        loaded: an encoder, on the device it computes on.
        pieces: of N sequences, each with a token at least.
        pooling: see the module.
        layer: 0 to L; None for the last.
        batch_size: pieces a batch.
        autocast: bfloat16 or float16 for the forward pass.
        advance: called with the number of pieces done.

    Returns:
        Float32[N D].

    Raises:
        ValueError: `pooling` is unknown, a layer the model does not have, a sequence without a token, or `cls` where the
            tokenizer puts nothing in front; the value is named.
    """
    layers = layers_of(loaded)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}; choose mean or cls.")
    if layer is not None and not 0 <= layer <= layers:
        raise ValueError(f"layer is {layer}, but the model has the layers 0 (embeddings) to {layers}.")
    if pooling == "cls" and not loaded.specials.front:
        raise ValueError(f"pooling is cls, but {type(loaded.tokenizer).__name__} puts no token in front. Take mean.")
    count = int(pieces.owners.max()) + 1
    weights = numpy.zeros(count)
    numpy.add.at(weights, pieces.owners, [float(len(ids)) if pooling == "mean" else 1.0 for ids in pieces.ids])
    if not weights.all():
        raise ValueError(f"sequence {int(weights.argmin())} has no token, so its mean is undefined. Take it out.")
    sums: numpy.ndarray | None = None
    order = by_length(pieces.ids)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        found = _pooled(
            loaded, [pieces.ids[piece] for piece in chosen], pooling=pooling, layer=layer, autocast=autocast
        )
        sums = numpy.zeros((count, found.shape[1])) if sums is None else sums
        numpy.add.at(sums, pieces.owners[chosen], found)
        advance(len(chosen))
    assert sums is not None
    return (sums / weights[:, None]).astype(numpy.float32)


def layers_of(loaded: Loaded) -> int:
    """Number of the last layer: how many the encoder has."""
    return int(loaded.model.config.num_hidden_layers)


def _pooled(
    loaded: Loaded, rows: Sequence[numpy.ndarray], *, pooling: Pooling, layer: int | None, autocast: torch.dtype | None
) -> numpy.ndarray:
    """Float64[P D]: sum over the tokens of each piece, or the state of its first special."""
    device = next(loaded.model.parameters()).device
    ids, attention = padded(rows, loaded.specials, device=device)
    inner = layer is not None and layer < layers_of(loaded)
    with torch.no_grad(), torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        out = loaded.model(input_ids=ids, attention_mask=attention, output_hidden_states=inner)
    states = (out.hidden_states[layer] if inner else _last(out)).double()
    if pooling == "cls":
        return states[:, 0].cpu().numpy()
    front = len(loaded.specials.front)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    place = torch.arange(ids.shape[1], device=device) - front
    real = (place >= 0) & (place < lengths[:, None])
    return (states * real[:, :, None]).sum(1).cpu().numpy()


def _last(out: Any) -> Tensor:
    # Models with code of their own (DNABERT-2's) may hand out a bare tuple.
    return out[0] if isinstance(out, tuple) else out.last_hidden_state
