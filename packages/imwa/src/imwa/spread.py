"""How far replicas lie around their mean, from one number a replica and the episode's start.

Equation  s = sqrt((1/M) sum_m |theta_m - mean|^2) / |mean|
          (1/M) sum_m |theta_m - mean|^2 = (1/M) sum_m (|theta_m - theta|^2 - |mean - theta|^2), theta the episode's start.
Over      trained weights (parameters of floats that require a gradient), tied ones once. Buffers are not among them: a
          running variance has another scale, and it would drown the weights or drown in them.
Rounding  distances are summed in float64, but the stored mean is rounded: replicas that part by less than about 1e-4 of the way
          that they went in the episode (float32; bfloat16: a few hundredths) are seen too roughly. 0 where all are equal.
Source    ours. The start as the reference keeps the terms as small as an episode's way, so that they cancel little.
Letters   M replicas.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from imwa.replica_sum import widened


def relative_spread(squares: Sequence[float], model: torch.nn.Module, *, start: Mapping[str, torch.Tensor]) -> float:
    """S of the module docstring; NaN where a square is no finite number, infinite around a mean of zeros.

    Args:
        squares: `squared_distance` of every replica from `start`, M numbers.
        model: holds the mean.
        start: tensors of the episode's start, by name.
    """
    if not all(map(math.isfinite, squares)):
        return math.nan
    way, norm = squared_distance(model, start), squared_distance(model, {})
    square = max(0.0, math.fsum(one - way for one in squares) / len(squares))
    if norm == 0.0:
        return math.inf if square else 0.0
    return math.sqrt(square / norm)


@torch.no_grad()
def squared_distance(model: torch.nn.Module, start: Mapping[str, torch.Tensor]) -> float:
    """Sum of squares of (weight - start) over all trained weights; a weight that is not in `start` counts from zero."""
    parts: list[torch.Tensor] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.numel():
            # MPS has no float64; there the sum is in float32.
            kind = torch.float32 if weight.device.type == "mps" else torch.float64
            way = widened(weight.detach())
            if name in start:
                way = way - widened(start[name])
            way = torch.view_as_real(way) if way.is_complex() else way
            parts.append(torch.linalg.vector_norm(way, dtype=kind).square())
    if not parts:
        return 0.0
    return float(torch.stack([part.to(parts[0].device) for part in parts]).sum())  # one wait for the device
