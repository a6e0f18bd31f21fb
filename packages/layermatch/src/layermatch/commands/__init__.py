"""The command line: `layermatch train DATA ...`, `layermatch predict RUN IMAGES...`, `layermatch evaluate RUN DATA`."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout

from layermatch import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (None: the process's own words) and return the exit code.

    0 is success, 2 a person's mistake, told in one line on standard error.
    """
    from layermatch.commands.evaluate import EvaluateConfig, evaluate
    from layermatch.commands.launch import is_main_process
    from layermatch.commands.predict import PredictConfig, predict
    from layermatch.commands.train import HINTS, TrainConfig, train
    from scarce_common_utils.command_line import Command, run_commands

    commands = {
        "train": Command(train, TrainConfig, HINTS),
        "predict": Command(predict, PredictConfig),
        "evaluate": Command(evaluate, EvaluateConfig),
    }
    with nullcontext() if is_main_process() else silence():
        return run_commands("layermatch", __version__, commands, argv)


@contextmanager
def silence() -> Iterator[None]:
    """Of several processes one speaks; what the others would say it says too, and a real failure still ends in a traceback."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
