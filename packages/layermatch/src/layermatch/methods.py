"""The methods by name: each is a function that builds its criterion over a borrowed classifier.

    supervised   L = L_s                                                labelled images alone
    fixmatch     L = L_s + w L_u, plain classifier                      arXiv 2001.07685: LayerMatch with both parts off
    layermatch   L = L_s + w L_u, gradient cut, averaged centres        arXiv 2406.14207, as read by us

A new method is one more function and one more line in `METHODS`.
Letters   B labelled, U unlabelled samples, D features, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .classifier import BorrowedModule
from .criterion import LayerMatch, LayerMatchOutput, check_labels, widened


class Supervised(nn.Module):
    """Mean cross-entropy of the labelled batch; unlabelled features may be given and are not looked at.

    Args:
        classifier: the model's last layer; borrowed, as in `LayerMatch`.
    """

    needs_unlabelled = False

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self._borrowed = BorrowedModule(classifier)

    @property
    def classifier(self) -> nn.Module:
        """The live classifier, which belongs to the model."""
        return self._borrowed.module

    def forward(
        self, *, labelled: tuple[Tensor, Tensor], weak: Tensor | None = None, strong: Tensor | None = None
    ) -> LayerMatchOutput:
        """As `LayerMatch.forward`; `unlabelled_loss` is 0 and the per-sample tensors have length 0."""
        features, labels = labelled
        logits = widened(self.classifier(features))
        check_labels(labels, logits.shape[-1])
        loss = nn.functional.cross_entropy(logits, labels)
        return LayerMatchOutput(
            loss,
            loss,
            logits.new_zeros(()),
            logits.new_zeros(0),
            torch.zeros(0, dtype=torch.bool, device=logits.device),
            torch.zeros(0, dtype=torch.int64, device=logits.device),
        )

    def update(self, *, step_taken: Tensor | None = None) -> None:
        """Nothing to move."""


def supervised(
    classifier: nn.Module,
    *,
    threshold: float = 0.95,
    unlabelled_weight: float = 1.0,
    grad_relu: bool = True,
    avg_clustering: str | None = "classifier",
    momentum: float | None = None,
) -> Supervised:
    """Labelled images alone; none of the settings is looked at."""
    return Supervised(classifier)


def fixmatch(
    classifier: nn.Module,
    *,
    threshold: float = 0.95,
    unlabelled_weight: float = 1.0,
    grad_relu: bool = True,
    avg_clustering: str | None = "classifier",
    momentum: float | None = None,
) -> LayerMatch:
    """FixMatch: LayerMatch with both parts off, whatever the last three settings say."""
    return LayerMatch(
        classifier, threshold=threshold, unlabelled_weight=unlabelled_weight, grad_relu=False, avg_clustering=None
    )


def layermatch(
    classifier: nn.Module,
    *,
    threshold: float = 0.95,
    unlabelled_weight: float = 1.0,
    grad_relu: bool = True,
    avg_clustering: str | None = "classifier",
    momentum: float | None = None,
) -> LayerMatch:
    """LayerMatch with the settings of its constructor."""
    return LayerMatch(
        classifier,
        threshold=threshold,
        unlabelled_weight=unlabelled_weight,
        grad_relu=grad_relu,
        avg_clustering=avg_clustering,
        momentum=momentum,
    )


METHODS: dict[str, Callable[..., Supervised | LayerMatch]] = {
    "supervised": supervised,
    "fixmatch": fixmatch,
    "layermatch": layermatch,
}
