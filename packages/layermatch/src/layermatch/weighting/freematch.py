"""FreeMatch's weights and its fairness term: thresholds that follow the model's own confidence, global and by class.

In this order, m the momentum, all three starting at 1/K:

    tau   <- m tau + (1-m) mean_i max_c q_ic            (or a quantile of the maxima)
    p_c   <- m p_c + (1-m) mean_i q_ic
    h_c   <- m h_c + (1-m) share of samples with y_i = c,       y_i = argmax_c q_ic
    tau_c  = tau p_c / max_c' p_c'
    k_i    = 1[q_i,y_i >= tau_y_i]

    extra  = w_f sum_c a_c log(b_c + 1e-12),    a = SumNorm(p / h),    b = SumNorm(pbar / hbar)
    pbar_c = sum_i k_i p_s,ic / sum_i k_i,      hbar_c = sum_i k_i 1[argmax p_s,i = c] / sum_i k_i

p_s are the strong view's probabilities; 1/0 counts as 0; the extra term is 0 where no sample counts. It is minus a
cross-entropy, added: the sign is as published. Its gradient flows through pbar alone. The published code picks the
samples by boolean indexing; multiplying by k gives the same numbers without a read on the host. Over processes all
means, shares and sums are those of the whole batch.

Source    FreeMatch, arXiv 2205.07246, equations 5 to 11; code of TorchSSL (`freematch_entropy`) and of USB, which differ
          in w_f and in how thresholds may be limited (see `variant`).
Letters   U samples of this process, K classes, q probabilities of the weak view, k weights.
"""

from typing import cast

import torch
from torch import Tensor

from layermatch.keywords import spelt
from layermatch.processes import gathered, process_count, summed, summed_with_gradient

from .rule import Weighted, WeightingRule, all_finite, check_choice, check_count, check_range, move

FAIRNESS_WEIGHTS = {"usb": 0.001, "torchssl": 0.01}  # USB: its classic configurations; its code's default is 0.01


