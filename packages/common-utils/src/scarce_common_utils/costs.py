"""What a step costs on this machine, measured on a few real ones: seconds each, and the memory that the process took.

The first step is not counted: it allocates, and chooses kernels. The middle one of the others stands for all. Memory on a CPU is the
largest that the whole process had, with Python and its libraries; on a GPU what torch held there at most.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

SECONDS = 5.0  # of measuring; no further step is begun after that
MOST_STEPS = 10


class Cost(NamedTuple):
    """`seconds` of a step, how many `steps` that rests on, and the `memory` in bytes, None where the system does not tell it."""

    seconds: float
    steps: int
    memory: int | None


def measure(step: Callable[[int], object], *, device: torch.device, most: int = MOST_STEPS) -> Cost:
    """Do a few steps and say what one costs.

    Args:
        step: does the step of a number, from 0.
        device: where it computes.
        most: steps to do at most, the first included; of one alone that one is counted.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken: list[float] = []
    began = time.monotonic()
    for number in range(most):
        before = time.perf_counter()
        step(number)
        _wait(device)
        taken.append(time.perf_counter() - before)
        if number and time.monotonic() - began > SECONDS:
            break
    counted = taken[1:] or taken
    return Cost(statistics.median(counted), len(counted), peak_memory(device))


def peak_memory(device: torch.device) -> int | None:
    """Bytes (module docstring)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def time_in_words(seconds: float) -> str:
    """A time as a person says it.

    Example:
        >>> [time_in_words(seconds) for seconds in (0.0412, 7.2, 200, 7300, 180_000)]
        ['41 ms', '7.2 s', '3.3 min', '2.0 h', '2.1 days']
    """
    for unit, least, length in (("days", 129_600, 86_400), ("h", 5400, 3600), ("min", 90, 60), ("s", 1, 1)):
        if seconds >= least:
            return f"{seconds / length:.1f} {unit}"
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def memory_in_words(size: int | None) -> str:
    """Bytes as a person says them.

    Example:
        >>> memory_in_words(3 * 2**29), memory_in_words(2**20 * 300), memory_in_words(None)
        ('1.5 GiB', '300 MiB', 'not known here')
    """
    if size is None:
        return "not known here"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
