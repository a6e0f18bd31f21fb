"""One optimizer step, in the order that has to be kept: forward, backward, guard, optimizer, centres, average.

What is trained on are images as a rule; all but `ViewSettings` serves samples of any shape.
Letters   B labelled, U unlabelled images of this process, C channels, H W pixels, D features, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from layermatch.criterion import LayerMatchOutput
from layermatch.data.batches import Batch
from layermatch.views.normalise import normalise
from layermatch.views.strong import strong_views
from layermatch.views.weak import weak_views
from scarce_common_utils.streams import stream

from .guard import all_finite, guarded_step
from .processes import Processes
from .state import MEANS, METRICS, TrainingState
from .state import trained_parameters as trained_parameters  # one import for those who call a step

ALONE = Processes()


class Views(Protocol):
    """How a batch becomes what the network sees."""

    def __call__(self, batch: Batch, step: int, *, processes: Processes = ALONE) -> Tensor:
        """Float32[B+2U ...]: labelled, weak and strong views one after the other (B+U without strong ones)."""
        ...


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How images become views; called as `Views`, it is `batch_views`.

    Attributes:
        seed: of the streams "labelled view", "weak" and "strong".
        shift: largest shift of a weak view, in pixels.
        mirror: mirror half of the images.
        strong: build a strong view from unlabelled images, a generator, the shift and the mirroring; None for methods
            that look at the weak view alone.
        constants: mean and 1 / deviation, Float32[1 C 1 1] on the device.
        channels: what the network takes.
        layout: memory format of the batch, such as `torch.channels_last`.
    """

    seed: int
    shift: int
    mirror: bool
    constants: tuple[Tensor, Tensor]
    channels: int
    strong: Callable[..., Tensor] | None = strong_views
    layout: torch.memory_format = torch.contiguous_format

    def __call__(self, batch: Batch, step: int, *, processes: Processes = ALONE) -> Tensor:
        """Float32[B+2U C H W], as `batch_views`."""
        return batch_views(batch, step, settings=self, processes=processes)


def batch_views(batch: Batch, step: int, *, settings: ViewSettings, processes: Processes = ALONE) -> Tensor:
    """Float32[B+2U C H W]: labelled, weak and strong views one after the other, normalised (B+U without strong ones)."""
    # Drawn for the images of all processes, of which these are one part.
    options = {"shift": settings.shift, "mirror": settings.mirror, "part": (processes.rank, processes.count)}
    strong = None if settings.strong is None else partial(settings.strong, **options)
    views = drawn_views(batch, step, seed=settings.seed, weak=partial(weak_views, **options), strong=strong)
    images = normalise(views, settings.constants, channels=settings.channels)
    return images if settings.layout is torch.contiguous_format else images.contiguous(memory_format=settings.layout)


@dataclass(frozen=True, kw_only=True)
class SampleViews:
    """`Views` of samples of any shape, by functions of (samples, generator=) on one process.

    Attributes:
        seed: of the streams "labelled view", "weak" and "strong".
        weak: builds a weak view.
        strong: builds a strong one; None for methods that look at the weak view alone.
        finish: what all of them go through at last, such as `normalise`; None is nothing.
    """

    seed: int
    weak: Callable[..., Tensor]
    strong: Callable[..., Tensor] | None
    finish: Callable[[Tensor], Tensor] | None = None

    def __call__(self, batch: Batch, step: int, *, processes: Processes = ALONE) -> Tensor:
        """Float32[B+2U ...]."""
        views = drawn_views(batch, step, seed=self.seed, weak=self.weak, strong=self.strong)
        return views if self.finish is None else self.finish(views)


def drawn_views(
    batch: Batch, step: int, *, seed: int, weak: Callable[..., Tensor], strong: Callable[..., Tensor] | None
) -> Tensor:
    """Labelled, weak and strong views one after the other, each from its own stream of the step.

    Args:
        batch: of the step.
        step: its number.
        seed: of the streams "labelled view", "weak" and "strong".
        weak: builds a weak view from samples and a `generator=`.
        strong: builds a strong one in the same way, or None where there is none.
    """
    views = [weak(batch.labelled, generator=stream(seed, "labelled view", step))]
    if len(batch.unlabelled):
        views.append(weak(batch.unlabelled, generator=stream(seed, "weak", step)))
        if strong is not None:
            views.append(strong(batch.unlabelled, generator=stream(seed, "strong", step)))
    return torch.cat(views)


