"""`python -m reproduce.imwa.recipes NAME`: recipes that have a command of their own, beside the arms of `nox -s reproduce_imwa`."""

from reproduce.imwa.communication.recipe import CommunicationConfig, communication
from reproduce.imwa.detection.recipe import DetectionConfig, detection
from reproduce.imwa.semi_supervised.recipe import SemiSupervisedConfig, semi_supervised
from scarce_common_utils.command_line import Command, run_commands


def main() -> int:
    """Exit code of the command line."""
    recipes = {
        "communication": Command(communication, CommunicationConfig),
        "detection": Command(detection, DetectionConfig),
        "semi-supervised": Command(semi_supervised, SemiSupervisedConfig),
    }
    return run_commands("reproduce", "0.1.0", recipes)


if __name__ == "__main__":
    raise SystemExit(main())
