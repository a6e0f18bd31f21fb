"""What every weighting rule is: a module whose buffers are its whole state, and the answer that it gives.

Protocol
    rule(probabilities, strong_logits=..., indices=..., finite=...) -> Weighted
    rule.update(step_taken=...)       after each real optimizer step; most rules have nothing to move there
    rule.needs_indices                whether the call must say which unlabelled image is which

What a rule has learnt of the weak views moves in the call, as published, before the weights are made or after, as the
rule says. It moves unless something of the batch is not finite: then all of it stays as it was, to the bit. It is
reduced over processes, which must all call with the same number of samples. No call reads a value on the host.

The state's names bear the rule's name (`flexmatch_labels`), so that another rule's state is refused by name. It is
float32, and float64 after `rule.double()` (the criterion sees to that for a float64 classifier); `.half()` and
`.to(torch.bfloat16)` leave it as it is, for averages that move by a thousandth stall in half precision.

Letters   U samples of this process, K classes, N unlabelled images, q probabilities of the weak view, k weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_HALF_PRECISION = (torch.float16, torch.bfloat16)


class Weighted(NamedTuple):
    """Answer of a rule.

    `weights` Float[U]: factors of the samples, without a graph, in the dtype of the probabilities. `mask` Bool[U]:
    confidence at or above the rule's own threshold (SoftMatch: its mean). `extra` Float[] with a graph, or None: a
    further loss term with its own factor already applied, part of the unlabelled loss.
    """

    weights: Tensor
    mask: Tensor
    extra: Tensor | None = None


class WeightingRule(nn.Module):
    """Base of the rules; see the module's docstring for what they share."""

    needs_indices = False

    def forward(
        self,
        probabilities: Tensor,
        *,
        strong_logits: Tensor | None = None,
        indices: Tensor | None = None,
        finite: Tensor | None = None,
    ) -> Weighted:
        """Weights of the samples of one micro-batch.

        Args:
            probabilities: Float[U K] of the weak view, no graph, float32 or float64.
            strong_logits: Float[U K] of the strong view, with a graph that ends before the classifier.
            indices: Int64[U] in 0..N-1, the images' places in the unlabelled set.
            finite: Bool[], False where the loss of this batch is known not to be finite: nothing learnt then moves.
                None: the probabilities alone are looked at.
        """
        raise TypeError(f"{type(self).__name__} does not say how it weights samples: it needs a forward of its own.")

    def update(self, *, step_taken: Tensor | None = None) -> None:
        """After a real optimizer step; `step_taken` Bool[], False where it was skipped. Here: nothing to move."""

    def _check_batch(self, probabilities: Tensor, classes: int) -> None:
        if probabilities.dim() != 2 or probabilities.shape[1] != classes or not len(probabilities):
            raise ValueError(
                f"probabilities have shape {tuple(probabilities.shape)}, and this {type(self).__name__} was built for "
                f"{classes} classes: (U, {classes}) with U at least 1. Build it with the classifier's number of classes."
            )
        for name, buffer in self.named_buffers():
            if buffer.device != probabilities.device:
                raise ValueError(
                    f"{name} is on {buffer.device} and the probabilities on {probabilities.device}. Move the criterion "
                    f"along with the model: criterion.to({str(probabilities.device)!r})."
                )

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = getattr(self, name)
            if now.dtype in _HALF_PRECISION:  # a change of precision meant for the model; only the device is followed
                setattr(self, name, buffer.to(now.device))
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        _check_state(self, state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def all_finite(confidence: Tensor, finite: Tensor | None) -> Tensor:
    """Bool[], whether all of Float[U] is finite and `finite`, where given, is True."""
    found = confidence.isfinite().all()
    return found if finite is None else found & finite


def move(average: Tensor, batch: Tensor, *, momentum: float, moves: Tensor) -> None:
    """In place: average + (1 - momentum) (batch - average) where `moves` Bool[] holds, else the bits that were there."""
    moved = average.lerp(batch.to(average.dtype), 1.0 - momentum)
    average.copy_(torch.where(moves, moved, average))


def check_range(name: str, value: float, least: float, most: float) -> float:
    """The value as a float; a ValueError that names it if it lies outside `least` to `most` or is not a number."""
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}. Choose a number from {least:g} to {most:g}.")
    return float(value)


def check_count(name: str, value: int, least: int) -> int:
    """The value; a ValueError that names it if it is not an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}. Choose a whole number of at least {least}.")
    return value


def check_choice(name: str, value: str, known: tuple[str, ...]) -> str:
    """The value; a ValueError that names it and the known ones if it is none of them."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}, which is not known here. Choose one of {', '.join(map(repr, known))}.")
    return value


def _check_state(rule: WeightingRule, state: dict[str, Any], prefix: str) -> None:
    own = {name: tuple(buffer.shape) for name, buffer in rule.named_buffers()}
    theirs = {name[len(prefix) :]: tuple(saved.shape) for name, saved in state.items() if name.startswith(prefix)}
    if own.keys() != theirs.keys():
        raise ValueError(
            f"The saved weighting rule holds {sorted(theirs) or 'nothing'}, and this {type(rule).__name__} "
            f"{sorted(own) or 'nothing'}: it was another rule, or one with other settings. Build the rule as it was."
        )
    for name, shape in own.items():
        if theirs[name] != shape:
            raise ValueError(
                f"The saved weighting rule's {name} has shape {theirs[name]}, and this {type(rule).__name__}'s {shape}: "
                "it was built for another number of classes or of unlabelled images. Build the rule as it was."
            )
