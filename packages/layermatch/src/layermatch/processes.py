"""Sums and gathers over the processes of a distributed run; with one process they hand back what they were given.

    summed      s -> sum over processes, no graph
    summed_with_gradient   the same, and the gradient of every process's result comes back: d s_r = sum_r' d result_r'
    gathered    rows of all processes one below the other, in the order of ranks, no graph

A loss that every process computes from the same sum, followed by DistributedDataParallel's mean over processes, so gets
exactly the single process's gradient, without a further factor. (`torch.distributed.nn.functional.all_reduce` does the
same; it is deprecated, and its successor is private.)

Every process must make the same calls, with tensors of the same shape. Without an initialised group, or in a group of
one, nothing is communicated and nothing is copied. No call reads a value on the host.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """Processes of the default group; 1 where none is initialised."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes, of the same shape and dtype, without a graph; `tensor` itself stays as it is."""
    if process_count() == 1:
        return tensor.detach()
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def summed_with_gradient(tensor: Tensor) -> Tensor:
    """The sum over processes, differentiable: each process receives the sum of all processes' gradients."""
    return tensor if process_count() == 1 else _Sum.apply(tensor)


def gathered(rows: Tensor) -> Tensor:
    """Rows of all processes, Any[processes * U ...] for Any[U ...], in the order of ranks; without a graph."""
    count = process_count()
    if count == 1:
        return rows.detach()
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count)]
    distributed.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return summed(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return summed(gradients[0])
