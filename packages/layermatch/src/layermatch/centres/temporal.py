"""Reading `temporal` (ours): pseudo-labels from each image's averaged outputs.

    on each visit of image i:   Q_i <- m Q_i + (1 - m) q_w,i,    visits_i += 1,    q_w,i becomes Q_i / (1 - m^visits_i)

The clock ticks once a visit: an image is seen again every N/U steps. An image that is twice in one batch is visited
once, with the probabilities of its last place; over several processes "last" is in the order of ranks, and all
processes keep the same averages. Nothing moves where the loss of the batch is not finite.

Source    Temporal Ensembling, arXiv 1610.02242, whose momentum 0.6 and bias correction these are; as a reading of
          LayerMatch's "consistent outputs" ours.
Letters   U samples of this process, K classes, N unlabelled images.
"""

import torch
from torch import Tensor, nn

from layermatch.processes import gathered, process_count

from .reading import Reading, check_device, check_momentum, device_of, softmax, wide_dtype


class TemporalAverages(Reading):
    """A moving average of the class probabilities of every unlabelled image (reading `temporal`, ours).

    Args:
        classifier: the live classifier; its dtype decides that of the state.
        classes: K.
        images: N, the size of the unlabelled set.
        momentum: m in [0, 1), per visit of an image.

    State: `temporal_averages` Float[N K] zeros, `temporal_visits` Int64[N]; 20 MB for 50,000 images of 100 classes.
    It moves at the end of the forward whose weights already use it.
    """

    default_momentum = 0.6
    needs = frozenset({"indices"})
    observes = True
    temporal_averages: Tensor
    temporal_visits: Tensor

    def __init__(self, classifier: nn.Module, *, classes: int, images: int, momentum: float = default_momentum) -> None:
        super().__init__()
        self.momentum = check_momentum(momentum, reading="temporal")
        device = device_of(classifier)
        start = torch.zeros(images, classes, dtype=wide_dtype(classifier), device=device)
        self.register_buffer("temporal_averages", start)
        self.register_buffer("temporal_visits", torch.zeros(images, dtype=torch.int64, device=device))
        self._visit: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def probabilities(
        self, weak: Tensor, classifier: nn.Module, *, indices: Tensor | None = None, teacher_weak: Tensor | None = None
    ) -> Tensor:
        """Float[U K] averaged probabilities of the images, this visit included; it is written by `observe()`."""
        assert indices is not None
        check_device(self.temporal_averages, weak)
        check_indices(indices, images=len(self.temporal_visits))
        live = softmax(classifier(weak)).to(self.temporal_averages.dtype)
        everyones, indices = gathered(live), gathered(indices)
        last = _last_places(indices, images=len(self.temporal_visits))
        rows = self.temporal_averages[indices].lerp(everyones[last], 1.0 - self.momentum)
        visits = self.temporal_visits[indices] + 1
        self._visit = indices, rows, visits
        averaged = rows / (1.0 - self.momentum ** visits.to(rows.dtype))[:, None]
        if process_count() > 1:
            return averaged[torch.distributed.get_rank() * len(live) :][: len(live)]
        return averaged

    @torch.no_grad()
    def observe(self, labelled: tuple[Tensor, Tensor], *, finite: Tensor) -> None:
        """Write the visit of this forward, unless something of the batch is not finite in any process."""
        if self._visit is None:
            return
        (indices, rows, visits), self._visit = self._visit, None
        written = gathered(finite[None]).all() & rows.isfinite().all()
        self.temporal_averages.index_copy_(0, indices, torch.where(written, rows, self.temporal_averages[indices]))
        self.temporal_visits.index_copy_(0, indices, torch.where(written, visits, self.temporal_visits[indices]))


def check_indices(indices: Tensor, *, images: int) -> None:
    """Raise a ValueError that names the first index outside 0..images-1. On the CPU only; no torch call is made."""
    if indices.device.type != "cpu" or not len(indices):
        return
    values = indices.numpy()
    if values.min() < 0 or values.max() >= images:
        wrong = next(int(value) for value in values if not 0 <= value < images)
        raise ValueError(f"An index is {wrong}, and there are {images} unlabelled images, so they run from 0 on.")


def _last_places(indices: Tensor, *, images: int) -> Tensor:
    """Int64[U]: for each place the last place in the batch that holds the same image."""
    places = torch.arange(len(indices), device=indices.device)
    last = torch.zeros(images, dtype=torch.int64, device=indices.device)
    return last.scatter_reduce_(0, indices, places, "amax")[indices]
