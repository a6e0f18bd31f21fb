"""From places in the data to a step's pixels, labels and indices, out of memory.

Where several processes train, the orders are drawn for the global batch, and process r of P takes the r-th of P equal
slices: the slices laid end to end are the batch of one process alone.
Letters   B labelled, U unlabelled images of a global batch, C channels, H W pixels, N images in all.
"""

from typing import NamedTuple

from torch import Tensor

from .orders import labelled_order, unlabelled_order


class Batch(NamedTuple):
    """What one step sees, on the device.

    `labelled` UInt8[B C H W], `labels` Int64[B]; `unlabelled` UInt8[U C H W], `indices` Int64[U] (their places among all
    images) and `truth` Int64[U], their true labels where known, else -1: to be measured with, never to be trained on (`known_truth`).
    """

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    indices: Tensor
    truth: Tensor


class Places:
    """Which images each step sees: places among all N images, a pure function of the step.

    Args:
        labels: Int64[N]; -1 where unknown.
        labelled_indices: Int64[L] on the CPU: the images whose labels may be used.
        seed: of the two orders.
        batch_size: B, of all processes together.
        unlabelled_ratio: mu; U = mu B, drawn from all N images, the labelled ones included, as this line of work does.
        with_unlabelled: False leaves the unlabelled part empty (a method that does not look at it).
        part: (rank, processes): which slice of the global batch.

    Raises:
        ValueError: an index is out of range, or its label is -1 (checked once, here); or B cannot be cut into equal slices.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        labelled_indices: Tensor,
        seed: int,
        batch_size: int,
        unlabelled_ratio: int,
        with_unlabelled: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if len(labelled_indices) == 0 or int(labelled_indices.max()) >= len(labels) or int(labelled_indices.min()) < 0:
            raise ValueError(f"labelled_indices must name some of the {len(labels)} images, by numbers from 0.")
        if bool((labels.cpu()[labelled_indices] < 0).any()):
            raise ValueError("labelled_indices names an image whose label is not known (-1).")
        rank, processes = part
        if not 0 <= rank < processes:
            raise ValueError(f"part is {part}; it must be (rank, processes) with a rank from 0 to {processes - 1}.")
        if batch_size % processes:
            raise ValueError(
                f"batch_size is {batch_size}, which {processes} processes cannot share equally. "
                f"Choose a multiple of {processes}."
            )
        self._images, self._labelled = len(labels), labelled_indices
        self._seed, self._size, self._part = seed, batch_size, part
        self._unlabelled = batch_size * unlabelled_ratio if with_unlabelled else 0

    def whole(self, step: int) -> tuple[Tensor, Tensor]:
        """Int64[B] and Int64[U], those of the global batch, on the CPU."""
        order = labelled_order(self._seed, step, size=len(self._labelled), batch=self._size)
        if not self._unlabelled:
            return self._labelled[order], order[:0]
        pool = unlabelled_order(self._seed, step, size=self._images, batch=self._unlabelled)
        return self._labelled[order], pool

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Int64[B / P] and Int64[U / P], this process's slice of them."""
        rank, processes = self._part
        labelled, pool = self.whole(step)
        return labelled.chunk(processes)[rank], pool.chunk(processes)[rank] if len(pool) else pool


class Batches:
    """Batches of a set in memory, a pure function of the step.

    Args:
        images: UInt8[N C H W], on the device that the batches are wanted on.
        labels: Int64[N] there; -1 where unknown.
        labelled_indices: and the others as in `Places`.
        seed: as there.
        batch_size: as there.
        unlabelled_ratio: as there.
        with_unlabelled: as there.
        part: as there.

    Raises:
        ValueError: as `Places`.
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
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._images, self._labels = images, labels
        self.places = Places(
            labels,
            labelled_indices=labelled_indices,
            seed=seed,
            batch_size=batch_size,
            unlabelled_ratio=unlabelled_ratio,
            with_unlabelled=with_unlabelled,
            part=part,
        )
        self._truth = known_truth(labels, labelled_indices)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, from 0: this process's part of it."""
        device = self._labels.device
        labelled, pool = (places.to(device, non_blocking=True) for places in self.places(step))
        images, labels = self._images, self._labels
        return Batch(images[labelled], labels[labelled], images[pool], pool, self._truth[pool])


def known_truth(labels: Tensor, labelled_indices: Tensor) -> Tensor:
    """Int64[N], the labels to measure pseudo-labels with; -1 where there is none.

    Where some images have no label, those that are trained on are left out too: they come up in the pool as well, and pseudo-labels
    of images that were learnt by heart would stand for all the others.

    Args:
        labels: Int64[N]; -1 where unknown.
        labelled_indices: Int64[L], the images whose labels are trained on.
    """
    if not bool((labels < 0).any()):
        return labels
    truth = labels.clone()
    truth[labelled_indices.to(labels.device)] = -1
    return truth
