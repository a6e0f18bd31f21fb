"""A part of a run that no longer answers is named, and the run ends, instead of waiting for it without end.

Processes    of a distributed run each count up a number of their own in the launcher's store once a second. One whose number stands
             still for `SILENCE` seconds was killed or stopped, or its machine hangs: the others say which and exit with 2. A slow step,
             an evaluation of hours or a debugger's prompt stand nobody's number still, as a timeout of collective calls would have it.
Workers      a loading process that was stopped (SIGSTOP) for `STOPPED` seconds is killed, which its loader sees as it sees any death.
             Linux alone tells that a process is stopped.

Seconds in which this process was itself stopped, or its machine asleep, do not count.
"""

import os
import re
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SILENCE = 20.0  # seconds
STOPPED = 10.0
_BEAT = 1.0
_HANDED_OVER = os.path.join("torch", "multiprocessing", "reductions")  # where a worker's memory is asked for
_ANSWER = 10.0  # seconds that the store is waited for
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal|exited unexpectedly)")


@contextmanager
def watched(name: str) -> Iterator[None]:
    """Within the block look at the other processes of the launcher, if it began several; the command `name` speaks.

    A RuntimeError, as collective calls give it when another process is gone, waits for the verdict, and is raised where there is none.
    """
    global _watch
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _watch = _Others(name)
    try:
        yield
    except RuntimeError:
        wait_for_verdict()
        raise
    finally:
        end_watch()


def wait_for_verdict() -> None:
    """Return once all other processes are known to be there; where one is lost, this process ends before."""
    if _watch is not None:
        _watch.look_again()


def end_watch() -> None:
    """Look at nobody any more: all have come to the end, and leave one after the other."""
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None


class _Others:
    """The thread that counts for this process and looks at the others."""

    def __init__(self, name: str) -> None:
        self._name, self._over = name, threading.Event()
        self._rank, self._count = int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])
        self._heard: dict[int, int] = {}
        self._silent: dict[int, float] = {}
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def look_again(self) -> None:
        """Wait for every other process to be heard of once more."""
        end = time.monotonic() + SILENCE + 10
        while self._heard and self._thread.is_alive() and time.monotonic() < end:
            before = dict(self._heard)
            self._over.wait(3 * _BEAT)
            if all(self._heard[rank] != number for rank, number in before.items()):
                return

    def _look(self) -> None:
        store = self._joined()
        if store is None:
            return
        last = time.monotonic()
        while not self._over.wait(_BEAT):
            most = 2 * _BEAT
            try:
                numbers = self._exchange(store)
                lost = [rank for rank, number in numbers.items() if number == self._heard.get(rank, 0)]
                self._heard = {rank: number for rank, number in numbers.items() if number}
            except Exception:  # of torch, without a class of its own: the store is gone, and with it who holds it
                lost, most = [0] if self._rank else [], _ANSWER + _BEAT
            now = time.monotonic()
            passed, last = min(now - last, most), now
            self._silent = {rank: self._silent.get(rank, 0.0) + passed for rank in lost if rank in self._heard}
            gone = [rank for rank, seconds in self._silent.items() if seconds >= SILENCE]
            if gone:
                self._end(gone)

    def _joined(self) -> Any:
        """The launcher's store, once there is a group; None where it has none, or the command ends before."""
        import torch.distributed as dist

        while not (dist.is_available() and dist.is_initialized()):
            if self._over.wait(_BEAT / 2):
                return None
        import datetime

        with suppress(Exception):  # a group that met at a file, by a person's own script, has no store to ask
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            # Refused at once where nobody listens; torch's own client would try again for minutes, and complain.
            socket.create_connection((address, port), timeout=_ANSWER).close()
            limit = datetime.timedelta(seconds=_ANSWER)
            store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]  (documented there)
                address, port, is_master=False, wait_for_workers=False, timeout=limit
            )
            self._exchange(store)
            return store
        return None

    def _exchange(self, store: Any) -> dict[int, int]:
        """Count up, and read what the others count."""
        place = f"scarce-watch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        store.add(f"{place}/{self._rank}", 1)
        return {rank: store.add(f"{place}/{rank}", 0) for rank in range(self._count) if rank != self._rank}

    def _end(self, gone: list[int]) -> None:
        """Say who is lost, in one of those that are left, and leave: the main thread may wait in C++ for ever."""
        if all(rank in gone for rank in range(self._rank)):
            who = " and ".join(f"process {rank}" for rank in gone)
            text = (
                f"\n{self._name}: {who} of {self._count} (numbered from 0) has not been heard of for {SILENCE:.0f} s: it was killed or "
                "stopped, or its machine hangs. All processes end; start them again with --resume and the run folder.\n"
            )
            with suppress(OSError):
                os.write(2, text.encode())
        os._exit(2)


_watch: _Others | None = None


@contextmanager
def stopped_workers_end() -> Iterator[None]:
    """Within the block, children of this process that were made by `multiprocessing` and are stopped too long are killed."""
    over = threading.Event()
    thread = threading.Thread(target=_end_stopped, args=(over,), name="watch of workers", daemon=True)
    if Path("/proc/self/stat").is_file():
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()


def dead_worker(error: BaseException) -> str | None:
    """The sentence on a loading process that died, where torch's error says that one did, or none answers that has a batch ready."""
    found = _WORKER.search(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    unanswered = isinstance(error, OSError | EOFError) and any(_HANDED_OVER in frame.filename for frame in frames)
    if found is None and not unanswered:
        return None
    which = f" ({found[1]})" if found else ""
    return (
        f"A process that loads data{which} was killed or stopped. The machine may be short of memory, or of shared memory "
        "(/dev/shm). Go on with --resume and fewer --workers; 0 loads in the run itself."
    )


def _end_stopped(over: threading.Event) -> None:
    import multiprocessing.process

    stopped: dict[int, float] = {}
    last = time.monotonic()
    while not over.wait(2 * _BEAT):
        now = time.monotonic()
        passed, last = min(now - last, 4 * _BEAT), now
        # The public `active_children` would wait for those that ended, which is for the main thread to do.
        children = list(multiprocessing.process._children)  # type: ignore[attr-defined]  # see above
        pids = [child.pid for child in children if child.pid is not None]
        stopped = {pid: stopped.get(pid, 0.0) + passed for pid in pids if _is_stopped(pid)}
        for pid, seconds in stopped.items():
            if seconds >= STOPPED:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False