def train_step(
    state: TrainingState,
    batch: Batch,
    *,
    views: Views,
    learning_rate: float,
    autocast: AbstractContextManager,
    micro_batches: int = 1,
) -> None:
    """Advance the state by one step.

    Args:
        state: moved in place; `state.step` is the number of this step, from 0.
        batch: of this step: this process's part of it.
        views: how images become views.
        learning_rate: of this step.
        autocast: context of the forward pass, entered once for each micro-batch.
        micro_batches: equal parts that the batch is cut into, one forward and backward each; averages and centres move
            once, the state of weighting rules once a part.
    """
    criterion, optimizer = state.criterion, state.optimizer
    device = state.sums.device
    images = views(batch, state.step, processes=state.processes).to(device)
    batch = batch._replace(labels=batch.labels.to(device), truth=batch.truth.to(device))
    optimizer.zero_grad()
    state.kept.keep()
    loss, numbers = torch.zeros((), device=device), torch.zeros_like(state.sums)
    for last, part_images, part in cut(images, batch, micro_batches):
        with synchronised(state.network, last):
            with autocast:
                out = forward(state, part_images, part)
            state.scaler.scale(out.loss if micro_batches == 1 else out.loss / micro_batches).backward()
        if state.separate is not None:
            state.separate.put_back()
        loss = loss + out.loss.detach()
        numbers = numbers + measured(out, part, classes=len(numbers) - len(METRICS))
    state.scaler.unscale_(optimizer)
    sound, finite = state.processes.all(
        torch.stack([torch.isfinite(loss), all_finite(loss, state.parameters)])
    ).unbind()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    guarded_step(optimizer, finite)
    state.scaler.update()
    state.kept.put_back(unless=finite)
    criterion.update(step_taken=finite)
    state.average.update(step_taken=finite)
    state.nonfinite.note(state.step, sound if state.scaler.is_enabled() else finite, taken=finite)
    numbers[: len(MEANS)] /= micro_batches
    state.sums += numbers.masked_fill(~finite, 0.0)
    state.step += 1


def cut(images: Tensor, batch: Batch, parts: int) -> Iterator[tuple[bool, Tensor, Batch]]:
    """Equal parts of the views Float32[B+2U ...] and of their batch, each with whether it is the last."""
    if parts == 1:
        yield True, images, batch
        return
    views = zip(*(view.chunk(parts) for view in images.split(sizes(images, batch))), strict=True)
    fields = zip(*(field.chunk(parts) if len(field) else [field] * parts for field in batch), strict=True)
    for number, (some, rows) in enumerate(zip(views, fields, strict=True)):
        yield number == parts - 1, torch.cat(some), Batch(*rows)


def sizes(views: Tensor, batch: Batch) -> list[int]:
    """How many rows of the views are labelled, weak and strong ones; the last one or two are left out where there are none."""
    labelled, unlabelled = len(batch.labels), len(batch.unlabelled)
    return [labelled, *[unlabelled] * ((len(views) - labelled) // unlabelled if unlabelled else 0)]


def synchronised(network: nn.Module, last: bool) -> AbstractContextManager:
    """Within this context gradients are summed over processes in the last micro-batch alone."""
    return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) and not last else nullcontext()


def forward(state: TrainingState, images: Tensor, batch: Batch) -> LayerMatchOutput:
    """What the criterion says of a micro-batch: views Float32[B+2U ...] and their labels."""
    rows, needs = sizes(images, batch), state.criterion.needs
    features = state.network(images) if state.separate is None else state.network(images, rows[0])
    views = dict(zip(("labelled", "weak", "strong"), features.split(rows), strict=False))
    more: dict[str, Tensor] = {}
    if "indices" in needs:
        more["indices"] = batch.indices
    if "teacher" in needs:
        with torch.no_grad():
            more["teacher_weak"] = state.teacher.logits(images[rows[0] : rows[0] + rows[1]])
    return state.criterion(labelled=(views.pop("labelled"), batch.labels), **views, **more)


def measured(out: LayerMatchOutput, batch: Batch, *, classes: int = 0) -> Tensor:
    """Float32[M+K] in the order of `state.METRICS`, then how many pseudo-labels of each of `classes` were used."""
    known = batch.truth >= 0
    used, right = known, known
    if len(out.mask):
        used, right = out.mask, (out.pseudo_labels == batch.truth) & known
    parts = [
        torch.ones_like(out.loss),
        out.loss,
        out.labelled_loss,
        out.unlabelled_loss,
        used.float().mean() if len(used) else torch.zeros_like(out.loss),
    ]
    counts = torch.stack([known, right, known & used, right & used]).sum(1, dtype=torch.float32)
    numbers = torch.cat([torch.stack([part.detach().float() for part in parts]), counts])
    if not classes:
        return numbers
    by_class = numbers.new_zeros(classes).index_add_(0, out.pseudo_labels, used.float())
    return torch.cat([numbers, by_class])
