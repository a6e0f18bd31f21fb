"""Weights of plain pseudo-labelling: a fixed threshold, and a factor that grows with the steps of training.

    k_i = r(t) 1[max_c q_ic >= tau],     r(t) = height * clip((t - begin) / (end - begin), 0, 1)

Two published forms: USB's, begin = 0, end = 0.4 T, height = 1, tau = 0.95 (the default but for T, which only the caller
knows); and Lee's, begin = T1, end = T2, height = 3, tau = 0. USB multiplies the mean loss by r, here r is in the
weights: the same number.

Source    D.-H. Lee, "Pseudo-Label", ICML workshop 2013, equation 16; form and settings of USB's code.
Letters   U samples, K classes, t optimizer steps taken, T all steps, q probabilities, tau threshold, k weights.
"""

import torch
from torch import Tensor

from layermatch.keywords import spelt

from .rule import Weighted, WeightingRule, check_range


class PseudoLabelWeighting(WeightingRule):
    """Weight r(t) where the largest probability is at least `threshold`, else 0.

    Args:
        ramp_end: step from which the factor stands at its full height; USB: 0.4 of all steps. Equal to `ramp_begin`:
            no ramp, full height from that step on.
        threshold: tau in [0, 1].
        ramp_begin: last step at which the factor is still 0.
        ramp_height: full height, at least 0.

    Raises:
        ValueError: a value out of range; it is named.

    State: `pseudolabel_step` Int64[], the optimizer steps taken; it moves in `update()`.
    """

    pseudolabel_step: Tensor

    @spelt
    def __init__(
        self, ramp_end: float, *, threshold: float = 0.95, ramp_begin: float = 0.0, ramp_height: float = 1.0
    ) -> None:
        super().__init__()
        self.threshold = check_range("threshold", threshold, 0.0, 1.0)
        self.ramp_begin = check_range("ramp_begin", ramp_begin, 0.0, 1e18)
        self.ramp_height = check_range("ramp_height", ramp_height, 0.0, 1e18)
        if not self.ramp_begin <= ramp_end < float("inf"):
            raise ValueError(f"ramp_end is {ramp_end} and ramp_begin {ramp_begin}. Choose a finite end not before it.")
        self.ramp_end = float(ramp_end)
        self.register_buffer("pseudolabel_step", torch.zeros((), dtype=torch.int64))

    def factor(self) -> Tensor:
        """r(t) Float64[] on the state's device (float32 where the device has no float64)."""
        dtype = torch.float32 if self.pseudolabel_step.device.type == "mps" else torch.float64
        passed = self.pseudolabel_step.to(dtype) - self.ramp_begin
        if self.ramp_end == self.ramp_begin:
            return (passed >= 0).to(dtype) * self.ramp_height
        return (passed / (self.ramp_end - self.ramp_begin)).clamp(0.0, 1.0) * self.ramp_height

    def forward(
        self,
        probabilities: Tensor,
        *,
        strong_logits: Tensor | None = None,
        indices: Tensor | None = None,
        finite: Tensor | None = None,
    ) -> Weighted:
        """As `WeightingRule.forward`; nothing but the probabilities is looked at."""
        self._check_batch(probabilities, probabilities.shape[-1])
        mask = probabilities.amax(dim=-1) >= self.threshold
        return Weighted(mask * self.factor().to(probabilities.dtype), mask)

    def update(self, *, step_taken: Tensor | None = None) -> None:
        """Count a step that was taken; `step_taken` Bool[], False where the optimizer's step was skipped."""
        self.pseudolabel_step.add_(1 if step_taken is None else step_taken)
