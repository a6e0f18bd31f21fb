"""`python -m reproduce PACKAGE --scale smoke|quickstart|cpu|cpu-full|paper`: run a reproduction and print its tables."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from reproduce.runner import COMMITTED, Reproduction
from reproduce.tables import draw, report
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Command, Operands, Option, run_commands
from scarce_common_utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Options of a reproduction."""

    scale: Annotated[
        Literal["smoke", "quickstart", "cpu", "cpu-full", "paper"],
        Option(
            "smoke: does it run; cpu: a core set in 75 minutes on two cores; cpu-full: the rest; "
            "paper: the shared protocol of the field, for GPUs"
        ),
    ] = "smoke"
    data: Annotated[Path | None, Option("Folder with the data files that benchmarks/README.md lists")] = None
    out: Annotated[Path | None, Option("Folder for runs and records; by default under runs/reproduce/")] = None
    experiment: Annotated[tuple[str, ...], Option("Run this part alone; give it once for each")] = ()
    arms: Annotated[tuple[str, ...], Option("Run this arm alone; give it once for each")] = ()
    steps: Annotated[int | None, Option("Replaces the steps of every command", at_least=1, unit="steps")] = None
    seeds: Annotated[tuple[int, ...], Option("Replaces the seeds; give it once for each")] = ()
    jobs: Annotated[
        int,
        Option("Runs at a time, each in a process with one thread; 1 runs them here, one after the other", at_least=1),
    ] = 1
    generated: Annotated[
        bool | None,
        Option("Made images in place of real ones, and small batches; by default for --scale paper with --steps alone"),
    ] = None
    report: Annotated[bool, Option("Run nothing: print what the committed records say")] = False
    commit: Annotated[bool, Option("Copy the records of the scale to benchmarks/records/ at the end")] = False
    extra: Annotated[str | None, Operands("WORDS", "None are taken")] = None
    given: frozenset[str] = frozenset()

    def on_made_data(self) -> bool:
        """A few steps of the large protocol are a trial, for which nothing need be fetched."""
        if self.generated is None:
            return self.scale == "paper" and self.steps is not None and self.data is None
        return self.generated


def reproduce(package: str, config: ReproduceConfig) -> None:
    """Run the arms, print the tables and the paths of the figures.

    Raises:
        UserError: as Reproduction, or a run ended without one of its numbers.
    """
    if config.extra is not None:
        raise UserError(f"{config.extra!r} was not expected here.")
    made = config.on_made_data()
    if made and config.commit:
        raise UserError("--commit keeps records of real data alone; leave out --generated (or --steps).")
    folder = f"{package}-{config.scale}" + ("-generated" if made else "")
    out = config.out or Path("runs") / "reproduce" / folder
    chosen = Reproduction(
        package,
        scale=config.scale,
        out=out,
        data=config.data,
        steps=config.steps,
        seeds=config.seeds or None,
        experiments=config.experiment,
        arms=config.arms,
        generated=made,
    )
    records = chosen.records(COMMITTED / package) if config.report else chosen.run(jobs=config.jobs)
    print("\n" + report(chosen, records))
    figures = draw(chosen, records, out / "figures")
    arms = {arm for experiment in chosen.experiments for arm in experiment.arms}
    content = {
        "package": package,
        "scale": config.scale,
        "experiments": [experiment.name for experiment in chosen.experiments],
        "arms": len(arms),
        "seeds": min(len(experiment.seeds) for experiment in chosen.experiments),
        "missing": chosen.missing(records),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(out / "summary.json", (json.dumps(content, indent=1) + "\n").encode())
    print()
    if made:
        print("Images were made and batches small: this says that the commands run, nothing else.")
    for path in figures:
        print(f"Figure: {path}")
    if config.commit:
        print(f"Copied {len(chosen.commit())} records to {COMMITTED / package}")
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
