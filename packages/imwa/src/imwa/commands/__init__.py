"""The command line: `imwa train DATA ...`."""

import sys
from collections.abc import Sequence

from imwa import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (None: the process's own words) and return the exit code.

    0 is success, 2 a person's mistake, told in one line on standard error.
    """
    from imwa.commands.train import HINTS, TrainConfig, train
    from scarce_common_utils.command_line import Command, run_commands

    return run_commands("imwa", __version__, {"train": Command(train, TrainConfig, HINTS)}, argv)


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
