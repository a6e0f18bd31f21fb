"""LayerMatch as a classifier of scikit-learn: `LayerMatchClassifier().fit(X, y)`, where y is -1 for what has no label.

It trains by the package's own loop (criterion, views, averages, schedule) and keeps the averaged model. X holds vectors
(N, D), or images (N, H, W[, C]).
Letters   N samples, D features, H W pixels, C channels, K classes.
"""

import copy
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from layermatch.integrations.arrays import is_images, read_images, read_labels
from layermatch.integrations.fitting import MODELS, finishing, fitted, model_of
from layermatch.methods import WEIGHTINGS, settings_of
from layermatch.training.defaults import default_threads
from layermatch.training.evaluation import IMAGES_AT_ONCE
from layermatch.views.normalise import measure
from scarce_common_utils.resumption import threads

WHOLE = {"steps": 1, "batch_size": 1, "unlabelled_ratio": 1, "shift": 0}
REAL = {  # lowest and highest value
    "unlabelled_weight": (0.0, float("inf")), "learning_rate": (0.0, float("inf")), "weight_decay": (0.0, float("inf")),
    "ema_momentum": (0.0, 1.0), "weak_noise": (0.0, float("inf")), "strong_noise": (0.0, float("inf")),
    "feature_dropout": (0.0, 1.0),
}  # fmt: skip
View = Callable[..., Tensor]


