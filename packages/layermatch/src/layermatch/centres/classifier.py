"""Reading `classifier` (ours, the default): averaged rows of the linear classifier.

Features are pulled towards rows of the classifier's weight W, so these rows are the clustering centres, and their moving
average E is what the features are pulled to instead:

    Z_w = F_w E^T + e  (no graph),     Z_s = F_s E^T + e,     labelled logits stay F_l W^T + b
    after each optimizer step:   E <- E + (1 - m) (W - E),    e <- e + (1 - m) (b - e),     E_0 = W,  e_0 = b

Source    LayerMatch, arXiv 2406.14207 (abstract); the equations and m = 0.999 are ours.
Half-life ln 0.5 / ln m steps: 693 for m = 0.999. On short runs choose m = 0.5 ** (1 / (0.01 steps)).
Letters   U samples, D features, K classes; F_w, F_s features of the weak and the strong view.
"""

from typing import cast

import torch
from torch import Tensor, nn

from layermatch.grad_relu import check_width

from .reading import Reading, check_device, check_momentum, softmax, wide_dtype


class ClassifierCentres(Reading):
    """Moving averages of the rows of a linear classifier (reading `classifier`, ours).

    Args:
        classifier: `torch.nn.Linear`, weight Float[K D], bias Float[K] or none; the averages start as a copy of it.
        momentum: m in [0, 1], per optimizer step; 0 follows the classifier, 1 keeps the start.

    Cost: K (D + 1) numbers, one pass over them for each update. If the run keeps an averaged model with the same m from
    the same step on, these rows equal that model's classifier.

    Raises:
        ValueError: the classifier is not linear (its class is named), or the momentum lies outside [0, 1].
    """

    default_momentum = 0.999
    classifier_weight: Tensor
    classifier_bias: Tensor | None

    def __init__(self, classifier: nn.Module, *, momentum: float = default_momentum) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Linear) or type(classifier).forward is not nn.Linear.forward:
            own = " with a forward of its own" if isinstance(classifier, nn.Linear) else ""
            raise ValueError(
                f"avg_clustering='classifier' averages the rows of a torch.nn.Linear, and the classifier is a "
                f"{type(classifier).__name__}{own}. Pass the model's last linear layer, or avg_clustering=None."
            )
        self.momentum = check_momentum(momentum, reading="classifier")
        dtype = wide_dtype(classifier)
        for name, parameter in (("classifier_weight", classifier.weight), ("classifier_bias", classifier.bias)):
            self.register_buffer(name, None if parameter is None else parameter.detach().to(dtype, copy=True))

    def probabilities(
        self, weak: Tensor, classifier: nn.Module, *, indices: Tensor | None = None, teacher_weak: Tensor | None = None
    ) -> Tensor:
        """Float[U K] class probabilities of the weak view under the averaged rows, no graph, float32 or better."""
        with torch.no_grad():
            return softmax(self._linear(weak, cast(nn.Linear, classifier), straight_through=False))

    def logits(self, strong: Tensor, classifier: nn.Module, *, cut: bool) -> Tensor:
        """Float[U K] logits of the strong view under the averaged rows.

        The averages are constants, so that no gradient reaches the classifier. Without `cut` it does reach it, by the
        straight-through form E + (W - stop(W)): the values are E's, the gradient is delta^T F_s.
        """
        return self._linear(strong, cast(nn.Linear, classifier), straight_through=not cut)

    @torch.no_grad()
    def update(self, classifier: nn.Module, *, step_taken: Tensor | None = None) -> None:
        """Move the averages towards the classifier as it is now.

        Args:
            classifier: the live classifier, after the optimizer's step.
            step_taken: Bool[] on the averages' device; where it is False they stay as they are, to the bit and
                without a host read. None means True.
        """
        linear = cast(nn.Linear, classifier)
        averages, targets = [self.classifier_weight], [linear.weight]
        if self.classifier_bias is not None:
            averages, targets = [*averages, self.classifier_bias], [*targets, linear.bias]
        if targets[0].dtype != averages[0].dtype:
            targets = [target.to(averages[0].dtype) for target in targets]
        if step_taken is None:
            # One call for both, as torch's optimizers make it; the stubs do not know it.
            torch._foreach_lerp_(averages, targets, 1.0 - self.momentum)  # pyright: ignore[reportPrivateImportUsage]
            return
        for average, target in zip(averages, targets, strict=True):
            # A lerp with a NaN end point writes NaN whatever its weight is, hence the choice by `where`.
            torch.where(step_taken, average.lerp(target, 1.0 - self.momentum), average, out=average)

    def _linear(self, features: Tensor, classifier: nn.Linear, *, straight_through: bool) -> Tensor:
        check_width(features, classifier)
        weight, bias = self.classifier_weight, self.classifier_bias
        check_device(weight, features)
        live = classifier.weight
        if weight.dtype != live.dtype:
            weight, bias = weight.to(live.dtype), None if bias is None else bias.to(live.dtype)
        if straight_through:
            weight = weight + (live - live.detach())
            bias = None if bias is None else bias + (classifier.bias - classifier.bias.detach())
        return nn.functional.linear(features, weight, bias)


class StrongViewCentres(Reading):
    """Averaged rows for the strong view's logits alone; pseudo-labels come from the live classifier (ours).

    Args and errors: as `ClassifierCentres`.
    """

    default_momentum = 0.999

    def __init__(self, classifier: nn.Module, *, momentum: float = default_momentum) -> None:
        super().__init__()
        self.strong = ClassifierCentres(classifier, momentum=momentum)
        self.momentum = self.strong.momentum

    def logits(self, strong: Tensor, classifier: nn.Module, *, cut: bool) -> Tensor:
        """As `ClassifierCentres.logits`."""
        return self.strong.logits(strong, classifier, cut=cut)

    def update(self, classifier: nn.Module, *, step_taken: Tensor | None = None) -> None:
        """As `ClassifierCentres.update`."""
        self.strong.update(classifier, step_taken=step_taken)
