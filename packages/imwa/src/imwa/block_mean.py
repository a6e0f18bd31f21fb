"""Mean of one tensor of M replicas in blocks: each replica's memory read once, a NaN looked for while a block is in cache.

Equation  mean = (x_0 + x_1 + .. + x_{M-1}) / M, replica 0 first, the others added in index order, divided once; in float32,
          float64 for float64, cast back once. A tensor that is the same in all M keeps its bits.
Source    IMWA (arXiv 2404.16331): plain mean over all weights; precision and order are readings of ours.
Letters   M replicas.
"""

from collections.abc import Sequence

import torch

from imwa.replica_sum import refuse_nan

BLOCK_BYTES = 2 * 2**20  # of one replica; two of them and the sum stay in a core's cache


@torch.no_grad()
def mean_in_blocks(
    name: str, values: Sequence[torch.Tensor], *, labels: Sequence[str], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of one name's M contiguous CPU tensors of real floats.

    Args:
        name: of the tensor, for errors.
        values: M >= 1 tensors of one dtype and shape; only read.
        labels: what each of the M is called in errors.
        out: takes the mean; contiguous, of the same dtype and shape. None makes a new tensor.

    Raises:
        ValueError: a NaN, or infinities of both signs that make one; tensor and replica are named.
    """
    first = values[0].detach()
    small = first.element_size() == 1  # 8-bit floats: torch adds and compares none of them
    if len(values) > 1 and not small and all(torch.equal(first, value) for value in values[1:]):  # a NaN equals nothing
        return first.clone() if out is None else out.copy_(first)
    result = torch.empty_like(first) if out is None else out
    flats, flat = [value.detach().view(-1) for value in values], result.view(-1)
    kind = torch.float64 if first.dtype == torch.float64 else torch.float32
    length = BLOCK_BYTES // kind.itemsize
    # Made once: temporaries of each block anew leave holes in the heap that add up to several times their size.
    scratch = None if first.dtype == kind else torch.empty(2, min(length, flat.numel()), dtype=kind)
    for start in range(0, flat.numel(), length):
        here = flat[start : start + length]
        blocks = [one[start : start + length] for one in flats]
        if scratch is None:
            total = here
            if len(blocks) == 1:
                total.copy_(blocks[0])
            else:  # one pass where a copy and a sum would be two
                torch.add(blocks[0], blocks[1], out=total)
            for block in blocks[2:]:
                total += block
        else:
            total, wide = scratch[:, : here.numel()]
            total.copy_(blocks[0])
            for block in blocks[1:]:
                total += wide.copy_(block)
        total /= len(values)
        if torch.isnan(total.amax()):
            for value, label in zip(values, labels, strict=True):
                refuse_nan({name: value}, label)
            refuse_nan({name: total}, "the mean (infinities of both signs)")
        if total is not here:
            here.copy_(total)
    return result
