"""`python -m reproduce PACKAGE --scale smoke|cpu|paper`: run a reproduction and print its table."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from reproduce.runner import Reproduction, report
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Command, Operands, Option, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import missing_records


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Options of a reproduction."""

    scale: Annotated[
        Literal["smoke", "quickstart", "cpu", "paper"],
        Option("smoke: does it run; cpu: seeds on two cores; paper: the shared protocol of the field, for GPUs"),
    ] = "smoke"
    data: Annotated[Path | None, Option("Folder with the data that the scale names")] = None
    out: Annotated[Path | None, Option("Folder for runs and records; by default under runs/reproduce/")] = None
    steps: Annotated[int | None, Option("Replaces the steps of every command", at_least=1, unit="steps")] = None
    seeds: Annotated[tuple[int, ...], Option("Replaces the seeds; give it once for each")] = ()
    extra: Annotated[str | None, Operands("WORDS", "None are taken")] = None
    given: frozenset[str] = frozenset()


def reproduce(package: str, config: ReproduceConfig) -> None:
    """Run the arms, print the table and the paths of the figures.

    Raises:
        UserError: as Reproduction, or a run ended without one of its numbers.
    """
    if config.extra is not None:
        raise UserError(f"{config.extra!r} was not expected here.")
    out = config.out or Path("runs") / "reproduce" / f"{package}-{config.scale}"
    chosen = Reproduction(
        package, scale=config.scale, out=out, data=config.data, steps=config.steps, seeds=config.seeds or None
    )
    records = chosen.run()
    print("\n" + report(chosen, records))
    content = {
        "package": package,
        "scale": config.scale,
        "experiment": chosen.scale.experiment,
        "arms": len(chosen.arms),
        "seeds": len(chosen.seeds),
        "missing": len(missing_records(records, arms=list(chosen.arms), seeds=chosen.seeds)),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(out / "summary.json", (json.dumps(content, indent=1) + "\n").encode())
    print(f"Records and runs: {out}")


def main() -> int:
    """Exit code of the command line."""

    def command(package: str) -> Command:
        def run(config: ReproduceConfig) -> None:
            reproduce(package, config)

        run.__doc__ = f"Run the {package} reproduction."
        return Command(run, ReproduceConfig)

    return run_commands("reproduce", "0.1.0", {name: command(name) for name in ("layermatch", "imwa", "randommask")})


if __name__ == "__main__":
    raise SystemExit(main())
