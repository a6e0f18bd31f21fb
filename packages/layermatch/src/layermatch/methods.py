"""The methods by name: each is a function that builds its criterion over a borrowed classifier.

    supervised    L = L_s                                               labelled images alone
    pseudolabel   L = L_s + r(t) w L_u on the weak view                 D.-H. Lee 2013, in the form of USB's code
    fixmatch      L = L_s + w L_u, plain classifier, fixed threshold    arXiv 2001.07685
    flexmatch     the same with FlexMatch's thresholds                  arXiv 2110.08263
    freematch     the same with FreeMatch's and its fairness term       arXiv 2205.07246
    softmatch     the same with SoftMatch's weights                     arXiv 2301.10921
    layermatch    gradient cut, averaged centres, any of these rules    arXiv 2406.14207, as read by us

All but the first are a `LayerMatch` with the parts named. A new method is one more function and one more line in
`METHODS`; what its function takes by name is what can be set: `build_method` picks that from a command's settings.
Letters   B labelled, U unlabelled samples, D features, K classes, N unlabelled images.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .classifier import BorrowedModule
from .corruption import Corruption
from .criterion import THRESHOLD, LayerMatch, LayerMatchOutput, check_labels, widened
from .keywords import nearest, spelt
from .weighting import (
    FixedThreshold,
    FlexMatchWeighting,
    FreeMatchWeighting,
    PseudoLabelWeighting,
    SoftMatchWeighting,
    WeightingRule,
)

WEIGHTINGS = ("fixed", "flexmatch", "freematch", "softmatch")
RAMP_SHARE = 0.4  # of all steps until pseudo-labels count in full (USB's unsup_warm_up)


class Supervised(nn.Module):
    """Mean cross-entropy of the labelled batch; unlabelled features may be given and are not looked at.

    Args:
        classifier: the model's last layer; borrowed, as in `LayerMatch`.
    """

    needs: frozenset[str] = frozenset()

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self._borrowed = BorrowedModule(classifier)

    @property
    def classifier(self) -> nn.Module:
        """The live classifier, which belongs to the model."""
        return self._borrowed.module

    @property
    def needs_unlabelled(self) -> bool:
        """Whether a call must be given `weak`."""
        return False

    def forward(
        self,
        *,
        labelled: tuple[Tensor, Tensor],
        weak: Tensor | None = None,
        strong: Tensor | None = None,
        indices: Tensor | None = None,
        teacher_weak: Tensor | None = None,
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


def supervised(classifier: nn.Module) -> Supervised:
    """Labelled images alone."""
    return Supervised(classifier)


def pseudolabel(
    classifier: nn.Module,
    *,
    steps: int,
    threshold: float | None = None,
    unlabelled_weight: float = 1.0,
    corrupt: Corruption | None = None,
) -> LayerMatch:
    """Plain pseudo-labelling: label, weight and loss all from the weak view, with a factor that grows from 0 to 1.

    Args:
        classifier: the live classifier.
        steps: T, all steps of the run; the factor is whole from 0.4 T on (USB).
        threshold: confidence from which a pseudo-label counts; None is 0.95.
        unlabelled_weight: factor of the unlabelled loss.
        corrupt: as in `LayerMatch`.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}. Say how many steps the run has, at least 1.")
    rule = PseudoLabelWeighting(RAMP_SHARE * steps, threshold=_or_default(threshold))
    return _baseline(classifier, rule, unlabelled_weight=unlabelled_weight, corrupt=corrupt, one_view=True)


def fixmatch(
    classifier: nn.Module,
    *,
    threshold: float | None = None,
    unlabelled_weight: float = 1.0,
    corrupt: Corruption | None = None,
) -> LayerMatch:
    """FixMatch: LayerMatch with both parts off."""
    return _baseline(
        classifier, FixedThreshold(_or_default(threshold)), unlabelled_weight=unlabelled_weight, corrupt=corrupt
    )


def flexmatch(
    classifier: nn.Module,
    *,
    classes: int,
    images: int,
    threshold: float | None = None,
    unlabelled_weight: float = 1.0,
    corrupt: Corruption | None = None,
) -> LayerMatch:
    """FlexMatch: FixMatch with a threshold for each class that rises as its images are learnt; needs `indices=`."""
    rule = FlexMatchWeighting(classes, images, threshold=_or_default(threshold))
    return _baseline(classifier, rule, unlabelled_weight=unlabelled_weight, corrupt=corrupt)


def freematch(
    classifier: nn.Module,
    *,
    classes: int,
    variant: str = "usb",
    unlabelled_weight: float = 1.0,
    corrupt: Corruption | None = None,
) -> LayerMatch:
    """FreeMatch: thresholds that follow the model's own confidence, and the fairness term; `variant` as in its rule."""
    rule = FreeMatchWeighting(classes, variant=variant)
    return _baseline(classifier, rule, unlabelled_weight=unlabelled_weight, corrupt=corrupt)


def softmatch(
    classifier: nn.Module,
    *,
    classes: int,
    variant: str = "usb",
    unlabelled_weight: float = 1.0,
    corrupt: Corruption | None = None,
) -> LayerMatch:
    """SoftMatch: weights from a truncated Gaussian of the confidence instead of a threshold; `variant` as in its rule."""
    rule = SoftMatchWeighting(classes, variant=variant)
    return _baseline(classifier, rule, unlabelled_weight=unlabelled_weight, corrupt=corrupt)


