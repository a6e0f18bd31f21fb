"""FlexMatch's weights: a threshold for each class, low for classes that few images have passed yet.

    s_n        the latest confident pseudo-label of image n, -1 where there was none
    sigma_c    = #{n: s_n = c},   sigma_unused = #{n: s_n = -1}
    beta_c     = sigma_c / max(max_c' sigma_c', sigma_unused)      warm-up (default); without it: sigma_c / max_c' sigma_c'
    k_i        = 1[q_i,y_i >= tau M(beta_y_i)],    y_i = argmax_c q_ic,    M(beta) = beta / (2 - beta)
    then       s_index_i <- y_i where q_i,y_i >= tau (the full one)

So the thresholds of a batch come from the batches before it; before any image was confident, all are 0 (all samples
count: meant so) unless the mapping says otherwise. The published code counts all N images anew at every step; here the
counts are kept and only the images of the batch are taken out and put in. An image that stands twice in a batch (of all
processes, in the order of ranks) keeps its last confident label. Where one class holds all N images the published code
leaves beta as it was; here it is what the equation says.

Source    FlexMatch, arXiv 2110.08263, equations 5 to 8 and 11; code of TorchSSL and USB. The other mappings stand in
          that code under the names used here, commented out.
Letters   U samples of this process, K classes, N unlabelled images, q probabilities, tau threshold, k weights.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from layermatch.keywords import spelt
from layermatch.processes import gathered

from .rule import Weighted, WeightingRule, all_finite, check_choice, check_count, check_range

MAPPINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "convex": lambda beta: beta / (2.0 - beta),
    "linear": lambda beta: (beta + 1.0) / 2.0,
    "low_limit": lambda beta: 1.0 / (2.0 - beta),
    "concave": lambda beta: (beta.log1p() + 0.5) / (math.log(2.0) + 0.5),
}


class FlexMatchWeighting(WeightingRule):
    """Weight 1 where the confidence reaches the pseudo-label's own threshold, else 0 (FlexMatch).

    Args:
        classes: K, at least 2.
        images: N, the number of unlabelled images; `indices` of the calls run from 0 to N - 1.
        threshold: tau in [0, 1], what the thresholds rise to.
        warm_up: whether images without a confident label hold all thresholds down (published, on).
        mapping: M by its name in the published code; a key of `MAPPINGS`.

    Raises:
        ValueError: a value out of range or an unknown mapping; it is named.

    State: `flexmatch_labels` Int64[N] is s; `flexmatch_counts` Int64[1 + K] counts the images without a label first,
    then those of each class. On a GPU indices are not range-checked, so that the step never waits.

    Example:
        >>> rule = FlexMatchWeighting(2, 10)
        >>> rule(torch.tensor([[0.6, 0.4], [0.1, 0.9]]), indices=torch.tensor([3, 7])).weights
        tensor([1., 1.])
    """

    needs_indices = True
    flexmatch_labels: Tensor
    flexmatch_counts: Tensor

    @spelt
    def __init__(
        self, classes: int, images: int, *, threshold: float = 0.95, warm_up: bool = True, mapping: str = "convex"
    ) -> None:
        super().__init__()
        self.classes = check_count("classes", classes, 2)
        self.images = check_count("images", images, 1)
        self.threshold = check_range("threshold", threshold, 0.0, 1.0)
        self.warm_up = bool(warm_up)
        self.mapping = check_choice("mapping", mapping, tuple(MAPPINGS))
        self.register_buffer("flexmatch_labels", torch.full((images,), -1, dtype=torch.int64))
        counts = torch.zeros(1 + classes, dtype=torch.int64)
        counts[0] = images
        self.register_buffer("flexmatch_counts", counts)

    def thresholds(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Float[K], the threshold of each class as it stands now: tau M(beta)."""
        held = self.flexmatch_counts[1:]
        most = self.flexmatch_counts.amax() if self.warm_up else held.amax()
        beta = held.to(dtype) / most.clamp(min=1).to(dtype)
        return self.threshold * MAPPINGS[self.mapping](beta)

    def forward(
        self,
        probabilities: Tensor,
        *,
        strong_logits: Tensor | None = None,
        indices: Tensor | None = None,
        finite: Tensor | None = None,
    ) -> Weighted:
        """As `WeightingRule.forward`; needs `indices`.

        Raises:
            ValueError: indices are missing, of another shape or type, or (on the CPU) out of range; named.
        """
        self._check_batch(probabilities, self.classes)
        indices = self._checked(indices, len(probabilities))
        confidence, labels = probabilities.max(dim=-1)
        mask = confidence >= self.thresholds(probabilities.dtype).index_select(0, labels)
        self._note(indices, labels, confidence >= self.threshold, finite=all_finite(confidence, finite))
        return Weighted(mask.to(probabilities.dtype), mask)

    @torch.no_grad()
    def _note(self, indices: Tensor, labels: Tensor, confident: Tensor, *, finite: Tensor) -> None:
        """Write the confident labels: sorted by image, the last of each image's run is the one that counts."""
        columns = [indices, labels, confident.long(), finite.long().expand_as(labels)]
        indices, labels, confident, finite = gathered(torch.stack(columns, dim=1)).unbind(1)
        noted = (confident * finite.amin()).bool()
        key, order = indices.masked_fill(~noted, self.images).sort(stable=True)
        following = torch.cat([key[1:], key.new_full((1,), -1)])
        kept = ((key != following) & (key < self.images)).long()
        places, new = indices.index_select(0, order), labels.index_select(0, order)
        old = self.flexmatch_labels.index_select(0, places)
        # Sums of whole numbers, at most one of them not 0 for each image: the same in whatever order they are added.
        self.flexmatch_labels.index_add_(0, places, (new - old) * kept)
        self.flexmatch_counts.index_add_(0, new + 1, kept).index_add_(0, old + 1, -kept)

    def _checked(self, indices: Tensor | None, samples: int) -> Tensor:
        if indices is None:
            raise ValueError(
                "FlexMatchWeighting keeps a label for each unlabelled image and was called without indices. Pass "
                "indices=, Int64[U], the images' places in the unlabelled set."
            )
        if indices.shape != (samples,) or indices.dtype != torch.int64:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)} and dtype {indices.dtype}. They must be ({samples},) and "
                "torch.int64: one place in the unlabelled set for each sample."
            )
        if indices.device.type == "cpu" and not torch.compiler.is_compiling():
            values = indices.numpy()  # no torch call, and no read on a device
            if values.min() < 0 or values.max() >= self.images:
                wrong = next(int(value) for value in values if not 0 <= value < self.images)
                raise ValueError(
                    f"An index is {wrong}, and the rule was built for {self.images} unlabelled images, so indices run "
                    f"from 0 to {self.images - 1}. Number the unlabelled images themselves, or build it with images=."
                )
        return indices
