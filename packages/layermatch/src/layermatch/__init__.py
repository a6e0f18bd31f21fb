"""LayerMatch: semi-supervised classification in which pseudo-labels never touch the linear classifier."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .classifier import SplitModel, split_classifier
    from .corruption import Corruption
    from .criterion import LayerMatch, LayerMatchOutput
    from .grad_relu import grad_relu_logits
    from .integrations.scikit_learn import LayerMatchClassifier
    from .methods import METHODS, Supervised, build_method
    from .models.wide_resnet import WideResNet, published_wide_resnet, small_wide_resnet
    from .training.ema import ModelAverage
    from .training.schedule import cosine_factor, half_life_momentum
    from .views.strong import strong_views
    from .views.weak import weak_views
    from .weighting import (
        FixedThreshold,
        FlexMatchWeighting,
        FreeMatchWeighting,
        PseudoLabelWeighting,
        SoftMatchWeighting,
        Weighted,
        WeightingRule,
    )

_MODULES = {
    "Corruption": "corruption",
    "FixedThreshold": "weighting",
    "FlexMatchWeighting": "weighting",
    "FreeMatchWeighting": "weighting",
    "LayerMatch": "criterion",
    "LayerMatchClassifier": "integrations.scikit_learn",
    "LayerMatchOutput": "criterion",
    "METHODS": "methods",
    "ModelAverage": "training.ema",
    "PseudoLabelWeighting": "weighting",
    "SoftMatchWeighting": "weighting",
    "SplitModel": "classifier",
    "Supervised": "methods",
    "Weighted": "weighting",
    "WeightingRule": "weighting",
    "WideResNet": "models.wide_resnet",
    "build_method": "methods",
    "cosine_factor": "training.schedule",
    "grad_relu_logits": "grad_relu",
    "half_life_momentum": "training.schedule",
    "published_wide_resnet": "models.wide_resnet",
    "small_wide_resnet": "models.wide_resnet",
    "split_classifier": "classifier",
    "strong_views": "views.strong",
    "weak_views": "views.weak",
}

__all__ = [  # noqa: RUF022 (in the order of _MODULES)
    "Corruption",
    "FixedThreshold",
    "FlexMatchWeighting",
    "FreeMatchWeighting",
    "LayerMatch",
    "LayerMatchClassifier",
    "LayerMatchOutput",
    "METHODS",
    "ModelAverage",
    "PseudoLabelWeighting",
    "SoftMatchWeighting",
    "SplitModel",
    "Supervised",
    "Weighted",
    "WeightingRule",
    "WideResNet",
    "__version__",
    "build_method",
    "cosine_factor",
    "grad_relu_logits",
    "half_life_momentum",
    "published_wide_resnet",
    "small_wide_resnet",
    "split_classifier",
    "strong_views",
    "weak_views",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
