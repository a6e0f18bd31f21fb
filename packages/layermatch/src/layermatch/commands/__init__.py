"""The command line: `layermatch train DATA ...`, `predict RUN IMAGES...`, `evaluate RUN DATA`, `check`, `doctor`, `show`."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any

from layermatch import __version__

TRAIN = "Train an image classifier from few labels and many unlabelled images, and evaluate it."
PREDICT = "Say which class each image belongs to, and with which confidence, by a trained run."
EVALUATE = "Test a trained run on labelled images: accuracy, a table of the classes, a confusion matrix."
CHECK = (
    "Look at images before a run: counts, classes, sizes, unreadable files, repeats, and what the run will cost here."
)
DOCTOR = "Say what is wrong with a run in words: what was seen, the likely cause, what to try."
SHOW = "Compare runs in a table: state, the options that differ, the numbers of their results."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (None: the process's own words) and return the exit code.

    0 is success, 2 a person's mistake, told in one line on standard error.
    """
    from layermatch.commands.options import HINTS, CheckConfig, EvaluateConfig, PredictConfig, TrainConfig
    from scarce_common_utils.command_line import Command, run_commands
    from scarce_common_utils.doctor import DoctorConfig
    from scarce_common_utils.run_table import ShowConfig

    commands = {
        "train": Command(later("train", TRAIN), TrainConfig, HINTS),
        "predict": Command(later("predict", PREDICT), PredictConfig),
        "evaluate": Command(later("evaluate", EVALUATE), EvaluateConfig),
        "check": Command(later("check", CHECK), CheckConfig, HINTS),
        "doctor": Command(later("doctor", DOCTOR), DoctorConfig),
        "show": Command(later("show", SHOW), ShowConfig),
    }
    with nullcontext() if is_main_process() else silence():
        return run_commands("layermatch", __version__, commands, argv)


def later(command: str, text: str) -> Callable[[Any], Any]:
    """The function of that name in the module of that name, imported with all that it needs when it is called.

    Args:
        command: such as `train`.
        text: what the help says of it.
    """

    def function(config: Any) -> Any:
        return getattr(import_module(f"layermatch.commands.{command}"), command)(config)

    function.__doc__ = text
    return function


def is_main_process() -> bool:
    """Whether this process is the one that speaks, as far as the launcher's environment says."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def silence() -> Iterator[None]:
    """Of several processes one speaks; what the others would say it says too, and a real failure still ends in a traceback."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
