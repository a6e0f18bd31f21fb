"""Batches that carry their own number, so that each is masked at the width of the optimizer step it serves.

    step of a batch = number // (accumulation * processes)

A loader runs ahead, its workers hold copies of the collator, and resuming skips batches where nobody sees it: a counter in
the collator is wrong in all three. Here the number travels with every example, from the sampler through the index
(`NumberedIndex`, an int) and the dataset (`NumberedDataset`) to the collator. Examples are dealt in one pass over the whole
run, a pure function of (seed, batch number), so nothing needs saving.

Letters   B examples a batch.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from scarce_common_utils.streams import stream


class NumberedIndex(int):
    """Index of an example that also tells `number`, the place of its batch in the run, over all processes."""

    number: int

    def __new__(cls, index: int, number: int) -> "NumberedIndex":
        """Integer `index` that carries `number`."""
        self = super().__new__(cls, index)
        self.number = number
        return self

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        """Pickle with the number: loader workers get indices by pickle."""
        return NumberedIndex, (int(self), self.number)


class NumberedExample(NamedTuple):
    """An example of the wrapped dataset and the number of the batch it belongs to."""

    number: int
    example: Any


class NumberedDataset(torch.utils.data.Dataset):
    """A map-style dataset whose examples come as `NumberedExample` when asked for by a `NumberedIndex`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Example `index`; with the batch's number if the index carries one."""
        example = self.dataset[int(index)]
        return NumberedExample(index.number, example) if isinstance(index, NumberedIndex) else example


class NumberedBatches:
    """Batch sampler that deals `batches` full batches in one pass and numbers them from 0.

    Give `batches.dataset` to the loader in place of the dataset itself:

        batches = NumberedBatches(dataset, batch_size=32, batches=steps * accumulation * processes, seed=0)
        loader = DataLoader(batches.dataset, batch_sampler=batches, collate_fn=collator, num_workers=2)

    Args:
        dataset: map-style dataset with a length.
        batch_size: examples a batch and process.
        batches: batches of the whole run, over all processes: optimizer steps x accumulation x processes.
        seed: seed of the order, drawn anew for each pass over the data from `stream(seed, "example order", pass)`.
        shuffle: false deals the examples in their own order, for data that are drawn by number already.

    Raises:
        ValueError: an empty dataset, or a count below 1; the value is named.
    """

    drop_last = False  # accelerate asks; every batch is full

    def __init__(self, dataset: Any, *, batch_size: int, batches: int, seed: int = 0, shuffle: bool = True) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("batches", batches),
            ("examples in the dataset", len(dataset)),
        ):
            if value < 1:
                raise ValueError(f"{name}: {value}, but at least 1 is needed.")
        self.dataset = NumberedDataset(dataset)
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.shuffle = shuffle

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[NumberedIndex]]:
        """Batches 0, 1, ...: lists of B `NumberedIndex`."""
        size, epoch, order = len(self.dataset), -1, list[int]()
        for number in range(self.batches):
            batch = []
            for place in range(number * self.batch_size, (number + 1) * self.batch_size):
                if self.shuffle and place // size != epoch:
                    epoch = place // size
                    order = torch.randperm(size, generator=stream(self.seed, "example order", epoch)).tolist()
                index = order[place % size] if self.shuffle else place % size
                batch.append(NumberedIndex(index, number))
            yield batch
