"""Rows of layermatch: what the views, the criterion, the model average, a whole step and importing cost.

Letters   B labelled, U = mu B unlabelled images, C channels, H W pixels, D features, K classes.
"""

from collections.abc import Callable

import numpy
import torch
from torch import Tensor, nn

from layermatch import METHODS, LayerMatch, ModelAverage, strong_views, weak_views
from layermatch.classifier import split_classifier
from layermatch.data.batches import Batches
from layermatch.models.wide_resnet import WideResNet, published_wide_resnet
from layermatch.training.guard import NonFinite, fill_momentum
from layermatch.training.state import METRICS, TrainingState
from layermatch.training.step import ViewSettings, batch_views, train_step, trained_parameters
from layermatch.views.normalise import constants_on, measure, normalise
from speed.published_views import fixmatch_pytorch_randaugment, pillow_views, torchvision_views, usb_randaugment
from speed.rows import Row, import_row, in_turns

SAMPLES, WIDTH, CLASSES = 512, 128, 100
BATCH, RATIO = 16, 7
IMAGES, LOOPED = 448, 64  # a step's unlabelled images at B = 64, mu = 7; and how many of them a peer's turn takes
IMAGES_PER_SECOND = 20_000


def views_row(form: str, name: str, peer: Callable[[numpy.ndarray], object], *, bar: float) -> Row:
    """Unlabelled images through a weak and a strong view and normalisation, 32x32 RGB, against a loop over Pillow images."""
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images[:LOOPED].permute(0, 2, 3, 1).contiguous().numpy()
    times = in_turns(_views_of(images, form), lambda: peer(pixels), turns=7)
    ours, theirs = IMAGES / times.ours, LOOPED / times.peer
    return Row(
        f"weak and strong views ({form} form), normalised, 32x32 RGB, times as fast",
        ours,
        theirs,
        name,
        "images/s",
        ours / theirs,
        bar,
        "at least",
    )


def usb_views_row() -> Row:
    """Our views in USB's form against USB's transforms."""
    name = "USB's transforms, a Pillow loop from their definitions"
    return views_row("usb", name, lambda pixels: pillow_views(pixels, randaugment=usb_randaugment), bar=15.0)


def fixmatch_pytorch_views_row() -> Row:
    """Our views in FixMatch-pytorch's form against its transforms; the bar is ours."""
    name = "FixMatch-pytorch's transforms, a Pillow loop from their definitions"
    peer = fixmatch_pytorch_randaugment
    return views_row("fixmatch-pytorch", name, lambda pixels: pillow_views(pixels, randaugment=peer), bar=15.0)


def torchvision_views_row() -> Row:
    """Our views in USB's form against torchvision v2 on Pillow images."""
    return views_row("usb", "torchvision v2 on Pillow images, RandAugment(3)", torchvision_views, bar=25.0)


def views_rate_row() -> Row:
    """Images a CPU second, on an idle core; another program on the machine makes it smaller."""
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = _views_of(images, "usb")
    rate = IMAGES / in_turns(views, views, turns=25).ours
    return Row(
        "weak and strong views (usb form), normalised, 32x32 RGB, an idle core",
        rate,
        IMAGES_PER_SECOND,
        "the bar itself",
        "images/s",
        rate / IMAGES_PER_SECOND,
        1.0,
        "at least",
    )


def _views_of(images: Tensor, form: str) -> Callable[[], Tensor]:
    constants = constants_on(measure(images), torch.device("cpu"))
    drawn = torch.Generator().manual_seed(1)

    def views() -> Tensor:
        weak = weak_views(images, generator=drawn, shift=4, mirror=True)
        strong = strong_views(images, generator=drawn, shift=4, mirror=True, form=form)
        return normalise(torch.cat([weak, strong]), constants, channels=3)

    return views


def criterion_row() -> Row:
    """LayerMatch's forward, backward and update on features (512, 128), 100 classes, against two plain cross-entropies."""
    generator = torch.Generator().manual_seed(0)

    def features() -> Tensor:
        return torch.randn(SAMPLES, WIDTH, generator=generator).requires_grad_()

    classifier = nn.Linear(WIDTH, CLASSES)
    labelled, weak, strong = features(), features(), features()
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    criterion = LayerMatch(classifier, threshold=0.0)

    def clear() -> None:
        for tensor in (labelled, strong, *classifier.parameters()):
            tensor.grad = None

    def ours() -> None:
        clear()
        criterion(labelled=(labelled, labels), weak=weak, strong=strong).loss.backward()
        criterion.update()

    def peer() -> None:
        clear()
        first = nn.functional.cross_entropy(classifier(labelled), labels)
        second = nn.functional.cross_entropy(classifier(strong), labels)
        (first + second).backward()

    times = in_turns(ours, peer, turns=15, calls=20)
    return Row(
        f"LayerMatch criterion, forward, backward, update, ({SAMPLES}, {WIDTH}), {CLASSES} classes",
        1e3 * times.ours,
        1e3 * times.peer,
        "two plain cross-entropies",
        "ms",
        times.ours / times.peer,
        1.4,
    )


