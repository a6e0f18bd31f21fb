"""Logit adjustment: class priors taken out of the logits, in training or afterwards.

    training   L = mean_B -log softmax(z + tau log pi)_y          plain z at test
    post hoc   train with cross-entropy, predict argmax z - tau log pi

At tau = 1 the training form is balanced softmax: log n and log pi differ by a constant.

Source    Menon et al. 2020, arXiv 2007.07314; tau = 1 is theirs.
Letters   B samples, K classes, z logits, pi = n / sum n shares of the classes.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from imwa.long_tail.counts import check_classes, cross_entropy, log_counts, widened


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of z + tau log pi. It has no parameter and no state to save.

    Args:
        counts: n, training samples of each class, K integers of at least 1.
        tau: strength; 0 is plain cross-entropy.

    Raises:
        ValueError: a count is below 1, there are fewer than two, or tau is not finite; the value is named.
    """

    offsets: Tensor

    def __init__(self, counts: Sequence[int], *, tau: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("offsets", log_priors(counts, tau=tau), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Float[], mean over the batch; arguments as `BalancedSoftmaxLoss`."""
        check_classes(logits, len(self.offsets))
        wide = widened(logits)
        return cross_entropy(wide + self.offsets.to(wide.dtype), labels, class_weights)


class PostHocAdjusted(nn.Module):
    """A trained model whose logits are adjusted: images -> z - tau log pi, Float[B K].

    Args:
        model: images -> logits, trained with plain cross-entropy; borrowed, not copied.
        counts: n, K integers of at least 1.
        tau: strength; 0 leaves the logits.

    Raises:
        ValueError: as `log_priors`.
    """

    offsets: Tensor

    def __init__(self, model: nn.Module, counts: Sequence[int], *, tau: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("offsets", log_priors(counts, tau=tau), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Adjusted logits, in float32 or better."""
        logits = self.model(images)
        check_classes(logits, len(self.offsets))
        wide = widened(logits)
        return wide - self.offsets.to(wide)


def log_priors(counts: Sequence[int], *, tau: float = 1.0) -> Tensor:
    """Float64[K]: tau log pi."""
    if not math.isfinite(tau):
        raise ValueError(f"tau is {tau}. Choose a finite number, such as 1.")
    logarithms = log_counts(counts)
    return tau * (logarithms - math.log(sum(counts)))


def adjusted(logits: Tensor, counts: Sequence[int], *, tau: float = 1.0) -> Tensor:
    """Logits of the post-hoc form, Float[B K]: z - tau log pi, for a model trained with plain cross-entropy.

    Raises:
        ValueError: a count is below 1, or the logits have another number of classes.
    """
    check_classes(logits, len(counts))
    wide = widened(logits)
    return wide - log_priors(counts, tau=tau).to(wide)
