"""Grad-ReLU: which gradient of the unlabelled loss reaches the linear classifier. The forward is z = f W^T + b always.

With delta = dL_u/dz, Float[U K], and G_u = delta^T [F_s, 1], Float[K D+1], the plain gradient of weight and bias:

    name            features get    row c of the classifier gets
    "cut"           delta W         0                                  reading R1, the default (`grad_relu=True`)
    "agreement"     delta W         a_c G_u,c                          reading R2, an ablation
    "off"           delta W         G_u,c                              plain FixMatch (`grad_relu=False`)
    "reverse"       0               G_u,c                              a control, and no reading of the paper

    a_c = 1 if <G_u,c, G_l,c> > 0 else 0,     G_l = delta_l^T [F_l, 1],     delta_l = dL_s/dz_l = (p_l - onehot(y)) / B

Source    C. Liang et al., "LayerMatch: Do Pseudo-labels Benefit All Layers?", arXiv 2406.14207. Its abstract says that
          the pseudo-labels' harmful gradient is kept from the linear classifier. The equations are ours: R1, cutting
          the bias together with the weight, and R2, which keeps what agrees with the labelled batch.
Letters   B labelled, U unlabelled samples, D features, K classes; F_l, F_s features of labelled and strong views.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from .processes import process_count, summed

MODES = ("cut", "agreement", "off", "reverse")


def grad_relu_mode(grad_relu: bool | str) -> str:
    """The name behind the switch: True is `"cut"`, False `"off"`, and a name of `MODES` is itself.

    Raises:
        ValueError: the name is unknown; it and the known ones are given.
    """
    if isinstance(grad_relu, bool):
        return "cut" if grad_relu else "off"
    if grad_relu not in MODES:
        known = ", ".join(map(repr, MODES))
        raise ValueError(f"grad_relu is {grad_relu!r}, which is not known here. Choose True, False or one of {known}.")
    return grad_relu


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


def agreement_term(
    classifier: nn.Module,
    *,
    labelled: tuple[Tensor, Tensor, Tensor],
    unlabelled: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Zero, with the gradient of reading R2 (ours): row c of the classifier receives a_c G_u,c, the features nothing.

    Added to an unlabelled loss whose logits are cut, it changes no bit of the value. delta is taken from the loss by
    autograd, so that a weighting rule's extra term is in it. Over several processes both G are means over all of them.

    Args:
        classifier: `torch.nn.Linear`, weight Float[K D], bias Float[K] or none.
        labelled: loss Float[], its logits Float[B K] and the features Float[B D] behind them.
        unlabelled: loss Float[], its logits Float[U K] and the features Float[U D] behind them.

    Returns:
        Float[], +0.0 or -0.0 where everything is finite; the gradient is taken once, there is no second derivative.
    """
    if not torch.is_grad_enabled():
        return unlabelled[0].new_zeros(())
    bias = cast(nn.Linear, classifier).bias is not None
    delta, gradient = _classifier_gradient(*unlabelled, bias=bias)
    _, reference = _classifier_gradient(*labelled, bias=bias)
    if process_count() > 1:
        gradient, reference = summed(gradient), summed(reference)
    agrees = ((gradient * reference).sum(dim=-1) > 0).to(delta.dtype)
    logits = classifier(unlabelled[2].detach())
    return ((logits - logits.detach()) * (agrees * delta)).sum()


def _classifier_gradient(loss: Tensor, logits: Tensor, features: Tensor, *, bias: bool) -> tuple[Tensor, Tensor]:
    """dL/dz Float[N K] and the gradient Float[K D (+1)] of weight and bias behind it, without a graph."""
    (delta,) = torch.autograd.grad(loss, logits, retain_graph=True)
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        weight = delta.T @ features.to(delta.dtype)
        return delta, torch.cat([weight, delta.sum(dim=0)[:, None]], dim=1) if bias else weight


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
