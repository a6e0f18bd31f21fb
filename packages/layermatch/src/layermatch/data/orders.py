"""Which images a step sees: pure functions of (seed, step), so that resume and prefetching keep no iterator.

The images of a set are shuffled anew for each pass (epoch), and the passes are laid end to end; step s takes the places
s B to (s + 1) B - 1 of that endless row. Within a pass no image comes twice; a labelled set smaller than the batch is
seen several times in one step, each image equally often.
Letters   B images a step, N images of the set.
"""

from functools import lru_cache

import torch
from torch import Tensor

from scarce_common_utils.streams import stream


def labelled_order(seed: int, step: int, *, size: int, batch: int) -> Tensor:
    """Int64[batch] places in a labelled set of `size` images, for the stream "labelled order".

    Raises:
        ValueError: the set is empty, or the batch or the step is out of range.
    """
    return _places(seed, "labelled order", step=step, size=size, batch=batch)


def unlabelled_order(seed: int, step: int, *, size: int, batch: int) -> Tensor:
    """Int64[batch] places in an unlabelled set of `size` images, for the stream "unlabelled order".

    Raises:
        ValueError: as `labelled_order`.
    """
    return _places(seed, "unlabelled order", step=step, size=size, batch=batch)


def _places(seed: int, name: str, *, step: int, size: int, batch: int) -> Tensor:
    if size < 1 or batch < 1 or step < 0:
        raise ValueError(f"size is {size}, batch {batch} and step {step}; they must be at least 1, 1 and 0.")
    first, last = step * batch, (step + 1) * batch
    parts = []
    for epoch in range(first // size, (last - 1) // size + 1):
        start = max(first - epoch * size, 0)
        parts.append(_permutation(seed, name, epoch=epoch, size=size)[start : last - epoch * size])
    return torch.cat(parts)


@lru_cache(maxsize=8)
def _permutation(seed: int, name: str, *, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=stream(seed, name, epoch))
