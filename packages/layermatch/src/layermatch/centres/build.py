"""From a reading's name to its module."""

from torch import nn

from .classifier import ClassifierCentres, StrongViewCentres
from .prototypes import Prototypes
from .reading import Reading, check_momentum
from .teacher import Teacher
from .temporal import TemporalAverages

READINGS: dict[str, type[Reading]] = {
    "classifier": ClassifierCentres,
    "classifier-strong": StrongViewCentres,
    "prototypes": Prototypes,
    "teacher": Teacher,
    "temporal": TemporalAverages,
}


def build_centres(
    reading: str | None,
    classifier: nn.Module,
    *,
    momentum: float | None = None,
    classes: int | None = None,
    features: int | None = None,
    images: int | None = None,
) -> Reading:
    """The module for a reading's name; None switches Avg-Clustering off.

    Args:
        reading: None or a key of `READINGS`.
        classifier: the live classifier.
        momentum: in [0, 1]; None takes the reading's own default, `READINGS[reading].default_momentum`.
        classes: K; None takes a linear classifier's.
        features: D; None takes a linear classifier's.
        images: N, the size of the unlabelled set; for `temporal`.

    Raises:
        ValueError: the reading is unknown (its name and the known ones are given), it needs a size that was not given,
            or what the reading itself refuses.
    """
    if reading is not None and reading not in READINGS:
        known = ", ".join(["None", *map(repr, READINGS)])
        raise ValueError(f"avg_clustering is {reading!r}, which is not known here. Choose one of {known}.")
    if reading is None or reading == "teacher":
        if momentum is not None:
            check_momentum(momentum, reading="teacher")
        if momentum is not None and reading == "teacher":
            raise ValueError(
                f"momentum is {momentum}, and avg_clustering='teacher' averages nothing itself: the momentum is that "
                "of the averaged model whose logits you pass as teacher_weak=. Leave it out here."
            )
        return Reading() if reading is None else Teacher()
    default = READINGS[reading].default_momentum
    assert default is not None
    chosen = default if momentum is None else momentum
    if reading in ("prototypes", "temporal"):
        classes = _size("classes", classes, reading=reading, classifier=classifier)
        if reading == "prototypes":
            features = _size("features", features, reading=reading, classifier=classifier)
            return Prototypes(classifier, classes=classes, features=features, momentum=chosen)
        images = _size("images", images, reading=reading, classifier=classifier)
        return TemporalAverages(classifier, classes=classes, images=images, momentum=chosen)
    return (ClassifierCentres if reading == "classifier" else StrongViewCentres)(classifier, momentum=chosen)


def _size(name: str, given: int | None, *, reading: str, classifier: nn.Module) -> int:
    inferred = {"classes": "out_features", "features": "in_features"}
    if given is None and name in inferred and isinstance(classifier, nn.Linear):
        given = getattr(classifier, inferred[name])
    if given is None:
        whose = f", which a {type(classifier).__name__} does not tell" if name in inferred else " of the unlabelled set"
        raise ValueError(f"avg_clustering={reading!r} needs the number of {name}{whose}: pass {name}=.")
    if given < 1:
        raise ValueError(f"{name} is {given}. Choose a number of at least 1.")
    return given
