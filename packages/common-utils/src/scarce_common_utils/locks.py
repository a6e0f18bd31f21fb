"""One writer for a run folder: a lock that its process holds for as long as it writes there, and that ends with the process.

The lock is the operating system's own (`flock` on the empty file `.lock`, through the library filelock), so one that a killed
process held is free at once and none has to be removed by hand. `.holder.json` beside it says who holds it, for the sentence
that others get; it decides nothing. Of the processes that torchrun starts for one run, the one with RANK 0 holds the lock for all.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from scarce_common_utils.errors import UserError

LOCK, HOLDER = ".lock", ".holder.json"
# Loading processes share the lock of the run that forked them and outlive its kill by a moment (torch's look every 5 s).
_PATIENCE = 20.0  # seconds


class Hold:
    """The right to write into a folder, from `hold` until `release`."""

    def __init__(self, folder: Path, lock: FileLock | None) -> None:
        self._folder, self._lock = folder, lock

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._lock is not None:
            with suppress(OSError):  # the folder may be gone, or be read-only by now
                (self._folder / HOLDER).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None


def hold(folder: Path) -> Hold:
    """Take the right to write into `folder`, which exists, without waiting.

    Raises:
        UserError: another process has it, which is named as far as it is known; or nothing can be written there.
    """
    if os.environ.get("RANK", "0") != "0":
        return Hold(folder, None)
    for name in (LOCK, HOLDER):
        if (folder / name).is_symlink():  # whose other end would be emptied or written over
            raise UserError(f"{folder / name} is a link, which no run writes. Take it away.")
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0 if _holder_lives(folder) else _PATIENCE)
        content = {"process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (folder / HOLDER).write_text(json.dumps(content) + "\n", encoding="utf-8")
    except Timeout as error:
        raise UserError(
            f"{folder} is in use: {_holder(folder)} writes into it. Wait for its end, or stop it; nothing there is touched."
        ) from error
    except OSError as error:
        lock.release()
        raise UserError(f"{folder} cannot be written into ({error.strerror or error}). Make it writable.") from error
    return Hold(folder, lock)


def _holder_lives(folder: Path) -> bool:
    """Whether the process that last took the lock is there; where nothing is known, it counts as there."""
    try:
        os.kill(int(json.loads((folder / HOLDER).read_text(encoding="utf-8"))["process"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return True
    return True


def _holder(folder: Path) -> str:
    """Who holds a folder, in words."""
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(found['process'])}, since {str(found['since'])[:19]},"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "another process"
