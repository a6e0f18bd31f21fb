"""One step of FixMatch, with ABC's second head where the model has one: views, forward passes, the loss.

    L = FixMatch(first head; both strong views, mean over 2 U) + L1 + L2 of `balanced.py`

Passes    labelled, weak (without gradient), strong and strong again, one after the other in train mode as in ABC's code, so
          that BatchNorm takes each kind of view for itself.
Views     layermatch's: weak shift and mirror, strong with three operations and Cutout (its form "usb", the operations that
          ABC's code draws from). All draws of a step come from the replica's own generator.
Source    FixMatch (arXiv 2001.07685), in the form of DARP's and ABC's released codes: as many unlabelled as labelled images, two
          strong views, Adam, every weight multiplied by 1 - 0.02 times the rate after a step (BatchNorm's statistics too in their
          loop; not here).
Letters   B labelled, U unlabelled images a step, N and M images of the two parts, C channels, H W pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from layermatch import LayerMatch, strong_views, weak_views
from layermatch.data.orders import labelled_order, unlabelled_order
from layermatch.views.normalise import normalise
from reproduce.imwa.semi_supervised.balanced import Coins, TwoHeads, balanced_loss
from scarce_common_utils.streams import stream_seed

DECAY = 0.02  # of the weights a step, in units of the learning rate (DARP's and ABC's codes)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Numbers of a run.

    Attributes:
        steps: T, of the whole schedule.
        batch_size: B.
        unlabelled_ratio: U = ratio B.
        threshold: confidence from which a pseudo-label counts.
        learning_rate: of Adam, constant.
        shift: of the views, in pixels.
        mirror: whether a mirrored image keeps its class.
    """

    steps: int
    batch_size: int
    unlabelled_ratio: int
    threshold: float
    learning_rate: float
    shift: int
    mirror: bool


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The images that a run trains on, on its device.

    Attributes:
        labelled: UInt8[N C H W].
        labels: Int64[N].
        unlabelled: UInt8[M C H W].
        constants: mean and 1 / deviation of a channel, Float32[1 C 1 1] each.
        channels: that the network takes.
    """

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    constants: tuple[Tensor, Tensor]
    channels: int

    def prepared(self, images: Tensor) -> Tensor:
        """UInt8[n C H W] -> Float32[n channels H W]."""
        return normalise(images, self.constants, channels=self.channels)


@dataclass(frozen=True)
class Views:
    """Images of a step as the network takes them: Float[B or U, C H W] each, and `labels` Int64[B]."""

    labelled: Tensor
    labels: Tensor
    weak: Tensor
    strong: tuple[Tensor, Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        """The four batches of a step."""
        yield from (self.labelled, self.weak, *self.strong)


def step_loss(
    model: TwoHeads,
    criterion: LayerMatch,
    *,
    views: Views,
    rates: Tensor,
    step: int,
    generator: torch.Generator,
    settings: Settings,
) -> Tensor:
    """Float[] with graph.

    Args:
        model: in train mode.
        criterion: layermatch's FixMatch over the model's first head.
        views: of the step.
        rates: Float32[K], of the second head; see `balanced.labelled_rates`.
        step: global step, from 0.
        generator: of the CPU; the coins come from it.
        settings: numbers of the run.
    """
    features = model(views.labelled)
    with torch.no_grad():
        weak = model(views.weak)
    strong = [model(view) for view in views.strong]
    out = criterion(labelled=(features, views.labels), weak=torch.cat([weak] * len(strong)), strong=torch.cat(strong))
    if model.balanced is None:
        return out.loss
    tossed = torch.rand(len(features) + len(weak), generator=generator).to(features.device)
    return out.loss + balanced_loss(
        (model.balanced(features), views.labels),
        model.balanced(weak),
        strong=[model.balanced(view) for view in strong],
        rates=rates,
        progress=step / settings.steps,
        threshold=settings.threshold,
        coins=Coins(*tossed.split([len(features), len(weak)])),
    )


def views_of(
    pool: Pool, *, step: int, seed: int, replica: int, generator: torch.Generator, settings: Settings
) -> Views:
    """The views of a replica's step: which images is a function of (seed, replica, step), the draws are the generator's."""
    order = stream_seed(seed, "replica order", replica)
    size, ratio = settings.batch_size, settings.unlabelled_ratio
    mine = labelled_order(order, step, size=len(pool.labelled), batch=size)
    others = unlabelled_order(order, step, size=len(pool.unlabelled), batch=size * ratio)
    mine, others = mine.to(pool.labels.device), others.to(pool.labels.device)
    labelled, unlabelled, labels = pool.labelled[mine], pool.unlabelled[others], pool.labels[mine]
    how = {"generator": generator, "shift": settings.shift, "mirror": settings.mirror}
    first, weak = weak_views(labelled, **how), weak_views(unlabelled, **how)
    strong = strong_views(unlabelled, **how), strong_views(unlabelled, **how)
    return Views(
        pool.prepared(first), labels, pool.prepared(weak), (pool.prepared(strong[0]), pool.prepared(strong[1]))
    )


@torch.no_grad()
def decay_weights(model: torch.nn.Module, *, learning_rate: float) -> None:
    """Multiply every trained parameter by 1 - 0.02 x the rate."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.mul_(1.0 - DECAY * learning_rate)
