"""From places in the data to a step's pixels, labels and indices, out of memory.

Letters   B labelled, U unlabelled images, C channels, H W pixels, N images in all.
"""

from typing import NamedTuple

from torch import Tensor

from .orders import labelled_order, unlabelled_order


class Batch(NamedTuple):
    """What one step sees, on the device.

    `labelled` UInt8[B C H W], `labels` Int64[B]; `unlabelled` UInt8[U C H W], `indices` Int64[U] (their places among all
    images) and `truth` Int64[U], their true labels where known, else -1: to be measured with, never to be trained on.
    """

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    indices: Tensor
    truth: Tensor


class Batches:
    """Batches of a set in memory, a pure function of the step.

    Args:
        images: UInt8[N C H W], on the device that the batches are wanted on.
        labels: Int64[N] there; -1 where unknown.
        labelled_indices: Int64[L] on the CPU: the images whose labels may be used.
        seed: of the two orders.
        batch_size: B.
        unlabelled_ratio: mu; U = mu B, drawn from all N images, the labelled ones included, as this line of work does.
        with_unlabelled: False leaves the unlabelled part empty (a method that does not look at it).

    Raises:
        ValueError: an index is out of range, or its label is -1 (checked once, here).
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        labelled_indices: Tensor,
        seed: int,
        batch_size: int,
        unlabelled_ratio: int,
        with_unlabelled: bool = True,
    ) -> None:
        if len(labelled_indices) == 0 or int(labelled_indices.max()) >= len(images) or int(labelled_indices.min()) < 0:
            raise ValueError(f"labelled_indices must name some of the {len(images)} images, by numbers from 0.")
        if bool((labels.cpu()[labelled_indices] < 0).any()):
            raise ValueError("labelled_indices names an image whose label is not known (-1).")
        self._images, self._labels, self._labelled = images, labels, labelled_indices
        self._seed, self._size = seed, batch_size
        self._unlabelled = batch_size * unlabelled_ratio if with_unlabelled else 0

    def places(self, step: int) -> tuple[Tensor, Tensor]:
        """Int64[B] and Int64[U] places among all images, on the CPU."""
        order = labelled_order(self._seed, step, size=len(self._labelled), batch=self._size)
        if not self._unlabelled:
            return self._labelled[order], order[:0]
        pool = unlabelled_order(self._seed, step, size=len(self._images), batch=self._unlabelled)
        return self._labelled[order], pool

    def __call__(self, step: int) -> Batch:
        """The batch of a step, from 0."""
        device = self._images.device
        labelled, pool = (places.to(device, non_blocking=True) for places in self.places(step))
        images, labels = self._images, self._labels
        return Batch(images[labelled], labels[labelled], images[pool], pool, labels[pool])
