"""From the options of `layermatch train` to its criterion: which options a method looks at, and what it is built from."""

from typing import TYPE_CHECKING

from torch import nn

from layermatch.corruption import KINDS, Corruption
from layermatch.criterion import LayerMatch
from layermatch.methods import METHODS, Supervised, build_method, settings_of
from layermatch.training.defaults import default_momentum, default_unlabelled_ratio
from scarce_common_utils.errors import UserError

if TYPE_CHECKING:
    from layermatch.commands.options import TrainConfig

THRESHOLD = 0.95  # FixMatch, arXiv 2001.07685
# Options that not every method looks at, besides the settings that its function takes.
OPTIONS = (
    "threshold", "unlabelled_ratio", "unlabelled_weight", "weighting", "variant",
    "grad_relu", "avg_clustering", "momentum", "corrupt",
)  # fmt: skip
LEARNT = ("freematch", "softmatch")  # rules with a threshold of their own


def looked_at(method: str) -> frozenset[str]:
    """Options of `OPTIONS` that a method looks at."""
    settings = settings_of(method)
    return settings | {"unlabelled_ratio"} if "unlabelled_weight" in settings else settings


def refuse_unused(config: "TrainConfig") -> None:
    """Refuse an option that was given and that the method, or another option's value, would not look at.

    Raises:
        UserError: the option is named, with what looks at it.
    """
    for name in OPTIONS:
        users = [method for method in METHODS if name in looked_at(method)]
        if name in config.given and config.method not in users:
            named = " or ".join(filter(None, [", ".join(users[:-1]), users[-1]]))
            raise UserError(
                f"{flag(name)} is an option of --method {named} and changes nothing with {config.method}. Leave it out."
            )
    if config.method == "layermatch":
        refuse_unused_together(config)
    if config.corrupt is not None:
        corruption_of(config.corrupt)


def refuse_unused_together(config: "TrainConfig") -> None:
    """Refuse options of layermatch that another one's value makes idle."""
    rule, reading = config.weighting, config.avg_clustering
    if rule in LEARNT and "threshold" in config.given:
        raise UserError(f"--threshold changes nothing with --weighting {rule}, which learns its own. Leave it out.")
    if rule not in LEARNT and "variant" in config.given:
        raise UserError(f"--variant changes nothing with --weighting {rule}, of which there is one. Leave it out.")
    if reading in ("none", "teacher") and "momentum" in config.given:
        mend = "Say --ema-momentum: the averaged model is the teacher." if reading == "teacher" else "Leave it out."
        raise UserError(f"--momentum is of averaged centres, and --avg-clustering {reading} has none. {mend}")


def flag(name: str) -> str:
    """An option as it is written."""
    return "--" + name.replace("_", "-")


def corruption_of(text: str) -> tuple[str, float]:
    """Kind and share of `--corrupt KIND:SHARE`.

    Raises:
        UserError: it is not of this form, or the kind or the share is not known; the text is named.
    """
    kind, _, share = text.partition(":")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if kind not in KINDS or not 0.0 <= number <= 1.0:
        raise UserError(
            f"--corrupt is {text!r}. Say a kind and a share from 0 to 1, such as uniform:0.3; kinds are {', '.join(KINDS)}."
        )
    return kind, number


def threshold(config: "TrainConfig") -> float | None:
    """The threshold in use, or None where the rule learns its own."""
    learns = config.method in LEARNT or (config.method == "layermatch" and config.weighting in LEARNT)
    if learns or config.method == "supervised":
        return None
    return THRESHOLD if config.threshold is None else config.threshold


def unlabelled_ratio(config: "TrainConfig") -> int:
    """Unlabelled images for each labelled one."""
    return default_unlabelled_ratio(config.method) if config.unlabelled_ratio is None else config.unlabelled_ratio


def momentum(config: "TrainConfig") -> float | None:
    """The centres' momentum in use, or None where there is none, or the reading's own default is meant."""
    if config.momentum is not None:
        return config.momentum
    return default_momentum(config.method, config.avg_clustering, steps=config.steps)


def build_criterion(
    config: "TrainConfig", classifier: nn.Module, *, classes: int, images: int
) -> LayerMatch | Supervised:
    """The method's criterion.

    Args:
        config: resolved.
        classifier: on its device.
        classes: K.
        images: N, all that may come as unlabelled ones.

    Raises:
        UserError: the settings do not fit the classifier; the value is named.
    """
    wrong: Corruption | None = None
    if config.corrupt is not None:
        kind, share = corruption_of(config.corrupt)
        wrong = Corruption(kind, share, images=images, classes=classes, seed=config.seed)
    settings = {
        "threshold": config.threshold,
        "unlabelled_weight": config.unlabelled_weight,
        "weighting": config.weighting,
        "variant": config.variant,
        "grad_relu": config.grad_relu,
        "avg_clustering": None if config.avg_clustering == "none" else config.avg_clustering,
        "momentum": config.momentum,
        "steps": config.steps,
        "classes": classes,
        "images": images,
        "corrupt": wrong,
    }
    try:
        return build_method(config.method, classifier, settings=settings)
    except ValueError as error:
        raise UserError(f"--method {config.method} cannot be built: {error}") from error
