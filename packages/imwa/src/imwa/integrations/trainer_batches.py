"""Which batch a transformers Trainer reads at which place of its loop, when replicas take turns in it.

Equation  micro-batch j of the loop's pass k belongs to step k * u + j // a of the loop, u steps a pass, a micro-batches a step;
          `Turns.at` says of which replica and step s that is; its batch is number (s % u) * a + j % a of the replica's own
          pass s // u. Replica 0's passes are the Trainer's, replica m's those of another seed.
So a batch is a pure function of its place: reading ahead and resuming by skipping both come out right.
Source    IMWA (arXiv 2404.16331): every replica has a data order of its own; the rest is a reading of ours.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from imwa.integrations.turns import Turns
from scarce_common_utils.streams import stream_seed


class TurnBatches(BatchSampler):
    """Index lists of one pass of the loop, in the order of the replicas' turns.

    The Trainer and accelerate set the pass in `sampler.epoch`, as in every loader of theirs.

    Args:
        plain: the Trainer's own batches, over accelerate's SeedableRandomSampler.
        turns: gives the training under way; None, or one that ended: the plain batches.
        accumulation: micro-batches a step.
    """

    def __init__(self, plain: BatchSampler, turns: Callable[[], Turns | None], *, accumulation: int) -> None:
        super().__init__(plain.sampler, plain.batch_size, plain.drop_last)
        self._turns, self._accumulation = turns, accumulation

    def __iter__(self) -> Iterator[list[int]]:
        turns, updates = self._turns(), -(-len(self) // self._accumulation)
        if turns is None or turns.ended:  # the loader is read outside training
            yield from super().__iter__()
            return
        if turns.finished:  # a finished run was resumed
            return
        sampler: Any = self.sampler
        first = sampler.epoch * updates
        orders: dict[tuple[int, int], list[list[int]]] = {}
        for number in range(len(self)):
            update, micro_batch = divmod(number, self._accumulation)
            place = turns.at(first + update)
            epoch, within = divmod(place.step, updates)
            if (place.replica, epoch) not in orders:
                orders = {key: order for key, order in orders.items() if key[0] != place.replica}
                orders[place.replica, epoch] = self._order(place.replica, epoch, seed=turns.seed)
            yield orders[place.replica, epoch][within * self._accumulation + micro_batch]

    def _order(self, replica: int, epoch: int, *, seed: int) -> list[list[int]]:
        """Batches of one pass of one replica."""
        sampler: Any = copy.copy(self.sampler)
        sampler.generator = torch.Generator()
        if replica:
            sampler.initial_seed = stream_seed(seed, "replica order", replica)
        sampler.set_epoch(epoch)
        return list(BatchSampler(sampler, self.batch_size, self.drop_last))


def in_turns(loader: "DataLoader[Any]", turns: Callable[[], Turns | None], *, accumulation: int) -> "DataLoader[Any]":
    """The Trainer's loader over these batches, to be prepared by accelerate again; all other settings are kept.

    Raises:
        ValueError: its data set or sampler cannot be cut at a step; named.
    """
    plain = loader.batch_sampler
    sampler: Any = getattr(plain, "sampler", None)
    if isinstance(loader.dataset, IterableDataset) or sampler is None or type(plain) is not BatchSampler:
        raise ValueError(
            f"The loader of {type(loader.dataset).__name__} has no batches that can be told by number: an iterable data set, or a "
            "batch sampler of its own. Give a map-style data set, and leave the batches to the Trainer."
        )
    if not isinstance(sampler, RandomSampler) or not hasattr(sampler, "initial_seed"):
        raise ValueError(
            f"The training sampler is {type(sampler).__name__}, whose order does not follow from a seed and the epoch alone, so "
            "replicas would share it or a resumed run would lose it. Leave train_sampling_strategy='random' and accelerate's "
            "use_seedable_sampler=True."
        )
    return DataLoader(
        loader.dataset,
        batch_sampler=TurnBatches(plain, turns, accumulation=accumulation),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )
