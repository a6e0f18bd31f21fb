"""Counts what would make a GPU step wait.

Reads of a tensor's value on the host, shapes that depend on values, and `torch.where` with a bare number, which on a GPU
is copied there by a blocking copy (`scalar_tensor`).
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "bincount",
    "equal",
    "_unique2",
    "unique_dim",
    "scalar_tensor",
}
INDEXING = {"index", "index_put", "index_put_"}


class HostReads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in INDEXING else ()
        boolean = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        if name in READS or boolean:
            self.found.append(name)
        return func(*args, **(kwargs or {}))
