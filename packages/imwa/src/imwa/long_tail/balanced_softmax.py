"""Balanced softmax: cross-entropy of logits raised by the logarithm of their class's count.

    L = mean_B -log softmax(z + log n)_y          training; at test the plain z decide

Source    Ren et al. 2020, "Balanced Meta-Softmax", arXiv 2007.10740.
Letters   B samples, K classes, z logits, n training samples of each class.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from imwa.long_tail.counts import check_classes, cross_entropy, log_counts, widened


class BalancedSoftmaxLoss(nn.Module):
    """Cross-entropy of z + log n. It has no parameter and no state to save.

    Args:
        counts: n, training samples of each class, K integers of at least 1.

    Raises:
        ValueError: a count is below 1, or there are fewer than two; the class is named.

    Example:
        >>> import torch
        >>> loss = BalancedSoftmaxLoss([100, 10, 1])
        >>> round(float(loss(torch.zeros(1, 3), torch.tensor([2]))), 4)      # log(111 / 1)
        4.7095
    """

    offsets: Tensor

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("offsets", log_counts(counts), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Float[], mean over the batch.

        Args:
            logits: Float[B K].
            labels: Int64[B] in 0..K-1.
            class_weights: Float[K] or None.
        """
        check_classes(logits, len(self.offsets))
        wide = widened(logits)
        return cross_entropy(wide + self.offsets.to(wide.dtype), labels, class_weights)
