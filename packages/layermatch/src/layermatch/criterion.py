"""LayerMatch's training criterion: adds the terms up and owns no equation of its own.

Two knots are kept loose. The classifier is owned by the wrapped model and only borrowed here, never a submodule: so
DistributedDataParallel synchronises it although it is called outside `forward`, and the criterion has no parameter.
And weighting state moves in `forward`, as published, while the centres move in `update()`, after an optimizer step.

    loss = L_s + unlabelled_weight * L_u
    L_s  = mean_B H(y, softmax(F_l W^T + b))
    L_u  = (1/U) sum_i k_i H(argmax q_i, softmax(z_i))     q, z: `centres.py`, `grad_relu.py`; k: `weighting.py`

The mean of L_u runs over all U samples, masked ones included. q, its argmax and k have no graph.

Source    LayerMatch, arXiv 2406.14207 (abstract); equations as read by us, see the README's method card. With both
          parts switched off it is FixMatch, arXiv 2001.07685, bit for bit.
Letters   B labelled, U unlabelled samples, D features, K classes.
"""

from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from .centres import HALF_PRECISION, build_centres
from .classifier import refuse_unsynchronised
from .weighting import FixedThreshold


class LayerMatchOutput(NamedTuple):
    """What a call of a criterion returns.

    `loss`, `labelled_loss`, `unlabelled_loss`: Float[], with graph; loss = labelled_loss + unlabelled_weight *
    unlabelled_loss. `weights` Float[U]: factors of the samples. `mask` Bool[U]: at or above the threshold.
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
        threshold: confidence in [0, 1] from which a pseudo-label counts; 0 takes every sample.
        grad_relu: keep the unlabelled gradient from the classifier (reading R1, ours).
        avg_clustering: `"classifier"` (averaged classifier rows as clustering centres; our reading) or None.
        momentum: of the averaged centres per `update()`, in [0, 1]; None takes the reading's own default, 0.999.
        unlabelled_weight: factor of the unlabelled loss, at least 0.

    Raises:
        ValueError: a value out of range or an unknown reading; the value is named.

    Example:
        >>> import torch
        >>> classifier = torch.nn.Linear(8, 3)
        >>> criterion = LayerMatch(classifier, threshold=0.5)
        >>> out = criterion(labelled=(torch.randn(4, 8), torch.tensor([0, 1, 2, 0])), weak=torch.randn(6, 8),
        ...                 strong=torch.randn(6, 8))
        >>> out.loss.backward()      # then optimizer.step()
        >>> criterion.update()
    """

    needs_unlabelled = True

    def __init__(
        self,
        classifier: nn.Module,
        *,
        threshold: float = 0.95,
        grad_relu: bool = True,
        avg_clustering: str | None = "classifier",
        momentum: float | None = None,
        unlabelled_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= unlabelled_weight < float("inf"):
            raise ValueError(f"unlabelled_weight is {unlabelled_weight}. Choose a finite number of at least 0.")
        self._borrowed = BorrowedModule(classifier)
        self.grad_relu = bool(grad_relu)
        self.avg_clustering = avg_clustering
        self.unlabelled_weight = float(unlabelled_weight)
        self.weighting = FixedThreshold(threshold)
        self.centres = build_centres(avg_clustering, classifier, momentum=momentum)
        self._synchronisation_checked = False

    @property
    def classifier(self) -> nn.Module:
        """The live classifier, which belongs to the model."""
        return self._borrowed.module

    def forward(self, *, labelled: tuple[Tensor, Tensor], weak: Tensor, strong: Tensor) -> LayerMatchOutput:
        """The loss of one micro-batch.

        Args:
            labelled: features Float[B D] and labels Int64[B] in 0..K-1. Labels are range-checked on the CPU; on a GPU
                check them where the data enter, so that the step never waits for the device.
            weak: features Float[U D] of the unlabelled images' weak views; never differentiated.
            strong: features Float[U D] of the same images' strong views, in the same order.

        Raises:
            ValueError: shapes that do not fit together, both named; a label out of range, named (CPU).
        """
        features, labels = labelled
        self._check(features, labels, weak, strong)
        classifier = self.classifier
        labelled_logits = classifier(features)
        check_labels(labels, labelled_logits.shape[-1])
        labelled_loss = nn.functional.cross_entropy(widened(labelled_logits), labels)
        probabilities = self.centres.probabilities(weak, classifier)
        pseudo_labels = probabilities.argmax(dim=-1)
        weights, mask, *_ = self.weighting(probabilities)
        strong_logits = widened(self.centres.logits(strong, classifier, grad_relu=self.grad_relu))
        losses = nn.functional.cross_entropy(strong_logits, pseudo_labels, reduction="none")
        unlabelled_loss = (weights * losses).mean()
        loss = labelled_loss + self.unlabelled_weight * unlabelled_loss
        return LayerMatchOutput(loss, labelled_loss, unlabelled_loss, weights, mask, pseudo_labels)

    def update(self, *, step_taken: Tensor | None = None) -> None:
        """Move the averaged centres; call it once after each real optimizer step, not for each micro-batch.

        Args:
            step_taken: Bool[] on the criterion's device, False where the optimizer's step was skipped (a non-finite
                loss): the centres then stay as they are, without a host read. None means True.
        """
        self.centres.update(self.classifier, step_taken=step_taken)

    def _check(self, features: Tensor, labels: Tensor, weak: Tensor, strong: Tensor) -> None:
        if features.dim() != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise ValueError(
                f"labelled holds features of shape {tuple(features.shape)} and labels of shape {tuple(labels.shape)}. "
                "They must be (B, D) and (B,), with B at least 1."
            )
        if weak.shape != strong.shape or weak.dim() != 2 or not len(weak):
            raise ValueError(
                f"weak has shape {tuple(weak.shape)} and strong {tuple(strong.shape)}. Both must be (U, D): the "
                "features of two views of the same U images, in the same order, with U at least 1."
            )
        if not self._synchronisation_checked:
            refuse_unsynchronised(self.classifier)
            self._synchronisation_checked = True

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


class BorrowedModule:
    """A module that belongs to somebody else, held where `torch.nn.Module` does not look for submodules.

    A deepcopy of its holder alone keeps the same module. Where one deepcopy call copies both holder and module, in
    whichever order, the copy holds the copy: it looks the module up in the call's memo when it is first asked.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._memo: dict[int, Any] | None = None

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        if self._memo is not None:
            self._module, self._memo = self._memo.get(id(self._module), self._module), None
        return self._module

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        duplicate = type(self)(self.module)
        duplicate._memo = memo
        return duplicate

    def __getstate__(self) -> dict[str, Any]:
        return {"_module": self.module, "_memo": None}


def check_state(criterion: nn.Module, state: dict[str, Any], prefix: str = "") -> None:
    """Raise a ValueError that names the difference if `state` comes from another reading, rule, K or D.

    A state's keys name what wrote them: the centres' buffers bear their reading's name, the weighting's their rule's.
    """
    own = {prefix + name: tuple(tensor.shape) for name, tensor in criterion.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(prefix)}
    for part, option in (("centres", "avg_clustering"), ("weighting", "weighting rule")):
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
                "another number of classes or features. Load it beside the classifier that it was saved with."
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
