"""Averaged clustering centres (Avg-Clustering): what the unlabelled logits are taken from.

Reading `classifier` (ours): features are pulled towards rows of the classifier's weight W, so these rows are the
clustering centres, and their moving average E is what the features are pulled to instead:

    Z_w = F_w E^T + e  (no graph),     Z_s = F_s E^T + e,     labelled logits stay F_l W^T + b
    after each optimizer step:   E <- E + (1 - m) (W - E),    e <- e + (1 - m) (b - e),     E_0 = W,  e_0 = b

Source    LayerMatch, arXiv 2406.14207. The abstract speaks of stable clustering centres from consistent outputs; what
          is averaged, where and how fast is not known to us. This reading and m = 0.999 are ours.
Half-life ln 0.5 / ln m steps: 693 for m = 0.999. On short runs choose m = 0.5 ** (1 / (0.01 steps)).
Protocol  a reading is a module with `probabilities(...)` (weak view, no graph), `logits(...)` (strong view) and
          `update(...)` (after an optimizer step); its buffers are its whole state.
Letters   U samples, D features, K classes; F_w, F_s features of the weak and the strong view.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from .grad_relu import check_width, grad_relu_logits

HALF_PRECISION = (torch.float16, torch.bfloat16)


class NoCentres(nn.Module):
    """Avg-Clustering switched off: both views go through the live classifier."""

    def probabilities(self, weak: Tensor, classifier: nn.Module) -> Tensor:
        """Float[U K] class probabilities of the weak view, without a graph, in float32 or better."""
        with torch.no_grad():
            return softmax(classifier(weak.detach()))

    def logits(self, strong: Tensor, classifier: nn.Module, *, grad_relu: bool) -> Tensor:
        """Float[U K] logits of the strong view; with `grad_relu` no gradient enters the classifier."""
        return grad_relu_logits(strong, classifier) if grad_relu else classifier(strong)

    def update(self, classifier: nn.Module, *, step_taken: Tensor | None = None) -> None:
        """Nothing to move."""


class ClassifierCentres(nn.Module):
    """Moving averages of the rows of a linear classifier (reading `classifier`, ours).

    Args:
        classifier: `torch.nn.Linear`, weight Float[K D], bias Float[K] or none; the averages start as a copy of it.
        momentum: m in [0, 1], per optimizer step; 0 follows the classifier, 1 keeps the start.

    The averages are float32, or float64 where the classifier is (in bfloat16 they would stall), and stay so under
    `.half()` and `.to(torch.bfloat16)`. Cost: K (D + 1) numbers, one pass over them for each update.

    Raises:
        ValueError: the classifier is not linear (its class is named), or the momentum lies outside [0, 1].
    """

    default_momentum = 0.999
    classifier_weight: Tensor
    classifier_bias: Tensor | None

    def __init__(self, classifier: nn.Module, *, momentum: float) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Linear):
            raise ValueError(
                f"avg_clustering='classifier' averages the rows of a torch.nn.Linear, and the classifier is a "
                f"{type(classifier).__name__}. Pass the model's last linear layer, or avg_clustering=None."
            )
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum is {momentum}. Choose a number from 0 to 1, such as 0.999.")
        self.momentum = float(momentum)
        self.register_buffer("classifier_weight", _wide_copy(classifier.weight))
        self.register_buffer("classifier_bias", None if classifier.bias is None else _wide_copy(classifier.bias))

    def probabilities(self, weak: Tensor, classifier: nn.Module) -> Tensor:
        """Float[U K] class probabilities of the weak view under the averaged rows, no graph, float32 or better."""
        with torch.no_grad():
            return softmax(self._linear(weak.detach(), cast(nn.Linear, classifier), straight_through=False))

    def logits(self, strong: Tensor, classifier: nn.Module, *, grad_relu: bool) -> Tensor:
        """Float[U K] logits of the strong view under the averaged rows.

        The averages are constants, so that no gradient reaches the classifier. With `grad_relu=False` it does reach
        it, by the straight-through form E + (W - stop(W)): the values are E's, the gradient is delta^T F_s.
        """
        return self._linear(strong, cast(nn.Linear, classifier), straight_through=not grad_relu)

    @torch.no_grad()
    def update(self, classifier: nn.Module, *, step_taken: Tensor | None = None) -> None:
        """Move the averages towards the classifier as it is now.

        Args:
            classifier: the live classifier, after the optimizer's step.
            step_taken: Bool[] on the averages' device; where it is False they stay as they are, to the bit and
                without a host read. None means True.
        """
        linear = cast(nn.Linear, classifier)
        pairs = [(self.classifier_weight, linear.weight)]
        if self.classifier_bias is not None:
            pairs.append((self.classifier_bias, linear.bias))
        for average, live in pairs:
            target = live.to(average.dtype)
            if step_taken is None:
                average.lerp_(target, 1.0 - self.momentum)
            else:  # a lerp with a NaN end point writes NaN whatever its weight is, hence the choice by `where`
                average.copy_(torch.where(step_taken, average.lerp(target, 1.0 - self.momentum), average))

    def _linear(self, features: Tensor, classifier: nn.Linear, *, straight_through: bool) -> Tensor:
        check_width(features, classifier)
        if self.classifier_weight.device != features.device:
            raise ValueError(
                f"The averaged centres are on {self.classifier_weight.device} and the features on {features.device}. "
                f"Move the criterion along with the model: criterion.to({str(features.device)!r})."
            )
        weight: Tensor = self.classifier_weight.to(classifier.weight.dtype)
        bias = None if self.classifier_bias is None else self.classifier_bias.to(classifier.weight.dtype)
        if straight_through:
            weight = weight + (classifier.weight - classifier.weight.detach())
            bias = None if bias is None else bias + (classifier.bias - classifier.bias.detach())
        return nn.functional.linear(features, weight, bias)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = getattr(self, name)
            if now.dtype in HALF_PRECISION:  # a change of precision meant for the model; only the device is followed
                setattr(self, name, buffer.to(now.device))
        return self


READINGS: dict[str, type[ClassifierCentres]] = {"classifier": ClassifierCentres}


def build_centres(
    reading: str | None, classifier: nn.Module, *, momentum: float | None = None
) -> NoCentres | ClassifierCentres:
    """The module for a reading's name; None switches Avg-Clustering off.

    Args:
        reading: None or a key of `READINGS`.
        classifier: the live classifier.
        momentum: in [0, 1]; None takes the reading's own default.

    Raises:
        ValueError: the reading is unknown (its name and the known ones are given), or what the reading itself refuses.
    """
    if reading is None:
        if momentum is not None and not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum is {momentum}. Choose a number from 0 to 1, such as 0.999.")
        return NoCentres()
    if reading not in READINGS:
        known = ", ".join(["None", *map(repr, READINGS)])
        raise ValueError(f"avg_clustering is {reading!r}, which is not known here. Choose one of {known}.")
    chosen = READINGS[reading]
    return chosen(classifier, momentum=chosen.default_momentum if momentum is None else momentum)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities along the last axis in the logits' dtype, or in float32 where that is a half one."""
    return torch.softmax(logits, dim=-1, dtype=torch.float32 if logits.dtype in HALF_PRECISION else None)


def _wide_copy(parameter: Tensor) -> Tensor:
    kept = parameter.dtype if parameter.dtype == torch.float64 else torch.float32
    return parameter.detach().to(kept, copy=True)
