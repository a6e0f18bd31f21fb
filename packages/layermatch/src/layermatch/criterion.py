"""LayerMatch's training criterion: adds the terms up and owns no equation of its own.

Two knots are kept loose. The classifier is owned by the wrapped model and only borrowed here, never a submodule: so
DistributedDataParallel synchronises it although it is called outside `forward`, and the criterion has no parameter.
And weighting state and the reading `temporal` move in `forward`, as published, unless the loss is not finite, while
centres and prototypes move in `update()`, after an optimizer step.

    loss = L_s + unlabelled_weight * L_u
    L_s  = mean_B H(y, softmax(F_l W^T + b))
    L_u  = (1/U) sum_i k_i H(argmax q_i, softmax(z_i)) + extra     q, z: `centres/`, `grad_relu.py`; k, extra: `weighting/`

The mean of L_u runs over all U samples, masked ones included. q, its argmax and k have no graph. `extra` is the rule's
own term (FreeMatch's fairness), made from the same cut logits z.

Source    LayerMatch, arXiv 2406.14207 (abstract); equations as read by us, see the README's method card. With both
          parts switched off it is its weighting rule's own method (FixMatch, arXiv 2001.07685), bit for bit.
Letters   B labelled, U unlabelled samples, D features, K classes, N unlabelled images.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .centres import build_centres
from .centres.reading import HALF_PRECISION, device_of, wide_dtype
from .classifier import BorrowedModule, refuse_unsynchronised
from .corruption import Corruption
from .grad_relu import agreement_term, grad_relu_mode, is_plain_linear
from .keywords import spelt
from .weighting import FixedThreshold, WeightingRule

THRESHOLD = 0.95  # FixMatch, arXiv 2001.07685


class LayerMatchOutput(NamedTuple):
    """What a call of a criterion returns.

    `loss`, `labelled_loss`, `unlabelled_loss`: Float[], with graph; loss = labelled_loss + unlabelled_weight *
    unlabelled_loss. `weights` Float[U]: factors of the samples. `mask` Bool[U]: at or above the rule's own threshold.
    `pseudo_labels` Int64[U]: classes that the weak view was given.
    """

    loss: Tensor
    labelled_loss: Tensor
    unlabelled_loss: Tensor
    weights: Tensor
    mask: Tensor
    pseudo_labels: Tensor


class LayerMatch(nn.Module):
    """Semi-supervised loss in which pseudo-labels train the features and never the classifier.

    Args:
        classifier: the model's last linear layer, Float[K D]. It stays the model's: it is not in `parameters()`,
            `state_dict()` or `.to()` of the criterion. A copy of the criterion alone keeps the same classifier; copied
            in one call with the model, `copy.deepcopy((model, criterion))`, it follows the model's copy.
        threshold: confidence in [0, 1] from which a pseudo-label counts, 0.95 if nothing is said; 0 takes every sample.
        weighting: a rule of `layermatch.weighting` instead of the threshold, such as `FreeMatchWeighting(classes=10)`.
        grad_relu: True or `"cut"` keeps the unlabelled gradient from the classifier (reading R1, ours), False or `"off"`
            lets it through; `"agreement"` (reading R2, ours) and `"reverse"` (a control) as in `grad_relu.py`.
        avg_clustering: `"classifier"` (averaged classifier rows as clustering centres), `"classifier-strong"`,
            `"prototypes"`, `"teacher"`, `"temporal"`, as in `centres/`, all of them our readings; or None.
        momentum: of the averaged centres per `update()`, in [0, 1], for `temporal` per visit of an image; None takes the
            reading's own default, 0.999, for `temporal` 0.6.
        unlabelled_weight: factor of the unlabelled loss, at least 0.
        one_view: the loss is taken on the weak view itself, as pseudolabel does; `strong` is then not looked at.
        classes: K, where a reading keeps state of that size and the classifier is not linear.
        features: D, likewise.
        images: N, for `temporal`.
        corrupt: replaces pseudo-labels after their weights are decided, for experiments with wrong labels.

    Attributes:
        needs: what a call must be given besides `labelled`: of `"unlabelled"` (`weak=`), `"strong"`, `"indices"`,
            `"teacher"` (`teacher_weak=`).

    Raises:
        ValueError: a value out of range, an unknown reading, `threshold` together with `weighting`, or a size that is
            needed and not given; it is named.

    Example:
        >>> import torch
        >>> classifier = torch.nn.Linear(8, 3)
        >>> criterion = LayerMatch(classifier, threshold=0.5)
        >>> out = criterion(labelled=(torch.randn(4, 8), torch.tensor([0, 1, 2, 0])), weak=torch.randn(6, 8),
        ...                 strong=torch.randn(6, 8))
        >>> out.loss.backward()      # then optimizer.step()
        >>> criterion.update()
    """

    @spelt
    def __init__(
        self,
        classifier: nn.Module,
        *,
        threshold: float | None = None,
        weighting: WeightingRule | None = None,
        grad_relu: bool | str = True,
        avg_clustering: str | None = "classifier",
        momentum: float | None = None,
        unlabelled_weight: float = 1.0,
        one_view: bool = False,
        classes: int | None = None,
        features: int | None = None,
        images: int | None = None,
        corrupt: Corruption | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= unlabelled_weight < float("inf"):
            raise ValueError(f"unlabelled_weight is {unlabelled_weight}. Choose a finite number of at least 0.")
        self._borrowed = BorrowedModule(classifier)
        self.grad_relu = grad_relu_mode(grad_relu)
        if self.grad_relu == "agreement" and not is_plain_linear(classifier):
            raise ValueError(
                f"grad_relu='agreement' looks at rows of a torch.nn.Linear, and the classifier is a "
                f"{type(classifier).__name__}. Pass the model's last linear layer, or grad_relu=True."
            )
        self.avg_clustering = avg_clustering
        self.unlabelled_weight = float(unlabelled_weight)
        self.one_view = one_view
        self.weighting = _rule(threshold, weighting, classifier)
        self.centres = build_centres(
            avg_clustering, classifier, momentum=momentum, classes=classes, features=features, images=images
        )
        self.corrupt = corrupt
        self.needs = frozenset(
            {"unlabelled"}
            | (set() if one_view else {"strong"})
            | ({"indices"} if self.weighting.needs_indices or corrupt is not None else set())
            | self.centres.needs
        )
        self._needs_more = not self.needs.isdisjoint({"indices", "teacher"})
        self._rule_learns = any(True for _ in self.weighting.buffers())
        self._synchronisation_checked = False

    @property
    def classifier(self) -> nn.Module:
        """The live classifier, which belongs to the model."""
        return self._borrowed.module

    @property
    def needs_unlabelled(self) -> bool:
        """Whether a call must be given `weak`."""
        return True

    def forward(
        self,
        *,
        labelled: tuple[Tensor, Tensor],
        weak: Tensor,
        strong: Tensor | None = None,
        indices: Tensor | None = None,
        teacher_weak: Tensor | None = None,
    ) -> LayerMatchOutput:
        """The loss of one micro-batch.

        Args:
            labelled: features Float[B D] and labels Int64[B] in 0..K-1. Labels are range-checked on the CPU; on a GPU
                check them where the data enter, so that the step never waits for the device.
            weak: features Float[U D] of the unlabelled images' weak views; never differentiated, except with
                `one_view`.
            strong: features Float[U D] of the same images' strong views, in the same order.
            indices: Int64[U] in 0..N-1, the images' places in the unlabelled set; where `needs` says so.
            teacher_weak: logits Float[U K] of an averaged model for the weak views; for `teacher`.

        Raises:
            ValueError: shapes that do not fit together, both named; a label or an index out of range, named (CPU);
                something that is needed and not given, named with what needs it.
        """
        features, labels = labelled
        if self.one_view:
            strong = weak
        strong = self._checked(features, labels, weak, strong)
        if self._needs_more:
            self._check_given(len(weak), indices, teacher_weak)
        classifier, centres = self._borrowed.module, self.centres
        labelled_logits = widened(classifier(features))
        check_labels(labels, labelled_logits.shape[-1])
        labelled_loss = nn.functional.cross_entropy(labelled_logits, labels)
        probabilities = centres.probabilities(weak, classifier, indices=indices, teacher_weak=teacher_weak)
        pseudo_labels = probabilities.argmax(dim=-1)
        strong_logits = self._strong_logits(strong, classifier)
        finite = _finite(labelled_loss, strong_logits) if self._rule_learns else None
        weights, mask, extra = self.weighting(
            probabilities, strong_logits=strong_logits, indices=indices, finite=finite
        )
        targets = pseudo_labels if self.corrupt is None else self.corrupt(pseudo_labels, indices)
        losses = nn.functional.cross_entropy(strong_logits, targets, reduction="none")
        unlabelled_loss = (weights * losses).mean()
        if extra is not None:
            unlabelled_loss = unlabelled_loss + extra
        if self.grad_relu == "agreement":
            unlabelled_loss = unlabelled_loss + agreement_term(
                classifier,
                labelled=(labelled_loss, labelled_logits, features),
                unlabelled=(unlabelled_loss, strong_logits, strong),
            )
        loss = labelled_loss + self.unlabelled_weight * unlabelled_loss
        if centres.observes:
            centres.observe(labelled, finite=loss.detach().isfinite())
        return LayerMatchOutput(loss, labelled_loss, unlabelled_loss, weights, mask, pseudo_labels)

    def update(self, *, step_taken: Tensor | None = None) -> None:
        """Move the averaged centres; call it once after each real optimizer step, not for each micro-batch.

        Args:
            step_taken: Bool[] on the criterion's device, False where the optimizer's step was skipped (a non-finite
                loss): the centres then stay as they are, without a host read. None means True.
        """
        self.centres.update(self._borrowed.module, step_taken=step_taken)
        self.weighting.update(step_taken=step_taken)
        if self.corrupt is not None:
            self.corrupt.update()

    def _strong_logits(self, strong: Tensor, classifier: nn.Module) -> Tensor:
        mode = self.grad_relu
        cut = mode in ("cut", "agreement")
        logits = widened(self.centres.logits(strong.detach() if mode == "reverse" else strong, classifier, cut=cut))
        if mode == "agreement" and torch.is_grad_enabled() and not logits.requires_grad:
            logits = logits.requires_grad_()  # the gate looks at the gradient that arrives here
        return logits

    def _checked(self, features: Tensor, labels: Tensor, weak: Tensor, strong: Tensor | None) -> Tensor:
        if features.dim() != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise ValueError(
                f"labelled holds features of shape {tuple(features.shape)} and labels of shape {tuple(labels.shape)}. "
                "They must be (B, D) and (B,), with B at least 1."
            )
        if strong is None:
            raise ValueError("strong is missing: pass the features Float[U D] of the unlabelled images' strong views.")
        if weak.shape != strong.shape or weak.dim() != 2 or not len(weak):
            raise ValueError(
                f"weak has shape {tuple(weak.shape)} and strong {tuple(strong.shape)}. Both must be (U, D): the "
                "features of two views of the same U images, in the same order, with U at least 1."
            )
        if not self._synchronisation_checked:
            refuse_unsynchronised(self.classifier)
            self._synchronisation_checked = True
        return strong

    def _check_given(self, samples: int, indices: Tensor | None, teacher_weak: Tensor | None) -> None:
        if "indices" in self.needs and (indices is None or indices.shape != (samples,)):
            rule = type(self.weighting).__name__ if self.weighting.needs_indices else ""
            reading = f"avg_clustering={self.avg_clustering!r}" if "indices" in self.centres.needs else ""
            who = " and ".join(filter(None, [rule, reading, "corrupt" if self.corrupt is not None else ""]))
            what = "missing" if indices is None else f"of shape {tuple(indices.shape)}"
            raise ValueError(
                f"indices is {what}, and {who} needs to know which unlabelled image is which: pass "
                f"indices=Int64[{samples}], the images' places in the unlabelled set."
            )
        if "teacher" in self.needs and teacher_weak is None:
            raise ValueError(
                f"teacher_weak is missing, and avg_clustering={self.avg_clustering!r} takes pseudo-labels from it: pass "
                f"teacher_weak=Float[{samples} K], an averaged model's logits for the weak views."
            )

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
        check_state(self, state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def check_state(criterion: nn.Module, state: dict[str, Any], prefix: str = "") -> None:
    """Raise a ValueError that names the difference if `state` comes from another reading, rule, K, D or N.

    A state's keys name what wrote them: the centres' buffers bear their reading's name, the weighting's their rule's.
    """
    own = {prefix + name: tuple(tensor.shape) for name, tensor in criterion.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(prefix)}
    parts = (("centres", "avg_clustering"), ("weighting", "weighting rule"), ("corrupt", "corruption"))
    for part, option in parts:
        mine = sorted(name for name in own if name.startswith(f"{prefix}{part}."))
        saved = sorted(name for name in theirs if name.startswith(f"{prefix}{part}."))
        if mine != saved:
            raise ValueError(
                f"The saved criterion holds {saved or 'nothing'} for its {part}, and this one {mine or 'nothing'}: "
                f"they were built with another {option}. Build the criterion as the saved one was."
            )
    for name, shape in own.items():
        if theirs[name] != shape:
            raise ValueError(
                f"The saved criterion's {name} has shape {theirs[name]}, and this one's {shape}: the classifier has "
                "another number of classes or features, or the unlabelled set another number of images. Load it beside "
                "the classifier and the data that it was saved with."
            )


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise a ValueError that names the first label outside 0..classes-1. On the CPU only; no torch call is made."""
    if labels.device.type != "cpu":
        return
    values = labels.numpy()
    if values.min() < 0 or values.max() >= classes:
        wrong = next(int(value) for value in values if not 0 <= value < classes)
        raise ValueError(
            f"A label is {wrong}, and the classifier has {classes} classes, so labels run from 0 to {classes - 1}."
        )


def widened(logits: Tensor) -> Tensor:
    """Logits in float32 where they are half precision, so that no loss is summed in halves."""
    return logits.float() if logits.dtype in HALF_PRECISION else logits


def _rule(threshold: float | None, weighting: WeightingRule | None, classifier: nn.Module) -> WeightingRule:
    if weighting is None:
        return FixedThreshold(THRESHOLD if threshold is None else threshold)
    if threshold is not None:
        raise ValueError(
            f"threshold is {threshold}, and weighting={type(weighting).__name__} has a threshold of its own. Pass one "
            f"of the two: weighting={type(weighting).__name__}(...), or threshold= alone."
        )
    if not isinstance(weighting, WeightingRule):
        raise ValueError(
            f"weighting is {weighting!r}, a {type(weighting).__name__}. Pass a rule of layermatch.weighting, such as "
            "FreeMatchWeighting(classes=10), or your own subclass of WeightingRule."
        )
    return weighting.to(device_of(classifier) or "cpu", wide_dtype(classifier))


def _finite(labelled_loss: Tensor, strong_logits: Tensor) -> Tensor:
    return (labelled_loss.detach() + strong_logits.detach().sum()).isfinite()
