"""The command line: `imwa train DATA ...` and `imwa average A B -o C`."""

import sys
from collections.abc import Sequence

from imwa import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (None: the process's own words) and return the exit code.

    0 is success, 2 a person's mistake, told in one line on standard error.
    """
    from imwa.commands.average import AverageConfig, average
    from imwa.commands.train import HINTS, TrainConfig, train
    from scarce_common_utils.command_line import Command, run_commands

    commands = {"train": Command(train, TrainConfig, HINTS), "average": Command(average, AverageConfig)}
    return run_commands("imwa", __version__, commands, argv)


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