class FreeMatchWeighting(WeightingRule):
    """Weight 1 where the confidence reaches the pseudo-label's adaptive threshold, else 0; with the fairness term.

    Args:
        classes: K, at least 2.
        momentum: m in [0, 1], per call.
        fairness_weight: w_f, at least 0; None takes the variant's, 0.001 (`usb`) or 0.01 (`torchssl`). With 0 no
            strong logits are needed and there is no extra term.
        variant: `"usb"` or `"torchssl"`; what `limits` hold, and the default of `fairness_weight`.
        quantile: in [0, 1], the quantile of the batch's maxima that tau follows (USB's option: 0.8); None: their mean.
        limits: smallest and largest threshold, each in [0, 1], or None. `usb` holds the global tau in them, and keeps
            it there (published for SVHN alone: 0, 0.95); `torchssl` holds each tau_c (SVHN alone: 0.9, 0.95).

    Raises:
        ValueError: a value out of range or an unknown variant; it is named.

    State: `freematch_threshold` Float[] is tau, `freematch_probabilities` Float[K] is p, `freematch_shares` Float[K] is h.

    Example:
        >>> rule = FreeMatchWeighting(2)
        >>> logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
        >>> weights, mask, fairness = rule(torch.tensor([[0.6, 0.4], [0.1, 0.9]]), strong_logits=logits)
        >>> weights, fairness.requires_grad
        (tensor([1., 1.]), True)
    """

    freematch_threshold: Tensor
    freematch_probabilities: Tensor
    freematch_shares: Tensor

    @spelt
    def __init__(
        self,
        classes: int,
        *,
        momentum: float = 0.999,
        fairness_weight: float | None = None,
        variant: str = "usb",
        quantile: float | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.classes = check_count("classes", classes, 2)
        self.momentum = check_range("momentum", momentum, 0.0, 1.0)
        self.variant = check_choice("variant", variant, tuple(FAIRNESS_WEIGHTS))
        wanted = FAIRNESS_WEIGHTS[variant] if fairness_weight is None else fairness_weight
        self.fairness_weight = check_range("fairness_weight", wanted, 0.0, 1e18)
        self.quantile = None if quantile is None else check_range("quantile", quantile, 0.0, 1.0)
        if limits is not None and not 0.0 <= limits[0] <= limits[1] <= 1.0:
            raise ValueError(f"limits are {limits}. Choose a smallest and a largest threshold, both from 0 to 1.")
        self.limits = limits
        self.register_buffer("freematch_threshold", torch.full((), 1.0 / classes, dtype=torch.float32))
        self.register_buffer("freematch_probabilities", torch.full((classes,), 1.0 / classes, dtype=torch.float32))
        self.register_buffer("freematch_shares", torch.full((classes,), 1.0 / classes, dtype=torch.float32))

    def thresholds(self) -> Tensor:
        """Float[K], the threshold of each class as it stands now."""
        found = self.freematch_threshold * (self.freematch_probabilities / self.freematch_probabilities.amax())
        return found.clamp(*self.limits) if self.limits is not None and self.variant == "torchssl" else found

    def forward(
        self,
        probabilities: Tensor,
        *,
        strong_logits: Tensor | None = None,
        indices: Tensor | None = None,
        finite: Tensor | None = None,
    ) -> Weighted:
        """As `WeightingRule.forward`; needs `strong_logits` unless `fairness_weight` is 0.

        Raises:
            ValueError: strong logits are missing or of another shape than the probabilities; named.
        """
        self._check_batch(probabilities, self.classes)
        fair = self.fairness_weight > 0.0
        if fair and (strong_logits is None or strong_logits.shape != probabilities.shape):
            given = "none" if strong_logits is None else f"some of shape {tuple(strong_logits.shape)}"
            raise ValueError(
                f"FreeMatchWeighting's fairness term needs strong_logits of shape {tuple(probabilities.shape)} and was "
                f"given {given}. Pass the strong view's logits, or switch the term off with fairness_weight=0."
            )
        confidence, labels = probabilities.max(dim=-1)
        self._learn(probabilities, confidence, labels, finite=all_finite(confidence, finite))
        mask = confidence >= self.thresholds().index_select(0, labels)
        weights = mask.to(probabilities.dtype)
        if not fair:
            return Weighted(weights, mask)
        target = self.freematch_probabilities * reciprocal(self.freematch_shares)
        loss = fairness(cast(Tensor, strong_logits), weights, target=target)
        return Weighted(weights, mask, self.fairness_weight * loss)

    @torch.no_grad()
    def _learn(self, probabilities: Tensor, confidence: Tensor, labels: Tensor, *, finite: Tensor) -> None:
        counts = occurrences(labels, torch.ones_like(confidence), self.classes)
        sums = torch.cat([confidence.sum().reshape(1), probabilities.sum(dim=0), counts])
        means = summed(sums.masked_fill(~finite, float("nan"))) / (len(labels) * process_count())
        level, mean, share = means.split([1, self.classes, self.classes])
        finite = means.isfinite().all()
        if self.quantile is not None:
            level = quantile(gathered(confidence), self.quantile)
        move(self.freematch_threshold, level.reshape(()), momentum=self.momentum, moves=finite)
        move(self.freematch_probabilities, mean, momentum=self.momentum, moves=finite)
        move(self.freematch_shares, share, momentum=self.momentum, moves=finite)
        if self.limits is not None and self.variant == "usb":
            self.freematch_threshold.copy_(
                torch.where(finite, self.freematch_threshold.clamp(*self.limits), self.freematch_threshold)
            )


def fairness(strong_logits: Tensor, weights: Tensor, *, target: Tensor) -> Tensor:
    """Float[], sum_c a_c log(b_c + 1e-12) of the module's docstring over all processes; 0 where no sample counts.

    Args:
        strong_logits: Float[U K] with a graph.
        weights: Float[U] of 0 and 1.
        target: Float[K], p / h; it is normalised here.
    """
    dtype = weights.dtype
    strong = torch.softmax(strong_logits, dim=-1, dtype=dtype)
    classes = strong.shape[-1]
    with torch.no_grad():
        hits = occurrences(strong.argmax(dim=-1), weights, classes)
    packed = torch.cat([(weights[:, None] * strong).sum(dim=0), hits, weights.sum().reshape(1)])
    total = summed_with_gradient(packed)
    mass, hits, count = total[:classes], total[classes:-1].detach(), total[-1].detach()
    most = count.clamp(min=1.0)
    scaled = (mass / most) * reciprocal(hits / most)
    a = target.to(dtype) / target.to(dtype).sum()
    b = scaled / _one_where_zero(scaled.sum())
    return (a * torch.log(b + 1e-12)).sum() * (count > 0)


def occurrences(labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Float[K], the sum of the weights of each label's samples; what bincount gives, without its read on the host."""
    return weights.new_zeros(classes).index_add_(0, labels, weights)


def reciprocal(values: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return (values != 0) / _one_where_zero(values)


def quantile(values: Tensor, share: float) -> Tensor:
    """Float[], the quantile of Float[n] by linear interpolation, as `torch.quantile`, which copies from the host."""
    place = share * (len(values) - 1)
    below = min(int(place), len(values) - 1)
    ordered = values.sort().values
    return ordered[below].lerp(ordered[min(below + 1, len(values) - 1)], place - below)


def _one_where_zero(values: Tensor) -> Tensor:
    return values.masked_fill(values == 0, 1.0)
