"""Logits of a classifier whose gradient reaches the features only (Grad-ReLU).

Forward   z = f W^T + b
Backward  df = dz W,   dW = 0,   db = 0      (df is exactly that of the plain classifier)
Source    C. Liang et al., "LayerMatch: Do Pseudo-labels Benefit All Layers?", arXiv 2406.14207. Its abstract says that
          the pseudo-labels' harmful gradient is kept from the linear classifier; the equation is reading R1, ours,
          and so is cutting the bias together with the weight.
Letters   U samples, D features, K classes.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn


def grad_relu_logits(features: Tensor, classifier: nn.Module) -> Tensor:
    """Same values as `classifier(features)`; the gradient goes to `features` and never into `classifier`.

    Nothing is switched off on the classifier itself, so other losses of the same step train it as usual. Any module
    may be the classifier: all parameters inside it are cut, those of norms and projections too. Buffers are not: a
    BatchNorm within the classifier still sees this batch.

    Args:
        features: Float[U D], the classifier's input.
        classifier: usually `torch.nn.Linear` with weight Float[K D] and bias Float[K] or none.

    Returns:
        Float[U K], in the dtype that `classifier(features)` has (autocast respected).

    Raises:
        ValueError: a linear classifier takes another number of features; both numbers are named.

    Example:
        >>> features, classifier = torch.randn(4, 8, requires_grad=True), torch.nn.Linear(8, 3)
        >>> grad_relu_logits(features, classifier).square().sum().backward()
        >>> features.grad.shape, classifier.weight.grad
        (torch.Size([4, 8]), None)
    """
    if not is_plain_linear(classifier):
        stopped: dict[str, Any] = {name: parameter.detach() for name, parameter in classifier.named_parameters()}
        return torch.func.functional_call(classifier, stopped, (features,))
    linear = cast(nn.Linear, classifier)
    check_width(features, linear)
    bias = None if linear.bias is None else linear.bias.detach()
    return nn.functional.linear(features, linear.weight.detach(), bias)


def is_plain_linear(classifier: nn.Module) -> bool:
    """Whether the module is a `torch.nn.Linear` whose forward is exactly x W^T + b: no own forward, no hooks."""
    return (
        isinstance(classifier, nn.Linear)
        and type(classifier).forward is nn.Linear.forward
        and not classifier._forward_hooks
        and not classifier._forward_pre_hooks
    )


def check_width(features: Tensor, linear: nn.Linear) -> None:
    """Raise a ValueError that names both numbers if the features' width is not the classifier's."""
    if features.shape[-1] != linear.in_features:
        raise ValueError(
            f"The features have shape {tuple(features.shape)}, {features.shape[-1]} wide, and the classifier takes "
            f"{linear.in_features}. Give the criterion what enters the classifier, not what leaves it."
        )
