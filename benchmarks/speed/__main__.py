"""`python -m speed [--package NAME] [--json FILE]`: measure and print every row of the bench."""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import torch

from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.figures import table
from speed.rows import Row

PACKAGES = ("layermatch", "imwa", "randommask")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Options of the bench."""

    package: Annotated[Literal["layermatch", "imwa", "randommask"] | None, Option("Rows of one package alone")] = None
    json: Annotated[Path | None, Option("File to write the same rows to")] = None
    given: frozenset[str] = frozenset()


def bench(config: BenchConfig) -> None:
    """Measure and print every row."""
    torch.set_num_threads(1)
    found: list[tuple[str, Row]] = []
    for package in PACKAGES if config.package is None else (config.package,):
        functions: tuple[Callable[[], Row], ...] = importlib.import_module(f"speed.{package}").ROWS
        for function in functions:
            found.append((package, function()))
            print(f"{package}: {found[-1][1].what}: {found[-1][1].ratio:.3g}", file=sys.stderr, flush=True)
    lines = [
        [
            row.what,
            f"{row.ours:.4g} {row.unit}",
            f"{row.peer:.4g} {row.unit} ({row.peer_name})",
            f"{row.ratio:.3g}",
            f"{row.bound} {row.bar:g}",
            "yes" if row.holds else "NO",
        ]
        for _, row in found
    ]
    print(table(["what", "ours", "peer", "ratio", "bar", "holds"], lines))
    if config.json is not None:
        rows = [{"package": package, **row._asdict(), "holds": row.holds} for package, row in found]
        content = {
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": torch.__version__,
            "rows": rows,
        }
        config.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.json, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    raise SystemExit(
        run_commands("speed", "0.1.0", {"rows": Command(bench, BenchConfig, mannered=False)}, ["rows", *sys.argv[1:]])
    )
