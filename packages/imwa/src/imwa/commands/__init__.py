"""The command line: `imwa train DATA ...`, `average A B -o C`, `check`, `doctor`, `show`."""

import sys
from collections.abc import Sequence

from imwa import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (None: the process's own words) and return the exit code.

    0 is success, 2 a person's mistake, told in one line on standard error.
    """
    from imwa.commands.average import AverageConfig, average
    from imwa.commands.check import CheckConfig, check
    from imwa.commands.doctor import doctor
    from imwa.commands.show import show
    from imwa.commands.train import HINTS, TrainConfig, train
    from scarce_common_utils.command_line import Command, run_commands
    from scarce_common_utils.doctor import DoctorConfig
    from scarce_common_utils.run_table import ShowConfig

    commands = {
        "train": Command(train, TrainConfig, HINTS),
        "average": Command(average, AverageConfig),
        "check": Command(check, CheckConfig, HINTS),
        "doctor": Command(doctor, DoctorConfig),
        "show": Command(show, ShowConfig),
    }
    return run_commands("imwa", __version__, commands, argv)


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
