"""SoftMatch's weights: 1 above the mean confidence, a Gaussian flank below it, after uniform alignment.

In this order, m the momentum, C classes:

    p_c    <- m p_c + (1-m) mean_i q_ic;   the first batch sets p to its mean         (state starts at 1/C)
    q'_ic   = SumNorm_c(q_ic (1/C + 1e-6) / (p_c + 1e-6)),     v_i = max_c q'_ic
    mu     <- m mu + (1-m) mean_i v_i                                                  (starts at 1/C)
    var    <- m var + (1-m) variance_i v_i, unbiased                                   (starts at 1)
    k_i     = exp(-min(v_i - mu, 0)^2 / (2 var / n_sigma^2))

The alignment serves the weights alone: pseudo-labels are the argmax of q itself. The mask is v_i >= mu. Over processes
mean and variance are those of all maxima. With fewer than two samples the variance stays as it was.

Source    SoftMatch, arXiv 2301.10921, equations 5 to 9; code of USB, followed by default, and of TorchSSL (see `variant`).
          TorchSSL's code aligns to a moving average of the labelled batch's probabilities, without the 1e-6; here the
          target is uniform in both, which is the paper's.
Letters   U samples of this process, K classes (C above), q probabilities of the weak view, k weights.
"""

import torch
from torch import Tensor

from layermatch.keywords import spelt
from layermatch.processes import gathered, process_count, summed

from .rule import Weighted, WeightingRule, all_finite, check_choice, check_count, check_range, move

VARIANTS = ("usb", "torchssl")
SMOOTHING = 1e-6  # added to target and average, USB's code


class SoftMatchWeighting(WeightingRule):
    """Weight by a truncated Gaussian of the confidence whose mean and variance are learnt (SoftMatch).

    Args:
        classes: K, at least 2.
        momentum: m in [0, 1], per call, of all averages.
        n_sigma: how many standard deviations the flank is narrowed to, at least 0; 0 takes every sample.
        alignment: uniform alignment; without it q' is q.
        variant: `"usb"`: mean and variance are of the aligned maxima, and p starts with the first batch's mean;
            `"torchssl"`: of the unaligned ones, and p starts at 1/K.

    Raises:
        ValueError: a value out of range or an unknown variant; it is named.

    State: `softmatch_mean` and `softmatch_variance` Float[]; with alignment `softmatch_probabilities` Float[K] is p
    and `softmatch_started` Bool[], whether a batch has been seen.

    Example:
        >>> SoftMatchWeighting(2, momentum=0.0, alignment=False)(torch.tensor([[0.6, 0.4], [0.1, 0.9]])).mask
        tensor([False,  True])
    """

    softmatch_mean: Tensor
    softmatch_variance: Tensor
    softmatch_probabilities: Tensor
    softmatch_started: Tensor

    @spelt
    def __init__(
        self,
        classes: int,
        *,
        momentum: float = 0.999,
        n_sigma: float = 2.0,
        alignment: bool = True,
        variant: str = "usb",
    ) -> None:
        super().__init__()
        self.classes = check_count("classes", classes, 2)
        self.momentum = check_range("momentum", momentum, 0.0, 1.0)
        self.n_sigma = check_range("n_sigma", n_sigma, 0.0, 1e6)
        self.alignment = bool(alignment)
        self.variant = check_choice("variant", variant, VARIANTS)
        self.register_buffer("softmatch_mean", torch.full((), 1.0 / classes, dtype=torch.float32))
        self.register_buffer("softmatch_variance", torch.ones((), dtype=torch.float32))
        if self.alignment:
            self.register_buffer("softmatch_probabilities", torch.full((classes,), 1.0 / classes, dtype=torch.float32))
            self.register_buffer("softmatch_started", torch.tensor(variant == "torchssl"))

    @property
    def threshold(self) -> Tensor:
        """Float[], the mean confidence from which a sample counts in full."""
        return self.softmatch_mean

    def forward(
        self,
        probabilities: Tensor,
        *,
        strong_logits: Tensor | None = None,
        indices: Tensor | None = None,
        finite: Tensor | None = None,
    ) -> Weighted:
        """As `WeightingRule.forward`; nothing but the probabilities is looked at."""
        self._check_batch(probabilities, self.classes)
        confidence = unaligned = probabilities.amax(dim=-1)
        finite = all_finite(unaligned, finite)
        if self.alignment:
            self._learn_alignment(probabilities, finite=finite)
            confidence = self.aligned(probabilities).amax(dim=-1)
        self._learn_confidence(unaligned if self.variant == "torchssl" else confidence, finite=finite)
        below = (confidence - self.softmatch_mean).clamp(max=0.0) * self.n_sigma
        variance = self.softmatch_variance.clamp(min=torch.finfo(self.softmatch_variance.dtype).tiny)
        weights = torch.exp(-below.square() / (2.0 * variance))
        return Weighted(weights.to(probabilities.dtype), confidence >= self.softmatch_mean)

    def aligned(self, probabilities: Tensor) -> Tensor:
        """Float[U K], q' of the module's docstring for probabilities Float[U K]."""
        average = self.softmatch_probabilities
        scaled = probabilities * ((1.0 / self.classes + SMOOTHING) / (average + SMOOTHING))
        return scaled / scaled.sum(dim=-1, keepdim=True)

    @torch.no_grad()
    def _learn_alignment(self, probabilities: Tensor, *, finite: Tensor) -> None:
        sums = probabilities.sum(dim=0).masked_fill(~finite, float("nan"))
        mean = summed(sums) / (len(probabilities) * process_count())
        finite = mean.isfinite().all()
        average, started = self.softmatch_probabilities, self.softmatch_started
        first = finite & ~started
        average.copy_(torch.where(first, mean.to(average.dtype), average))
        move(average, mean, momentum=self.momentum, moves=finite & started)
        started.logical_or_(finite)

    @torch.no_grad()
    def _learn_confidence(self, confidence: Tensor, *, finite: Tensor) -> None:
        maxima = gathered(confidence.masked_fill(~finite, float("nan")))
        mean = maxima.mean()
        finite = mean.isfinite()
        move(self.softmatch_mean, mean, momentum=self.momentum, moves=finite)
        if len(maxima) > 1:
            variance = maxima.var(unbiased=True)
            move(self.softmatch_variance, variance, momentum=self.momentum, moves=finite)
