"""Images of a run by their places, in memory or on disk; those on disk are decoded by threads, a step ahead of training.

Which images come is decided by whoever asks: threads and reading ahead change no bit, and nothing needs saving.
Letters   N images, n of them, C channels, H W pixels.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from scarce_common_utils.image_decoding import usable_cores
from scarce_common_utils.image_sets import AnyImages, ImageSet

IMAGES_A_TASK = 16


class Reading:
    """The pixels of a set of images.

    Args:
        images: in memory or on disk.
        device: where pixels are wanted; a set in memory lies there as a whole.

    Attributes:
        device: as given.
    """

    def __init__(self, images: AnyImages, *, device: torch.device) -> None:
        self.device = device
        self._whole = images.images.to(device) if isinstance(images, ImageSet) else None
        self._stored = None if isinstance(images, ImageSet) else images
        self._count = len(images)
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[int, tuple[Tensor, list[Future[Tensor]]]] = {}

    def __call__(self, places: Tensor) -> Tensor:
        """UInt8[n C H W] at `places`, Int64[n] on the CPU.

        Raises:
            UserError: an image on disk cannot be decoded any more; it is named.
        """
        if self._whole is not None:
            return self._whole[places.to(self.device)]
        return self._joined(self._begun(places))

    def taken(self, places: Tensor, *, replica: int, following: Tensor | None) -> Tensor:
        """As a call; of images on disk `following`, the places of the replica's next step, is begun meanwhile."""
        if self._whole is not None:
            return self(places)
        expected, begun = self._ahead.pop(replica, (None, []))
        if expected is None or not torch.equal(expected, places):
            begun = self._begun(places)
        found = self._joined(begun)
        if following is not None:
            self._ahead[replica] = (following, self._begun(following))
        return found

    def split(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time, the next ones begun while one part is looked at."""
        if self._whole is not None:
            yield from self._whole.split(size)
            return
        parts = torch.arange(self._count).split(size)
        begun = self._begun(parts[0])
        for following in (*parts[1:], None):
            found = self._joined(begun)
            begun = [] if following is None else self._begun(following)
            yield found

    def _begun(self, places: Tensor) -> list[Future[Tensor]]:
        assert self._stored is not None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decoding")
        return [self._pool.submit(self._stored.read, part) for part in places.split(IMAGES_A_TASK)]

    def _joined(self, begun: list[Future[Tensor]]) -> Tensor:
        return torch.cat([part.result() for part in begun]).to(self.device, non_blocking=True)
