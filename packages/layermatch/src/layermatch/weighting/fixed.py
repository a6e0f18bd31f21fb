"""FixMatch's weights: one threshold for all classes and all time.

    k_i = 1[max_c q_ic >= tau]

Source    FixMatch, arXiv 2001.07685, equation 4 (its code has >=).
Letters   U samples, K classes, q probabilities of the weak view, tau threshold, k weights.
"""

from torch import Tensor

from layermatch.keywords import spelt

from .rule import Weighted, WeightingRule


class FixedThreshold(WeightingRule):
    """Weight 1 where the largest probability is at least `threshold`, else 0 (FixMatch, equation 4). No state.

    Args:
        threshold: tau in [0, 1]; 0 takes every sample.

    Raises:
        ValueError: the threshold lies outside [0, 1]; the value is named.
    """

    @spelt
    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}. Choose a probability from 0 to 1, such as 0.95.")
        self.threshold = float(threshold)

    def forward(
        self,
        probabilities: Tensor,
        *,
        strong_logits: Tensor | None = None,
        indices: Tensor | None = None,
        finite: Tensor | None = None,
    ) -> Weighted:
        """As `WeightingRule.forward`; nothing but the probabilities is looked at."""
        mask = probabilities.amax(dim=-1) >= self.threshold
        return Weighted(mask.to(probabilities.dtype), mask)
