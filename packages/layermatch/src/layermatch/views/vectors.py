"""Views of samples that are vectors: Gaussian noise, and features dropped to their mean.

    out = keep * (x + noise * n),    n ~ N(0, 1),    keep = 0 with probability `dropout`, else 1, for each number of its own

The vectors are standardised: each feature has mean 0 and deviation 1 over the data, so that `noise` is a share of a feature's
own spread, and a dropped feature says what the mean says: nothing.

Source    ours. FixMatch, arXiv 2001.07685, asks for a weak and a strong view and defines both for images alone; no views of
          tables are the paper's. What a person knows of the features (an instrument's error, units) makes better views.
Letters   N vectors, D features.
"""

import torch
from torch import Tensor


def noisy_views(vectors: Tensor, *, generator: torch.Generator, noise: float, dropout: float = 0.0) -> Tensor:
    """Float32[N D] -> Float32[N D], each number with its own draws.

    Args:
        vectors: standardised, Float32[N D], on any device.
        generator: of the CPU, such as `stream(seed, "weak", step)`; the same draws on every device.
        noise: deviation of the noise, in deviations of a feature, at least 0.
        dropout: probability of a feature's being dropped, from 0 to 1.

    Raises:
        ValueError: the noise or the dropout is out of range; it is named.
    """
    if not noise >= 0.0 or not 0.0 <= dropout <= 1.0:
        raise ValueError(f"noise is {noise} and dropout {dropout}; they must be at least 0, and from 0 to 1.")
    added = torch.randn(vectors.shape, generator=generator).mul_(noise)
    kept = torch.rand(vectors.shape, generator=generator) >= dropout
    return (vectors + added.to(vectors.device)) * kept.to(vectors.device)