class LayerMatchClassifier(ClassifierMixin, BaseEstimator):
    """Semi-supervised classifier: `fit(X, y)` with -1 in y where there is no label, then `predict`, `predict_proba`, `score`.

    X is (N, D), standardised here by each feature's mean and deviation over all samples; or images (N, H, W) or (N, H, W, C)
    with C 1 or 3, uint8 or floats from 0 to 1. With no -1 in y all samples count as unlabelled ones besides.

    What two views of a sample are is defined for images alone by the methods' papers: here shift and mirroring (weak), and
    FixMatch's operations and Cutout (strong). For vectors they are ours: Gaussian noise, and for the strong one features
    dropped to their mean (`layermatch.views.vectors`). They say what may change in a sample without changing its class; say
    it better where you know it, by `weak_view` and `strong_view`.

    Args:
        method: a key of `layermatch.METHODS`.
        weighting: rule by name or built, for `layermatch`.
        threshold: confidence from which a pseudo-label counts; None is 0.95, or what the rule learns.
        unlabelled_weight: factor of the unlabelled loss.
        grad_relu: as in `LayerMatch`, for `layermatch`.
        avg_clustering: as in `LayerMatch`, for `layermatch`.
        momentum: of the averaged centres per step; None is a half-life of 1 % of the steps, or the reading's own.
        model: `mlp` for vectors; `small` (a WideResNet) or `cnn` for images; None takes the first of these that fits.
        steps: optimizer steps.
        batch_size: labelled samples a step.
        unlabelled_ratio: unlabelled samples for each labelled one; None is 7, and 1 for `pseudolabel`.
        learning_rate: at the first step; falls by cosine 7/16 to a fifth.
        weight_decay: on matrices and kernels, not on norms and biases.
        ema_momentum: of the averaged model, which predicts; None is a half-life of 1 % of the steps.
        weak_noise: of vectors, in deviations of a feature.
        strong_noise: of vectors, in the strong view.
        feature_dropout: probability of a feature's being dropped to its mean, in the strong view of vectors.
        shift: of images, largest shift in pixels; None is an eighth of the shorter side.
        mirror: of images, whether half of them are mirrored; only where a mirrored image keeps its class.
        weak_view: own function (samples, generator=) -> samples for standardised vectors Float32[N D], or images
            UInt8[N C H W]; a pure function of its arguments. None is the view described above.
        strong_view: the same for the strong view.
        device: of the fit and of predictions, such as `cpu` or `cuda`. The fitted model is kept on the CPU.
        verbose: show progress.
        random_state: an integer gives the same bits again on a CPU; None and `RandomState` as everywhere in scikit-learn.

    Attributes:
        classes_: [K], the labels in y without -1.
        n_features_in_: D, or H W C of images.
        image_shape_: (H, W, C); of images alone.
        model_: the averaged model, a `SplitModel` in eval mode.
        mean_: of each feature, or of each channel from 0 to 255.
        scale_: deviation of each, 1 where there is none.
        history_: a dict for each of up to a hundred readings: step, losses, share of pseudo-labels used, learning rate.

    Example:
        >>> import numpy
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> few = numpy.where(numpy.arange(150) % 10 == 0, y, -1)  # 5 labels of each class
        >>> LayerMatchClassifier(steps=200, random_state=0).fit(X, few).score(X, y) > 0.85
        True
    """

    def __init__(
        self,
        *,
        method: str = "layermatch",
        weighting: Any = "fixed",
        threshold: float | None = None,
        unlabelled_weight: float = 1.0,
        grad_relu: bool | str = True,
        avg_clustering: str | None = "classifier",
        momentum: float | None = None,
        model: Literal["mlp", "small", "cnn"] | None = None,
        steps: int = 1000,
        batch_size: int = 16,
        unlabelled_ratio: int | None = None,
        learning_rate: float = 0.05,
        weight_decay: float = 5e-4,
        ema_momentum: float | None = None,
        weak_noise: float = 0.1,
        strong_noise: float = 0.3,
        feature_dropout: float = 0.3,
        shift: int | None = None,
        mirror: bool = False,
        weak_view: View | None = None,
        strong_view: View | None = None,
        device: str = "cpu",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.weighting = weighting
        self.threshold = threshold
        self.unlabelled_weight = unlabelled_weight
        self.grad_relu = grad_relu
        self.avg_clustering = avg_clustering
        self.momentum = momentum
        self.model = model
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_ratio = unlabelled_ratio
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_momentum = ema_momentum
        self.weak_noise = weak_noise
        self.strong_noise = strong_noise
        self.feature_dropout = feature_dropout
        self.shift = shift
        self.mirror = mirror
        self.weak_view = weak_view
        self.strong_view = strong_view
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all samples, with the labels of those whose y is not -1.

        Raises:
            ValueError: an argument, X or y cannot be used, or the training diverged; the value and the mend are named.
        """
        images = is_images(X)
        refuse(self, kind="images" if images else "vectors")
        for name in ("image_shape_", "feature_names_in_"):  # of an earlier fit
            vars(self).pop(name, None)
        if images:
            samples, labels = read_images(X), read_labels(y)
            side = max(samples.shape[2:])
            check_consistent_length(samples, labels.numbers)
            self.n_features_in_ = samples[0].numel()
            self.image_shape_ = (*samples.shape[2:], samples.shape[1])
            self.mean_, self.scale_ = map(numpy.asarray, measure(samples))
        else:
            checked, y = validate_data(self, X, y, dtype=numpy.float64)
            vectors, labels, side = numpy.asarray(checked), read_labels(y), 0
            self.mean_, deviation = vectors.mean(axis=0), vectors.std(axis=0)
            self.scale_ = numpy.where(deviation > 0, deviation, 1.0)
            samples = self._standardised(vectors).float()
        self.classes_ = labels.classes
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(numpy.iinfo(numpy.int32).max)
        with threads(default_threads(model_of(self, images), side) if images else 1):
            self.model_, self.history_ = fitted(self, samples, labels, seed=int(seed))
        return self

    def predict_proba(self, X: Any) -> numpy.ndarray:
        """Float64[N K], in the order of `classes_`."""
        check_is_fitted(self)
        images = hasattr(self, "image_shape_")
        samples = self._read_images(X) if images else self._read_vectors(X)
        device = torch.device(self.device if images else "cpu")
        model = self.model_ if device.type == "cpu" else copy.deepcopy(self.model_).to(device)
        finish = finishing(self, device)
        with torch.no_grad(), threads(None if images else 1):
            parts = [model.logits(finish(part.to(device))) for part in samples.split(IMAGES_AT_ONCE)]
            return torch.cat(parts).double().softmax(1).cpu().numpy()

    def predict(self, X: Any) -> numpy.ndarray:
        """The likeliest class of each sample, [N]."""
        places = self.predict_proba(X).argmax(axis=1)  # first, as it asks whether there was a fit
        return self.classes_[places]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _read_images(self, X: Any) -> Tensor:
        """Images of the size that the model was fitted on."""
        shape, name = "x".join(map(str, self.image_shape_)), type(self).__name__
        if not is_images(X):
            raise ValueError(
                f"X holds no images, but {name} was fitted on images of {shape}: X must be (n, H, W) or (n, H, W, C)."
            )
        samples = read_images(X)
        found = (*samples.shape[2:], samples.shape[1])
        if found != self.image_shape_:
            raise ValueError(
                f"X holds images of {'x'.join(map(str, found))}, but {name} was fitted on images of {shape}. Resize them."
            )
        return samples

    def _read_vectors(self, X: Any) -> Tensor:
        """Standardised vectors of as many features as the model was fitted on."""
        return self._standardised(validate_data(self, X, reset=False, dtype=numpy.float64))

    def _standardised(self, X: Any) -> Tensor:
        return torch.tensor((X - self.mean_) / self.scale_, dtype=torch.float64)


def refuse(chosen: LayerMatchClassifier, *, kind: str) -> None:
    """Raise a ValueError for an argument that cannot be, or that the method would not look at."""
    for name, least in WHOLE.items():
        value = getattr(chosen, name)
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name} is {value!r}. Choose a whole number from {least} on.")
    for name, (low, high) in REAL.items():
        value = getattr(chosen, name)
        if value is not None and (not isinstance(value, Real) or not low <= float(value) <= high):
            raise ValueError(f"{name} is {value!r}. Choose a number from {low:g} to {high:g}.")
    known = settings_of(chosen.method)
    fresh = type(chosen)()
    for name in ("weighting", "threshold", "grad_relu", "avg_clustering", "momentum"):
        value = getattr(chosen, name)
        if name not in known and value is not getattr(fresh, name) and value != getattr(fresh, name):
            raise ValueError(f"{name} is {value!r}, which changes nothing with method={chosen.method!r}. Leave it out.")
    if isinstance(chosen.weighting, str) and chosen.weighting not in WEIGHTINGS:
        names = ", ".join(map(repr, WEIGHTINGS))
        raise ValueError(f"weighting is {chosen.weighting!r}. Choose one of {names}, or pass a rule.")
    if chosen.model is not None and chosen.model not in MODELS[kind]:
        names = " or ".join(map(repr, MODELS[kind]))
        raise ValueError(f"model is {chosen.model!r}, and X holds {kind}. Choose {names}, or None.")
