"""Signals that ask a run to stop: remembered until its step is done and kept, or raised at once where there is no step to wait for.

with stop_requests() as stop:        SIGINT (Ctrl-C) and SIGTERM (a scheduler, `kill`) only mark `stop` within the block
    ... a step ...
    if stop.asked:
        save()
        raise Stopped(stop.signal)   exit code 130 or 143; `command_line.run_commands` says how to go on

Python runs a handler between two of its own instructions, so the step, or the checkpoint that is being written, is always whole.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AT_ONCE = 3  # the signal from which on nothing is waited for


class Stopped(BaseException):
    """A run that was asked to stop has stopped.

    Not an Exception: nothing that mends errors on the way may take it for one.

    Attributes:
        signal: that asked for it, as `signal.SIGTERM`.
        kept: what was kept and how to go on, a sentence; empty where nothing was.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(number, kept)
        self.signal, self.kept = signal.Signals(number), kept

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.signal


class StopRequest:
    """Whether a signal came; `signal` is its number, None before."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._count = 0

    @property
    def asked(self) -> bool:
        """Whether the run is to stop when its step is done."""
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self.signal = self.signal or number
        if self._count == 1:
            _say("stops when this step is done; a third signal ends it at once\n")
        if self._count >= _AT_ONCE:
            raise Stopped(number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM mark the request that is returned; the third one raises `Stopped` at once.

    A signal that the process was started to ignore (SIGINT, of a job in a shell's background) stays ignored. Outside Python's main
    thread no handler can be set, and the request stays unmarked.
    """
    request = StopRequest()
    with _handlers(request._note):
        yield request


@contextmanager
def raised_on_terminate() -> Iterator[None]:
    """Within the block SIGTERM raises `Stopped`, as SIGINT raises KeyboardInterrupt, so that all that is open gets closed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handlers(stop, signals=(signal.SIGTERM,)):
        yield


@contextmanager
def _handlers(
    handler: Callable[[int, FrameType | None], None], *, signals: tuple[signal.Signals, ...] = SIGNALS
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def _say(text: str) -> None:
    """Write at once, past Python's buffers, which the interrupted code may be in the middle of."""
    os.write(2, f"\n{text}".encode())
