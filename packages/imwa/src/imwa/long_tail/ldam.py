"""LDAM: a larger margin for rarer classes, on cosine logits.

    z_k = <f / |f|, w_k / |w_k|>                                    CosineClassifier
    L   = mean_B -log softmax(s (z - Delta_y onehot(y)))_y          s = 30
    Delta_k = largest_margin (n_min / n_k) ** (1/4)                 largest margin 0.5, that of the rarest class

Source    Cao et al. 2019, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", arXiv 1906.07413. Their
          deferred re-weighting (DRW) is in `reweighting.py`.
Letters   B samples, D features, K classes, n training samples of each class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imwa.long_tail.counts import check_classes, check_counts, cross_entropy, widened

SCALE = 30.0
LARGEST_MARGIN = 0.5


class CosineClassifier(nn.Module):
    """Cosine of features and class vectors: Float[N D] -> Float[N K] in [-1, 1]. There is no bias.

    Args:
        features: D.
        classes: K.

    The length of a class vector has no effect; vectors start uniform in the cube and are scaled to length 1. A feature
    vector of zeros gives zeros.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the class vectors anew from the global generator."""
        with torch.no_grad():
            self.weight.copy_(nn.functional.normalize(self.weight.uniform_(-1.0, 1.0), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Float[N D] -> Float[N K]."""
        # Autocast would round the cosines to halves before LDAM multiplies them by 30.
        with torch.autocast(features.device.type, enabled=False):
            wide = widened(features)
            weight = self.weight.to(wide.dtype)
            return nn.functional.linear(nn.functional.normalize(wide, dim=-1), nn.functional.normalize(weight, dim=-1))


class LDAMLoss(nn.Module):
    """Cross-entropy of scaled cosine logits with a margin at the true class. It has no parameter and no state to save.

    Args:
        counts: n, training samples of each class, K integers of at least 1.
        largest_margin: Delta of the rarest class, above 0.
        scale: s, above 0.

    The logits must be a `CosineClassifier`'s; on logits of any size a margin of 0.5 says little.

    Raises:
        ValueError: a count is below 1, there are fewer than two, or a value is not above 0; it is named.
    """

    margins: Tensor

    def __init__(self, counts: Sequence[int], *, largest_margin: float = LARGEST_MARGIN, scale: float = SCALE) -> None:
        super().__init__()
        for name, value in (("largest_margin", largest_margin), ("scale", scale)):
            if not 0.0 < value < float("inf"):
                raise ValueError(f"{name} is {value}. Choose a finite number above 0.")
        self.scale = float(scale)
        self.register_buffer("margins", margins(counts, largest_margin=largest_margin), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Float[], mean over the batch; arguments as `BalancedSoftmaxLoss`, the logits being cosines."""
        check_classes(logits, len(self.margins))
        wide = widened(logits)
        own = self.margins.to(wide.dtype)[labels]
        lowered = wide.scatter_add(1, labels[:, None], -own[:, None])
        return cross_entropy(self.scale * lowered, labels, class_weights)


def margins(counts: Sequence[int], *, largest_margin: float = LARGEST_MARGIN) -> Tensor:
    """Float64[K]: Delta of each class."""
    numbers = torch.tensor(check_counts(counts), dtype=torch.float64)
    return largest_margin * (numbers.min() / numbers) ** 0.25