def step_row() -> Row:
    """A whole step with LayerMatch against the same step with FixMatch: MLP 64-128-64, B 16, mu 7."""
    images = torch.randn(BATCH * (1 + 2 * RATIO), 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % 10
    sizes = [BATCH, BATCH * RATIO, BATCH * RATIO]

    def step_of(method: str):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        classifier = nn.Linear(64, 10)
        criterion = METHODS[method](classifier, threshold=0.5)
        parameters = [*body.parameters(), *classifier.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, nesterov=True)

        def step() -> None:
            labelled, weak, strong = body(images).split(sizes)
            out = criterion(labelled=(labelled, labels), weak=weak, strong=strong)
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            criterion.update()

        return step

    times = in_turns(step_of("layermatch"), step_of("fixmatch"), turns=25, calls=40)
    return Row(
        "whole step with LayerMatch, MLP 64-128-64, B 16, mu 7",
        1e3 * times.ours,
        1e3 * times.peer,
        "the same step with FixMatch",
        "ms",
        times.ours / times.peer,
        1.03,
    )


def average_row() -> Row:
    """EMA update of WRN-28-2, buffers included, against one flat `lerp_` over as many values."""
    average = ModelAverage(published_wide_resnet("wrn-28-2", 10), momentum=0.999, flat=True)
    values = sum(tensor.numel() for tensor in (*average.average.parameters(), *average.average.buffers()))
    held, now, taken = torch.zeros(values), torch.ones(values), torch.tensor(True)
    times = in_turns(lambda: average.update(step_taken=taken), lambda: held.lerp_(now, 0.001), turns=120, calls=8)
    return Row(
        f"update of the model average, WRN-28-2, {values:,} values, flat as `layermatch train` lays it",
        1e3 * times.ours,
        1e3 * times.peer,
        "one lerp_ over as many values",
        "ms",
        times.ours / times.peer,
        1.2,
    )


def whole_step_row(name: str, network: WideResNet, *, channels: int, side: int, turns: int, bar: float) -> Row:
    """Data, views, criterion, guard, optimizer and average against the bare forward and backward, on the same images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1000, channels, side, side), dtype=torch.uint8, generator=generator)
    split = split_classifier(network)
    criterion = METHODS["layermatch"](split.classifier, threshold=0.5)
    optimizer = torch.optim.SGD(
        trained_parameters(split), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )
    fill_momentum(optimizer)
    state = TrainingState(
        model=split,
        criterion=criterion,
        optimizer=optimizer,
        average=ModelAverage(split, momentum=0.999, flat=True),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        nonfinite=NonFinite(torch.device("cpu")),
        sums=torch.zeros(len(METRICS) + 10),
    )
    batches = Batches(
        images,
        torch.arange(1000) % 10,
        labelled_indices=torch.arange(40),
        seed=0,
        batch_size=BATCH,
        unlabelled_ratio=RATIO,
    )
    constants = constants_on(measure(images), torch.device("cpu"))
    views = ViewSettings(seed=0, shift=side // 8, mirror=channels == 3, constants=constants, channels=channels)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    same = batch_views(batches(0), 0, settings=views)
    gradient = torch.full((len(same), 10), 1.0 / len(same))

    def ours() -> None:
        train_step(state, batches(state.step), views=views, learning_rate=1e-4, autocast=autocast)

    def peer() -> None:
        optimizer.zero_grad()
        split.logits(same).backward(gradient)

    times = in_turns(ours, peer, turns=turns)
    return Row(
        f"whole training step, {name} at {side}x{side}, B {BATCH}, mu {RATIO}",
        1e3 * times.ours,
        1e3 * times.peer,
        "bare forward and backward of the same images",
        "ms",
        times.ours / times.peer,
        bar,
    )


def large_step_row() -> Row:
    """WRN-28-2 at 32x32; a step takes seconds, so few turns."""
    network = published_wide_resnet("wrn-28-2", 10)
    return whole_step_row("WRN-28-2", network, channels=3, side=32, turns=4, bar=1.05)


def small_step_row() -> Row:
    """WRN-10-1, grey images."""
    network = WideResNet(10, channels=1, widths=(16, 32, 64), blocks=1, activated=True)
    return whole_step_row("WRN-10-1", network, channels=1, side=8, turns=60, bar=1.25)


def layermatch_import_row() -> Row:
    """CPU seconds that importing the criterion adds to `import torch`; `import layermatch` itself loads nothing."""
    return import_row("layermatch.criterion")


ROWS = (
    usb_views_row,
    fixmatch_pytorch_views_row,
    torchvision_views_row,
    views_rate_row,
    criterion_row,
    step_row,
    average_row,
    small_step_row,
    large_step_row,
    layermatch_import_row,
)
