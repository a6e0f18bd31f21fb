"""The command line: `randommask pretrain`, `finetune`, `gue`, `embed`, `score`, `observe`, `overlap`, `check`, `doctor`, `show`."""

import sys
from collections.abc import Sequence

from randommask import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (None: the process's own words) and return the exit code.

    0 is success, 2 a person's mistake, told in one line on standard error.
    """
    from randommask.commands.check import CHECK_HINTS, CheckConfig, check
    from randommask.commands.doctor import doctor
    from randommask.commands.embed import EMBED_HINTS, EmbedConfig, embed
    from randommask.commands.finetune import FINETUNE_HINTS, FinetuneConfig, finetune
    from randommask.commands.gue import GUE_HINTS, GueConfig, gue
    from randommask.commands.observe import OBSERVE_HINTS, ObserveConfig, observe
    from randommask.commands.overlap import OverlapConfig, overlap
    from randommask.commands.pretrain import PRETRAIN_HINTS, PretrainConfig, pretrain
    from randommask.commands.score import SCORE_HINTS, ScoreConfig, score
    from randommask.commands.show import show
    from scarce_common_utils.command_line import Command, run_commands
    from scarce_common_utils.doctor import DoctorConfig
    from scarce_common_utils.run_table import ShowConfig

    commands = {
        "pretrain": Command(pretrain, PretrainConfig, PRETRAIN_HINTS),
        "finetune": Command(finetune, FinetuneConfig, FINETUNE_HINTS),
        "gue": Command(gue, GueConfig, GUE_HINTS),
        "embed": Command(embed, EmbedConfig, EMBED_HINTS),
        "score": Command(score, ScoreConfig, SCORE_HINTS),
        "observe": Command(observe, ObserveConfig, OBSERVE_HINTS),
        "overlap": Command(overlap, OverlapConfig, FINETUNE_HINTS),
        "check": Command(check, CheckConfig, CHECK_HINTS),
        "doctor": Command(doctor, DoctorConfig),
        "show": Command(show, ShowConfig),
    }
    return run_commands("randommask", __version__, commands, argv)


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
