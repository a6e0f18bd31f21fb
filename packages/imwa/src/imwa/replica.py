"""One of an episode's replicas while it trains: its numbers, its steps, its random stream, its batches.

Source    IMWA (arXiv 2404.16331): every replica has a data order of its own; one stream for the whole run is our reading.
"""

from collections.abc import Iterator
from typing import Any

import torch

from imwa.batches import replica_batches
from imwa.plan import Entry


class Steps:
    """The global steps of one replica in one episode, handed out once each; a number handed out counts as done."""

    def __init__(self, start: int, stop: int, *, following: int) -> None:
        self.start = start
        self.stop = stop
        self.following = following  # the number that is handed out next

    def __iter__(self) -> "Steps":
        return self

    def __next__(self) -> int:
        if self.following >= self.stop:
            raise StopIteration
        self.following += 1
        return self.following - 1

    def __len__(self) -> int:
        """Number of steps still to be handed out."""
        return self.stop - self.following


class Replica:
    """One of the M models of an episode, while it trains.

    Attributes:
        index: its number m, from 0.
        episode: the episode's number e, from 0.
        steps: iterator over its global steps in this episode; consume it to the end.
        generator: its own random stream (CPU), `stream(seed, "replica", index)`, carried from episode to episode.
    """

    def __init__(self, entry: Entry, *, following: int, generator: torch.Generator, seed: int) -> None:
        self.index = entry.replica
        self.episode = entry.episode
        self.steps = Steps(entry.start, entry.stop, following=following)
        self.generator = generator
        self._seed = seed

    def batches(self, loader: "torch.utils.data.DataLoader[Any]") -> Iterator[tuple[int, Any]]:
        """Pairs (step, batch) of the replica's remaining steps, from a loader's own data set and settings.

        Every epoch is a new order from (seed, replica, epoch), and a step's batch is a pure function of the step: it
        goes on in the middle of an epoch in the next episode and after a resume, and reads no batch before. Random
        draws while a batch is read (augmentation) come from (seed, replica, step), whatever the number of workers. Workers
        start anew with every call, so in each episode.

        Args:
            loader: a map-style DataLoader. Its data set, batch_size, drop_last, collate_fn, workers and pinning are
                used; its sampler's order is replaced, a sampler that has a `generator` (weighted, subset) drawing
                from the replica's.

        Raises:
            ValueError: the loader has an iterable data set, a batch sampler or sampler of the caller's own, no batch
                size, or no batch in an epoch; named.
        """
        return replica_batches(loader, steps=self.steps, seed=self._seed, replica=self.index)
