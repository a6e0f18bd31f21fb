"""A row of the bench: what, ours, the peer's, their ratio, the bar, and whether it holds.

`speed/<package>.py` holds `ROWS: tuple[Callable[[], Row], ...]`. Times are CPU seconds of this process (user and system), the
smaller of several turns taken in alternation, so that a busy machine moves both sides alike.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal, NamedTuple


class Row(NamedTuple):
    """One comparison.

    Attributes:
        what: what was measured, with sizes.
        ours: our figure.
        peer: the peer's figure.
        peer_name: what it is compared with.
        unit: of both figures.
        ratio: the ratio that the bar speaks of, ours over the peer's unless `what` says otherwise.
        bar: the bound.
        bound: whether the ratio must be at most or at least the bar.
    """

    what: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float
    bar: float
    bound: Literal["at most", "at least"] = "at most"

    @property
    def holds(self) -> bool:
        """Whether the ratio is on the right side of the bar."""
        return self.ratio <= self.bar if self.bound == "at most" else self.ratio >= self.bar


class Times(NamedTuple):
    """CPU seconds of one call, the least of all turns."""

    ours: float
    peer: float


def absolute_row(what: str, ours: float, *, bar: float, unit: str, bound: Literal["at most", "at least"]) -> Row:
    """A row against an absolute figure, whose ratio is ours over the bar."""
    return Row(what, ours, bar, "the bar itself", unit, ours / bar, 1.0, bound)


def in_turns(ours: Callable[[], object], peer: Callable[[], object], *, turns: int = 7, calls: int = 1) -> Times:
    """Least CPU seconds of one call of each, over `turns` alternating turns of `calls` calls, after one turn to warm up."""

    def turn(function: Callable[[], object]) -> float:
        began = time.process_time()
        for _ in range(calls):
            function()
        return (time.process_time() - began) / calls

    turn(ours)
    turn(peer)
    pairs = [(turn(ours), turn(peer)) for _ in range(turns)]
    return Times(min(pair[0] for pair in pairs), min(pair[1] for pair in pairs))


def import_seconds(module: str, *, over: str = "torch", turns: int = 3) -> float:
    """CPU seconds that `import module` adds to `import over`, in fresh processes, least of several turns."""
    code = f"import time, {over}\nbegan = time.process_time()\nimport {module}\nprint(time.process_time() - began)\n"
    runs = (
        subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
        for _ in range(turns)
    )
    return min(float(run.stdout) for run in runs)


def import_row(module: str) -> Row:
    """The bar that all packages share: under 0.3 CPU seconds over `import torch`."""
    seconds = import_seconds(module)
    return Row(f"import {module} over import torch", seconds, 0.3, "the bar itself", "CPU s", seconds / 0.3, 1.0)
