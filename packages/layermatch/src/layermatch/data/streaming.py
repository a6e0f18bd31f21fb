"""Batches of images that stay on disk: decoded ahead of the steps by worker processes, the same bits with any number of them.

A worker is told which images to decode and draws nothing, so that what a step sees remains a pure function of (seed, step):
a run goes on at any step and reads nothing of what came before.
Letters   B labelled, U unlabelled images of this process, C channels, H W pixels, N images in all.
"""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from scarce_common_utils.errors import UserError
from scarce_common_utils.images import ImageSet, StoredImages
from scarce_common_utils.streams import stream
from scarce_common_utils.watch import stopped_workers_end

from .batches import Batch, Batches, Places, known_truth

StartMethod = Literal["fork", "spawn", "forkserver"]
MOST_WORKERS = 8
_LEAVING = 5.0  # seconds that a worker whose connections are closed may take to be gone


class StreamedBatches(Batches):
    """As `Batches`, for images on disk; steps asked for one after the other are read ahead.

    Args:
        images: on disk.
        labelled_indices: and the next five as in `Places`.
        seed: as there.
        batch_size: as there.
        unlabelled_ratio: as there.
        with_unlabelled: as there.
        part: as there.
        device: where the batches are wanted; for CUDA they come by way of pinned memory.
        stop: the step before which reading ahead ends; None never ends.
        workers: processes that decode; 0 decodes when asked.
        start_method: of the workers; None is Python's own choice.

    Raises:
        ValueError: as `Places`.
    """

    def __init__(
        self,
        images: StoredImages,
        *,
        labelled_indices: Tensor,
        seed: int,
        batch_size: int,
        unlabelled_ratio: int,
        with_unlabelled: bool = True,
        part: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
        stop: int | None = None,
        workers: int = 0,
        start_method: StartMethod | None = None,
    ) -> None:
        self._stored, self._device = images, torch.device(device)
        self._labels = images.labels.to(self._device)
        self._stop, self._workers = stop, workers
        self._start_method: StartMethod | None = start_method
        self._reader: Iterator[Tensor] | None = None
        self._following = -1
        self.places = Places(
            images.labels,
            labelled_indices=labelled_indices,
            seed=seed,
            batch_size=batch_size,
            unlabelled_ratio=unlabelled_ratio,
            with_unlabelled=with_unlabelled,
            part=part,
        )
        self._truth = known_truth(self._labels, labelled_indices)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, from 0: this process's part of it.

        Raises:
            UserError: an image cannot be decoded any more, or a worker died; which one is said.
        """
        if self._reader is None or step != self._following:
            self.close()
            self._reader = read_in_order(
                self._stored,
                _Steps(self.places, step, self._stop),
                workers=self._workers,
                pin_memory=self._device.type == "cuda",
                start_method=self._start_method,
            )
        try:
            pixels = next(self._reader).to(self._device, non_blocking=True)
        except BaseException:
            self.close()
            raise
        self._following = step + 1
        if self._following == self._stop:
            self.close()
        labelled, pool = (places.to(self._device, non_blocking=True) for places in self.places(step))
        seen = pixels.split([len(labelled), len(pool)])
        return Batch(seen[0], self._labels[labelled], seen[1], pool, self._truth[pool])

    def close(self) -> None:
        """End the workers; a later step starts them again."""
        if self._reader is not None:
            self._reader.close()  # pyright: ignore[reportAttributeAccessIssue]  (a generator)
            self._reader = None


def image_parts(
    images: ImageSet | StoredImages, *, at_once: int = 512, workers: int = 0, start_method: StartMethod | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, in parts: UInt8[n C H W] and their labels, Int64[n], on the CPU or where the set lies.

    Args:
        images: in memory or on disk.
        at_once: n; the last part may be smaller.
        workers: processes that decode images on disk.
        start_method: of the workers.

    Raises:
        UserError: as `StreamedBatches`.
    """
    labels = images.labels.split(at_once)
    if isinstance(images, ImageSet):
        yield from zip(images.images.split(at_once), labels, strict=True)
        return
    parts = [part.tolist() for part in torch.arange(len(images)).split(at_once)]
    yield from zip(read_in_order(images, parts, workers=workers, start_method=start_method), labels, strict=True)


