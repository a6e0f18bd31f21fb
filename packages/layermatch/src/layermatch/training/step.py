"""One optimizer step, in the order that has to be kept: forward, backward, guard, optimizer, centres, average.

Letters   B labelled, U unlabelled images, C channels, H W pixels, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layermatch.criterion import LayerMatchOutput
from layermatch.data.batches import Batch
from layermatch.views.normalise import normalise
from layermatch.views.strong import strong_views
from layermatch.views.weak import weak_views
from scarce_common_utils.streams import stream

from .guard import all_finite, guarded_step
from .state import TrainingState

Views = Callable[[Batch, int], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How images become views.

    Attributes:
        seed: of the streams "labelled view", "weak" and "strong".
        shift: largest shift of a weak view, in pixels.
        mirror: mirror half of the images.
        strong: build a strong view from unlabelled images, a generator, the shift and the mirroring.
        constants: mean and 1 / deviation, Float32[1 C 1 1] on the device.
        channels: what the network takes.
    """

    seed: int
    shift: int
    mirror: bool
    constants: tuple[Tensor, Tensor]
    channels: int
    strong: Callable[..., Tensor] = strong_views


def batch_views(batch: Batch, step: int, *, settings: ViewSettings) -> Tensor:
    """Float32[B+2U C H W]: labelled, weak and strong views one after the other, normalised."""
    seed, options = settings.seed, {"shift": settings.shift, "mirror": settings.mirror}
    views = [weak_views(batch.labelled, generator=stream(seed, "labelled view", step), **options)]
    if len(batch.unlabelled):
        views.append(weak_views(batch.unlabelled, generator=stream(seed, "weak", step), **options))
        views.append(settings.strong(batch.unlabelled, generator=stream(seed, "strong", step), **options))
    return normalise(torch.cat(views), settings.constants, channels=settings.channels)


def train_step(
    state: TrainingState, batch: Batch, *, views: ViewSettings, learning_rate: float, autocast: torch.autocast
) -> None:
    """Advance the state by one step.

    Args:
        state: moved in place; `state.step` is the number of this step, from 0.
        batch: of this step.
        views: how images become views.
        learning_rate: of this step.
        autocast: context of the forward pass.
    """
    model, criterion, optimizer = state.model, state.criterion, state.optimizer
    device = state.sums.device
    images = batch_views(batch, state.step, settings=views).to(device)
    batch = batch._replace(labels=batch.labels.to(device), truth=batch.truth.to(device))
    with autocast:
        features = model(images)
        labelled, weak, strong = features.split([len(batch.labels), *[len(batch.unlabelled)] * 2])
        out: LayerMatchOutput = criterion(labelled=(labelled, batch.labels), weak=weak, strong=strong)
    optimizer.zero_grad()
    state.scaler.scale(out.loss).backward()
    state.scaler.unscale_(optimizer)
    finite = all_finite(out.loss, trained_parameters(model))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    guarded_step(optimizer, finite)
    state.scaler.update()
    criterion.update(step_taken=finite)
    state.average.update(step_taken=finite)
    state.nonfinite.note(state.step, out.loss)
    state.sums += measured(out, batch)
    state.step += 1


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def measured(out: LayerMatchOutput, batch: Batch) -> Tensor:
    """Float32[8] in the order of `state.METRICS`: losses and mask rate, counts of known and right pseudo-labels."""
    known = batch.truth >= 0
    right = (out.pseudo_labels == batch.truth) & known if len(batch.truth) else known
    parts = [
        out.loss,
        out.labelled_loss,
        out.unlabelled_loss,
        out.mask.float().mean() if len(out.mask) else out.loss.new_zeros(()),
        known.sum(),
        right.sum(),
        (known & out.mask).sum() if len(out.mask) else known.sum(),
        (right & out.mask).sum() if len(out.mask) else known.sum(),
    ]
    return torch.stack([part.detach().float() for part in parts])