def layermatch(
    classifier: nn.Module,
    *,
    weighting: str | WeightingRule = "fixed",
    threshold: float | None = None,
    variant: str = "usb",
    classes: int | None = None,
    images: int | None = None,
    unlabelled_weight: float = 1.0,
    grad_relu: bool | str = True,
    avg_clustering: str | None = "classifier",
    momentum: float | None = None,
    corrupt: Corruption | None = None,
) -> LayerMatch:
    """LayerMatch over any weighting rule, the rule by name or built.

    Args:
        classifier: the live classifier.
        weighting: a name of `WEIGHTINGS`, or a rule.
        threshold: of `"fixed"` and `"flexmatch"`, 0.95 if nothing is said; refused with the others.
        variant: of `"freematch"` and `"softmatch"`.
        classes: K; needed by all named rules but `"fixed"`, unless the classifier is linear.
        images: N, for `"flexmatch"` and for `avg_clustering="temporal"`.
        unlabelled_weight: factor of the unlabelled loss.
        grad_relu: as in `LayerMatch`.
        avg_clustering: as in `LayerMatch`.
        momentum: as in `LayerMatch`.
        corrupt: as in `LayerMatch`.

    Raises:
        ValueError: an unknown name, a threshold beside a rule that has its own, or a missing size; named.
    """
    if isinstance(weighting, str):
        if classes is None and isinstance(classifier, nn.Linear):
            classes = classifier.out_features
        weighting, threshold = _named_rule(weighting, threshold, variant=variant, classes=classes, images=images), None
    return LayerMatch(
        classifier,
        threshold=threshold,
        weighting=weighting,
        unlabelled_weight=unlabelled_weight,
        grad_relu=grad_relu,
        avg_clustering=avg_clustering,
        momentum=momentum,
        classes=classes,
        images=images,
        corrupt=corrupt,
    )


METHODS: dict[str, Callable[..., Supervised | LayerMatch]] = {
    "supervised": spelt(supervised),
    "pseudolabel": spelt(pseudolabel),
    "fixmatch": spelt(fixmatch),
    "flexmatch": spelt(flexmatch),
    "freematch": spelt(freematch),
    "softmatch": spelt(softmatch),
    "layermatch": spelt(layermatch),
}


def settings_of(method: str) -> frozenset[str]:
    """Names of the settings that a method's function takes, such as `threshold`.

    Raises:
        ValueError: the method is unknown; it and the known ones are given.
    """
    if method not in METHODS:
        raise ValueError(f"The method is {method!r}, which is not known here. Choose one of {', '.join(METHODS)}.")
    return frozenset(inspect.signature(METHODS[method]).parameters) - {"classifier"}


def build_method(method: str, classifier: nn.Module, *, settings: Mapping[str, Any]) -> Supervised | LayerMatch:
    """The criterion of a method by name.

    Args:
        method: a key of `METHODS`.
        classifier: the live classifier.
        settings: name -> value; those that other methods take and this one does not (`settings_of`) are left out.

    Raises:
        ValueError: the method is unknown, no method takes a setting of that name (the nearest is given), or what the
            method's function refuses.
    """
    taken = settings_of(method)
    known = sorted(frozenset().union(*map(settings_of, METHODS)))
    strange = next((name for name in settings if name not in known), None)
    if strange is not None:
        raise ValueError(f"No method takes the setting {strange!r}. {nearest(strange, known)}")
    return METHODS[method](classifier, **{name: value for name, value in settings.items() if name in taken})


def _or_default(threshold: float | None) -> float:
    return THRESHOLD if threshold is None else threshold


def _baseline(
    classifier: nn.Module,
    rule: WeightingRule,
    *,
    unlabelled_weight: float,
    corrupt: Corruption | None,
    one_view: bool = False,
) -> LayerMatch:
    return LayerMatch(
        classifier,
        weighting=rule,
        unlabelled_weight=unlabelled_weight,
        grad_relu=False,
        avg_clustering=None,
        corrupt=corrupt,
        one_view=one_view,
    )


def _named_rule(
    name: str, threshold: float | None, *, variant: str, classes: int | None, images: int | None
) -> WeightingRule:
    if name not in WEIGHTINGS:
        known = ", ".join(map(repr, WEIGHTINGS))
        raise ValueError(f"weighting is {name!r}, which is not known here. Choose one of {known}, or pass a rule.")
    if threshold is not None and name in ("freematch", "softmatch"):
        raise ValueError(f"threshold is {threshold}, and weighting={name!r} learns its own. Leave the threshold out.")
    if name == "fixed":
        return FixedThreshold(_or_default(threshold))
    if classes is None or (name == "flexmatch" and images is None):
        missing = "classes" if classes is None else "images"
        raise ValueError(f"weighting={name!r} needs the number of {missing}: pass {missing}=.")
    if name == "flexmatch":
        assert images is not None
        return FlexMatchWeighting(classes, images, threshold=_or_default(threshold))
    rule = FreeMatchWeighting if name == "freematch" else SoftMatchWeighting
    return rule(classes, variant=variant)
