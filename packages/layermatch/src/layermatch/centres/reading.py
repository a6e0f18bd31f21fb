"""What every reading of Avg-Clustering is, and the one that is switched off: both views go through the live classifier.

Protocol
    probabilities(weak, classifier, indices=, teacher_weak=)   Float[U K] of the weak view, no graph, float32 or better
    logits(strong, classifier, cut=)                           Float[U K] of the strong view, with graph
    observe(labelled, finite=)                                 at the end of a forward; moves what moves there
    update(classifier, step_taken=)                            after each real optimizer step; moves what moves there
    needs                                                      "indices", "teacher": arguments of the criterion's call

A reading's buffers are its whole state; their names begin with the reading's, so that another reading's state is refused
by name. They are float32, or float64 where the classifier is (in bfloat16 they would stall), and stay so under `.half()`
and `.to(torch.bfloat16)`. No call reads a value on the host.
Letters   B labelled, U unlabelled samples, D features, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from layermatch.grad_relu import grad_relu_logits

HALF_PRECISION = (torch.float16, torch.bfloat16)


class Reading(nn.Module):
    """Avg-Clustering switched off, and the base of the readings: both views go through the live classifier."""

    needs: frozenset[str] = frozenset()
    observes = False
    default_momentum: float | None = None

    def probabilities(
        self, weak: Tensor, classifier: nn.Module, *, indices: Tensor | None = None, teacher_weak: Tensor | None = None
    ) -> Tensor:
        """Float[U K] class probabilities of the weak view, without a graph, in float32 or better.

        Args:
            weak: features Float[U D] of the weak views.
            classifier: the live classifier.
            indices: Int64[U], the images' places in the unlabelled set.
            teacher_weak: logits Float[U K] of the averaged model for the same views.
        """
        with torch.no_grad():
            return softmax(classifier(weak))

    def logits(self, strong: Tensor, classifier: nn.Module, *, cut: bool) -> Tensor:
        """Float[U K] logits of the strong view; with `cut` no gradient enters the classifier."""
        return grad_relu_logits(strong, classifier) if cut else classifier(strong)

    def observe(self, labelled: tuple[Tensor, Tensor], *, finite: Tensor) -> None:
        """Called at the end of each forward, where `observes` is set.

        Args:
            labelled: features Float[B D] and labels Int64[B].
            finite: Bool[], False where the loss is not finite: nothing moves then.
        """

    def update(self, classifier: nn.Module, *, step_taken: Tensor | None = None) -> None:
        """Called after each real optimizer step; `step_taken` Bool[] is False where it was skipped, None means True."""

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = getattr(self, name)
            if now.dtype in HALF_PRECISION:  # a change of precision meant for the model; only the device is followed
                setattr(self, name, buffer.to(now.device))
        return self


def softmax(logits: Tensor) -> Tensor:
    """Probabilities along the last axis in the logits' dtype, or in float32 where that is a half one."""
    return torch.softmax(logits, dim=-1, dtype=torch.float32 if logits.dtype in HALF_PRECISION else None)


def wide_dtype(classifier: nn.Module) -> torch.dtype:
    """Of a reading's state: float64 beside a float64 classifier, else float32."""
    first = next(classifier.parameters(), None)
    return torch.float64 if first is not None and first.dtype == torch.float64 else torch.float32


def device_of(classifier: nn.Module) -> torch.device | None:
    """Where the classifier lies; None where it has no parameter."""
    first = next(classifier.parameters(), None)
    return None if first is None else first.device


def check_device(state: Tensor, features: Tensor) -> None:
    """Raise a ValueError that names both devices if the state of a reading was left on another one."""
    if state.device != features.device:
        raise ValueError(
            f"The averaged centres are on {state.device} and the features on {features.device}. "
            f"Move the criterion along with the model: criterion.to({str(features.device)!r})."
        )


def check_momentum(momentum: float, *, reading: str) -> float:
    """The momentum; a ValueError that names it if it lies outside 0 to 1 (1 is refused for `temporal`)."""
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum is {momentum}. Choose a number from 0 to 1, such as 0.999.")
    if reading == "temporal" and momentum == 1.0:
        raise ValueError("momentum is 1.0, and averages of outputs that start at 0 would stay there. Choose 0.6.")
    return float(momentum)
