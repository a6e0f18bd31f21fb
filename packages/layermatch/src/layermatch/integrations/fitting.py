"""The fit of `LayerMatchClassifier`: network, criterion, views and the package's loop around samples and labels.

Letters   N samples, D features, H W pixels, C channels, K classes.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from layermatch.classifier import SplitModel, split_classifier
from layermatch.data.batches import Batches
from layermatch.integrations.arrays import Labels
from layermatch.methods import build_method
from layermatch.models.small_cnn import SmallCNN
from layermatch.models.small_mlp import SmallMLP
from layermatch.models.wide_resnet import small_wide_resnet
from layermatch.training.defaults import default_momentum, default_unlabelled_ratio
from layermatch.training.loop import Bar, Outlets, Plan, train
from layermatch.training.schedule import half_life_momentum
from layermatch.training.state import TrainingState
from layermatch.training.step import SampleViews
from layermatch.training.surroundings import surround
from layermatch.views.normalise import Normalisation, constants_on, normalise
from layermatch.views.strong import strong_views
from layermatch.views.vectors import noisy_views
from layermatch.views.weak import weak_views
from scarce_common_utils.errors import UserError
from scarce_common_utils.progress import Progress
from scarce_common_utils.random_state import capture_random_state, restore_random_state, seed_random_state
from scarce_common_utils.streams import stream_seed

if TYPE_CHECKING:
    from layermatch.integrations.scikit_learn import LayerMatchClassifier

MODELS = {"vectors": ("mlp",), "images": ("small", "cnn")}  # the first ones are the defaults


def model_of(chosen: "LayerMatchClassifier", images: bool) -> str:
    """Name of the model."""
    return chosen.model or MODELS["images" if images else "vectors"][0]


def fitted(
    chosen: "LayerMatchClassifier", samples: Tensor, labels: Labels, *, seed: int
) -> tuple[SplitModel, list[dict[str, float]]]:
    """The averaged model after all steps, on the CPU, and what was read on the way."""
    device = torch.device(chosen.device)
    classes, count = len(labels.classes), len(samples)
    with own_random_state(stream_seed(seed, "init")):
        network = build_network(chosen, samples, classes)
    split = split_classifier(network.to(device))
    state = surround(
        split,
        build_criterion(chosen, split.classifier, classes=classes, count=count).to(device),
        classes=classes,
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        ema_momentum=half_life_momentum(chosen.steps) if chosen.ema_momentum is None else chosen.ema_momentum,
    )
    ratio = chosen.unlabelled_ratio
    batches = Batches(
        samples.to(device),
        labels.numbers.to(device),
        labelled_indices=(labels.numbers >= 0).nonzero().flatten(),
        seed=seed,
        batch_size=chosen.batch_size,
        unlabelled_ratio=default_unlabelled_ratio(chosen.method) if ratio is None else ratio,
        with_unlabelled=state.criterion.needs_unlabelled,
    )
    history = run(
        chosen, state, batches, build_views(chosen, samples, seed=seed, strong="strong" in state.criterion.needs)
    )
    return kept(state.teacher, double=samples.dim() == 2), history


def build_network(chosen: "LayerMatchClassifier", samples: Tensor, classes: int) -> nn.Module:
    """The untrained network for samples of this shape."""
    if samples.dim() == 2:
        return SmallMLP(classes, features=samples.shape[1])
    _, channels, height, width = samples.shape
    if model_of(chosen, True) == "cnn":
        return SmallCNN(classes, channels=channels)
    return small_wide_resnet(classes, channels=channels, side=max(height, width))


def build_criterion(chosen: "LayerMatchClassifier", classifier: nn.Module, *, classes: int, count: int) -> Any:
    """The method's criterion over the network's classifier."""
    momentum = chosen.momentum
    if momentum is None:
        momentum = default_momentum(chosen.method, chosen.avg_clustering, steps=chosen.steps)
    settings = {
        "threshold": chosen.threshold,
        "unlabelled_weight": chosen.unlabelled_weight,
        "weighting": copy.deepcopy(chosen.weighting),  # a rule's state moves
        "grad_relu": chosen.grad_relu,
        "avg_clustering": chosen.avg_clustering,
        "momentum": momentum,
        "steps": chosen.steps,
        "classes": classes,
        "images": count,
    }
    return build_method(chosen.method, classifier, settings=settings)


def build_views(chosen: "LayerMatchClassifier", samples: Tensor, *, seed: int, strong: bool) -> SampleViews:
    """The two views of vectors or of images, and the normalisation of the latter."""
    if samples.dim() == 2:
        weak = partial(noisy_views, noise=chosen.weak_noise)
        hard = partial(noisy_views, noise=chosen.strong_noise, dropout=chosen.feature_dropout)
    else:
        shift = max(1, min(samples.shape[2:]) // 8) if chosen.shift is None else chosen.shift
        weak, hard = (partial(view, shift=shift, mirror=chosen.mirror) for view in (weak_views, strong_views))
    return SampleViews(
        seed=seed,
        weak=chosen.weak_view or weak,
        strong=(chosen.strong_view or hard) if strong else None,
        finish=finishing(chosen, torch.device(chosen.device)),
    )


def finishing(chosen: "LayerMatchClassifier", device: torch.device) -> Callable[[Tensor], Tensor]:
    """From samples to what the network takes: images are normalised; vectors are standardised already."""
    if not hasattr(chosen, "image_shape_"):
        return lambda vectors: vectors
    normalisation = Normalisation(tuple(chosen.mean_.tolist()), tuple(chosen.scale_.tolist()))
    return partial(normalise, constants=constants_on(normalisation, device), channels=chosen.image_shape_[2])


class Silent:
    """Shows nothing."""

    def advance(self, count: int = 1, **shown: float) -> None:
        """Count nothing."""


def run(
    chosen: "LayerMatchClassifier", state: TrainingState, batches: Batches, views: SampleViews
) -> list[dict[str, float]]:
    """Train to the end; the lines of metrics."""
    history: list[dict[str, float]] = []

    def log(step: int, **numbers: float) -> None:
        numbers.pop("accuracy", None)
        history.append({"step": step, **numbers})

    steps = chosen.steps
    plan = Plan(
        steps=steps,
        learning_rate=chosen.learning_rate,
        log_every=max(1, steps // 100),
        evaluate_every=steps,
        checkpoint_every=steps,
    )
    shown: AbstractContextManager[Bar] = (
        Progress(steps, "steps", label="layermatch") if chosen.verbose else nullcontext(Silent())
    )
    with shown as bar:
        try:
            train(
                state,
                plan,
                batches=batches,
                views=views,
                autocast=nullcontext(),
                outlets=Outlets(evaluate=lambda: float("nan"), log=log, save=lambda: None),
                bar=bar,
            )
        except UserError as error:
            raise ValueError(
                f"The loss or its gradient was not finite at step {int(state.nonfinite.first_bad)} of {steps}. Lower "
                f"learning_rate, which is {chosen.learning_rate:g}, and look for outliers in X."
            ) from error
    return history


def kept(model: SplitModel, *, double: bool) -> SplitModel:
    """The model on the CPU, each tensor in memory of its own: safetensors takes tensors of one memory for tied ones.

    In double precision what it says of a row hangs on no other row, to within what anybody looks at.
    """
    model = copy.deepcopy(model).cpu()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return (model.double() if double else model).eval()


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """The global generators begin at `seed` within the block, and go on where they were behind it."""
    before = capture_random_state()
    seed_random_state(seed)
    try:
        yield
    finally:
        restore_random_state(before)
