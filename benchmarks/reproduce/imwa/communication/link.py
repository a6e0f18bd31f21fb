"""A slow link between gloo processes: every collective ends no sooner than its own bytes take at a stated bandwidth.

Throttling a socket needs privileges that a test machine seldom gives. So the bytes are real and the link is emulated: what a
process writes to its sockets within a call is read from the kernel (`wchar` of /proc/self/io; gloo writes by writev), and the call
sleeps until latency + bytes / bandwidth have passed. Collectives are not overlapped with computing.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

CALLS = ("all_reduce", "broadcast", "all_gather_object", "broadcast_object_list")


class Link:
    """Counts and delays this process's collectives while `slow()` holds.

    Args:
        bandwidth: bytes a second each process can send; None is as fast as the machine.
        latency: seconds that each call takes at least.
    """

    def __init__(self, *, bandwidth: float | None, latency: float = 0.0) -> None:
        self.bandwidth, self.latency = bandwidth, latency
        self.sent = 0  # bytes
        self.calls = 0
        self.seconds = 0.0  # that the link needs for them, without waiting for others

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Collectives of torch.distributed go over this link within the block."""
        plain = {name: getattr(dist, name) for name in CALLS}
        try:
            for name, call in plain.items():
                setattr(dist, name, self._over(call))
            yield
        finally:
            for name, call in plain.items():
                setattr(dist, name, call)

    def _over(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def delayed(*args: Any, **kwargs: Any) -> Any:
            began, before = time.perf_counter(), written()
            result = call(*args, **kwargs)
            sent = written() - before
            needed = 0.0 if self.bandwidth is None else self.latency + sent / self.bandwidth
            self.sent, self.calls, self.seconds = self.sent + sent, self.calls + 1, self.seconds + needed
            time.sleep(max(0.0, needed - (time.perf_counter() - began)))
            return result

        return delayed


def written() -> int:
    """Bytes that this process has written so far, to files and sockets."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no line 'wchar:', so bytes cannot be counted on this machine.")