def choose_workers(asked: int | None, cores: int) -> int:
    """As asked, else one for each core, at most `MOST_WORKERS`."""
    return min(cores, MOST_WORKERS) if asked is None else asked


def read_in_order(
    images: StoredImages,
    batches: Iterable[list[int]],
    *,
    workers: int = 0,
    pin_memory: bool = False,
    start_method: StartMethod | None = None,
) -> Iterator[Tensor]:
    """UInt8[n C H W] for each list of n places, in their order, decoded ahead by `workers` processes.

    Raises:
        UserError: an image cannot be decoded any more, or a worker died; which one is said.
    """
    loader = DataLoader(
        _Decoding(images),
        batch_sampler=batches,  # pyright: ignore[reportArgumentType]  (any iterable of lists serves)
        num_workers=workers,
        collate_fn=_only,
        pin_memory=pin_memory,
        multiprocessing_context=start_method if workers else None,
        generator=stream(0, "loader"),  # or the loader would draw from the global generator; the workers draw nothing
    )
    reader = _started(loader)
    watch = ExitStack()
    if workers:
        watch.enter_context(stopped_workers_end())
    try:
        while True:
            try:
                found = next(reader)
            except StopIteration:
                return
            except (
                RuntimeError,
                OSError,
                EOFError,
            ) as error:  # the last two where a batch lay ready in a worker that is gone
                end = time.monotonic() + (0.0 if isinstance(error, RuntimeError) else _LEAVING)
                while not _dead(reader) and time.monotonic() < end:
                    time.sleep(0.05)
                if not _dead(reader):
                    raise
                raise UserError(_death(reader, workers)) from error
            if isinstance(found, str):
                raise UserError(found)
            yield found
    finally:  # an exception's traceback would keep the reader, and with it the workers
        watch.close()
        getattr(reader, "_shutdown_workers", lambda: None)()


class _Decoding(Dataset[Any]):
    """Pixels of a whole list of places at once, or the sentence that says which of them cannot be decoded."""

    def __init__(self, images: StoredImages) -> None:
        self._images = images

    def __getitems__(self, places: list[int]) -> list[Tensor | str]:
        try:
            return [self._images.read(torch.tensor(places, dtype=torch.int64))]
        except UserError as error:  # a worker's exception would come back wrapped in its traceback
            return [str(error)]

    def __getitem__(self, place: int) -> Tensor:
        return self._images.read(torch.tensor([place]))[0]


class _Steps(Sampler[list[int]]):
    """For each step from `first` on the places of its labelled and then its unlabelled images."""

    def __init__(self, places: Places, first: int, stop: int | None) -> None:
        self._places, self._first, self._stop = places, first, stop

    def __iter__(self) -> Iterator[list[int]]:
        step = self._first
        while self._stop is None or step < max(self._stop, self._first + 1):
            yield torch.cat(self._places(step)).tolist()
            step += 1


def _only(found: list[Any]) -> Any:
    return found[0]


def _started(loader: "DataLoader[Any]") -> Any:
    """The loader's iterator, without torch's handler of SIGCHLD.

    The handler raises wherever the main process happens to be once a worker dies, in the middle of an optimizer's step or
    of a file being written. Without it a death is seen when that worker's batch is waited for, at most 5 s later.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _dead(reader: Any) -> list[tuple[int, Any]]:
    """Number and process of each worker that ended."""
    return [(number, worker) for number, worker in enumerate(getattr(reader, "_workers", [])) if not worker.is_alive()]


def _death(reader: Any, workers: int) -> str:
    said = []
    for number, worker in _dead(reader):
        code = worker.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said.append(f"Worker {number + 1} of {workers} (process {worker.pid}), which decodes images, {how}.")
    return (
        f"{' '.join(said)} The machine may be short of memory, or of shared memory (/dev/shm). "
        "Go on with --resume and fewer --workers; 0 decodes in the run itself."
    )
