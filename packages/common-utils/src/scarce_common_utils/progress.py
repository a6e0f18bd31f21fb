"""Progress of long work: a bar on a terminal, one plain line now and then elsewhere, with rate and time left."""

import sys
import time
from types import TracebackType
from typing import Self

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Context manager over `total` units of work, written to standard error.

    Args:
        total: how many units in all.
        unit: their name in the plural, such as `steps`.
        label: what is going on, such as `layermatch`.
        start: how many are done already, as after a resume; the rate counts from there.

    Example:
        with Progress(1000, "steps", label="layermatch") as bar:
            bar.advance(1, loss=0.31)
    """

    def __init__(self, total: int, unit: str, *, label: str, start: int = 0):
        self._total, self._unit, self._label = total, unit, label
        self._start = self._done = start
        self._terminal = sys.stderr.isatty()
        self._shown = ""
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        self._began = self._spoke = time.monotonic()
        if self._terminal:
            # rich comes with the command-line library; only a terminal needs it.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[shown]}"),
            )  # fmt: skip
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._start, rate="", shown="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            self._bar.stop()
        elif kind is None:
            self._line({}, final=True)

    def advance(self, count: int = 1, **shown: float) -> None:
        """Count `count` more units as done; `shown` are numbers to print beside them, host numbers, not tensors."""
        self._done += count
        if self._terminal:
            if shown:
                self._shown = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            rate = f"{self._rate():.3g} {self._unit}/s"
            self._bar.update(self._task, completed=self._done, rate=rate, shown=self._shown)
        elif time.monotonic() - self._spoke >= SECONDS_BETWEEN_LINES:
            self._line(shown, final=False)

    def _rate(self) -> float:
        return (self._done - self._start) / max(time.monotonic() - self._began, 1e-9)

    def _line(self, shown: dict[str, float], *, final: bool) -> None:
        self._spoke = time.monotonic()
        parts = [f"{self._label}: {self._done}/{self._total} {self._unit}", f"{self._rate():.3g} {self._unit}/s"]
        if final:
            parts.append(f"{self._spoke - self._began:.0f} s")
        elif self._rate() > 0:
            parts.append(f"{(self._total - self._done) / self._rate():.0f} s left")
        parts += [f"{name} {value:.4g}" for name, value in shown.items()]
        print(", ".join(parts), file=sys.stderr, flush=True)
