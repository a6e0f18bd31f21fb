"""The command line in a process that kills itself at a given moment; in a module of its own, so that another process can import it."""

import itertools
import os
import signal
import sys
from pathlib import Path

import torch


def command(words, folder, kill_at):
    """`layermatch WORDS` in the folder; SIGKILL at the call number `kill_at` of any function, of Python's or of C's.

    Calls are counted from before the run folder is made; where the run comes to its end their number is written into
    `calls.txt`. Figures, which are drawn from what is written by then, are left out.
    """
    from layermatch.commands import main, outcome, train

    os.chdir(folder)
    torch.set_num_threads(1)
    outcome.draw_figures, outcome.draw_views = lambda folder, lines, **_: [], lambda path, rows, **_: path
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the rest of the process)
    calls = itertools.count()

    def count(frame, event, argument):
        if event in ("call", "c_call") and next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def open_run(*arguments, whole=train.open_run):
        sys.setprofile(count)
        return whole(*arguments)

    train.open_run = open_run
    code = main(words)
    sys.setprofile(None)
    Path("calls.txt").write_text(str(next(calls)))
    sys.exit(code)
