"""How much each unlabelled sample counts: rules from class probabilities to per-sample weights.

    FixedThreshold (FixMatch, arXiv 2001.07685, eq. 4):   k_i = 1[max_c q_ic >= tau]

Protocol  a rule is a module called with the weak view's probabilities Float[U K] (no graph); it answers with the
          weights Float[U] in the same dtype and the mask Bool[U] of samples at or above its threshold. What it
          remembers is in its buffers and moves in the call. It never looks at the classifier.
Letters   U samples, K classes, q probabilities of the weak view, tau threshold, k weights.
"""

from typing import NamedTuple

from torch import Tensor, nn


class Weighted(NamedTuple):
    """Answer of a rule: `weights` Float[U], factors of the samples; `mask` Bool[U], at or above the threshold."""

    weights: Tensor
    mask: Tensor


class FixedThreshold(nn.Module):
    """Weight 1 where the largest probability is at least `threshold`, else 0 (FixMatch, equation 4).

    Args:
        threshold: tau in [0, 1]; 0 takes every sample.

    Raises:
        ValueError: the threshold lies outside [0, 1]; the value is named.
    """

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}. Choose a probability from 0 to 1, such as 0.95.")
        self.threshold = float(threshold)

    def forward(self, probabilities: Tensor) -> Weighted:
        """Weights and mask for probabilities Float[U K]."""
        mask = probabilities.amax(dim=-1) >= self.threshold
        return Weighted(mask.to(probabilities.dtype), mask)
