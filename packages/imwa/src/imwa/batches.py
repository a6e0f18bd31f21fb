"""A replica's batches from the caller's own DataLoader: pure functions of (seed, replica, step).

Equation  epoch = step // n, position = step % n with n batches an epoch; the epoch's order is drawn from
          stream(seed, "replica order", replica, epoch), and what is drawn while the batch is read (augmentation in the
          data set or the collate function) from stream_seed(seed, "replica batch", replica, step).
So nothing of a loader needs saving: a run goes on in the middle of an epoch, reads no batch before, and the number of
workers changes no bit.
Source    IMWA (arXiv 2404.16331): each replica has its own data order; keyed by step is our reading.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler

from scarce_common_utils.random_state import capture_random_state, restore_random_state, seed_random_state
from scarce_common_utils.streams import stream, stream_seed

_Numbered = tuple[int, list[int]]  # the batch's own seed, and its indices


class StepNumbers(Protocol):
    """Steps of a replica: where it stands, where it ends, and handing one out."""

    following: int
    stop: int

    def __next__(self) -> int: ...


def replica_batches(
    loader: "DataLoader[Any]", *, steps: StepNumbers, seed: int, replica: int
) -> Iterator[tuple[int, Any]]:
    """Pairs (global step, batch) for the steps that are left; a pair handed out counts as done.

    Raises:
        ValueError: the loader cannot be cut at a step (see `Replica.batches`); named, before anything is read.
    """
    _refuse(loader)
    return _read(loader, steps=steps, seed=seed, replica=replica)


def epoch_order(loader: "DataLoader[Any]", *, seed: int, replica: int, epoch: int) -> list[int]:
    """Indices of one epoch: a permutation of the data set, or what the loader's own random sampler draws."""
    generator = stream(seed, "replica order", replica, epoch)
    if isinstance(loader.sampler, SequentialSampler):
        return torch.randperm(len(loader.sampler), generator=generator).tolist()
    sampler = copy.copy(loader.sampler)
    sampler.generator = generator  # pyright: ignore[reportAttributeAccessIssue] (`_refuse` saw that it has one)
    return [int(index) for index in sampler]


class _StepBatches(Sampler[_Numbered]):
    """Index lists of the steps `first` to `stop - 1`, each with the seed of what is drawn while it is read."""

    def __init__(self, loader: "DataLoader[Any]", *, first: int, stop: int, seed: int, replica: int) -> None:
        self._loader, self._first, self._stop = loader, first, stop
        self._seed, self._replica = seed, replica

    def __len__(self) -> int:
        return self._stop - self._first

    def __iter__(self) -> Iterator[_Numbered]:
        size, each = self._loader.batch_size or 1, len(self._loader)
        epoch, order = -1, []
        for step in range(self._first, self._stop):
            if step // each != epoch:
                epoch = step // each
                order = epoch_order(self._loader, seed=self._seed, replica=self._replica, epoch=epoch)
            begin = (step % each) * size
            yield stream_seed(self._seed, "replica batch", self._replica, step), order[begin : begin + size]


class _Seeded(Dataset[Any]):
    """The caller's data set, read batch by batch: in a worker each batch starts its generators from its own seed."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, numbered: _Numbered) -> Sequence[Any]:
        batch_seed, indices = numbered
        if torch.utils.data.get_worker_info() is not None:
            seed_random_state(batch_seed)
        read_many = getattr(self.dataset, "__getitems__", None)
        return read_many(indices) if read_many else [self.dataset[index] for index in indices]

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def _read(loader: "DataLoader[Any]", *, steps: StepNumbers, seed: int, replica: int) -> Iterator[tuple[int, Any]]:
    batches = _StepBatches(loader, first=steps.following, stop=steps.stop, seed=seed, replica=replica)
    reader = iter(_rebuilt(loader, batches, stream(seed, "replica workers", replica, steps.following)))
    while steps.following < steps.stop:
        if loader.num_workers:
            batch = next(reader)
        else:
            before = capture_random_state()
            seed_random_state(stream_seed(seed, "replica batch", replica, steps.following))
            try:
                batch = next(reader)
            finally:
                restore_random_state(before)
        yield next(steps), batch


def _rebuilt(loader: "DataLoader[Any]", batches: _StepBatches, generator: torch.Generator) -> "DataLoader[Any]":
    """The caller's loader over these batches; every setting that does not choose indices is kept."""
    return DataLoader(
        _Seeded(loader.dataset),
        batch_sampler=batches,  # pyright: ignore[reportArgumentType] (a batch travels with its seed)
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=generator,
        prefetch_factor=loader.prefetch_factor,
        in_order=loader.in_order,
    )


def _refuse(loader: Any) -> None:
    """Name what cannot be cut at a step: no map-style DataLoader, or one whose indices are not ours to order."""
    if not isinstance(loader, DataLoader):
        raise ValueError(f"replica.batches takes a torch DataLoader, not a {type(loader).__name__}.")
    if isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"The loader's data set {type(loader.dataset).__name__} is iterable, so a replica cannot go on in its middle. "
            "Use a map-style data set, or iterate over replica.steps and read the data yourself."
        )
    if loader.batch_sampler is None:
        raise ValueError("The loader has batch_size=None. Give it a batch size.")
    if type(loader.batch_sampler) is not BatchSampler:
        raise ValueError(
            f"The loader has a batch sampler of its own, {type(loader.batch_sampler).__name__}. Give the loader batch_size "
            "instead, or iterate over replica.steps and read the data yourself."
        )
    if not isinstance(loader.sampler, SequentialSampler) and not hasattr(loader.sampler, "generator"):
        raise ValueError(
            f"The loader's sampler {type(loader.sampler).__name__} takes no generator, so replicas would share its order. "
            "Leave the sampler out (each epoch is shuffled), or give one with a `generator` attribute."
        )
    if len(loader) == 0:
        raise ValueError(
            f"The loader has no batch: batch_size={loader.batch_size} with drop_last={loader.drop_last} leaves nothing of "
            "its data set. Use a smaller batch_size, drop_last=False, or more data."
        )
