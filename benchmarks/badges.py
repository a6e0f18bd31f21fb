"""Draw the badges: one a package for speed, one for its reproduction, grey where the measurement is older than 30 days.

`--rows` is the JSON of `nox -s bench -- --json`, `--summaries` the summary.json of a reproduction (once for each). What is
given is kept in `badges/measured.json`; what is not given is drawn again from there, so that a scheduled run without
anything turns old badges grey.
"""

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from scarce_common_utils.badges import Colour, badge_colour, write_badge
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.errors import UserError

PACKAGES = ("layermatch", "imwa", "randommask")
FOLDER = Path(__file__).parent / "badges"
Measured = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class BadgesConfig:
    """Options of the badges."""

    rows: Annotated[Path | None, Option("JSON file of the bench")] = None
    summaries: Annotated[tuple[Path, ...], Option("summary.json of a reproduction; give it once for each")] = ()
    out: Annotated[Path, Option("Folder to draw into")] = FOLDER
    given: frozenset[str] = frozenset()


def draw(config: BadgesConfig) -> None:
    """Draw every badge of every package into the folder."""
    kept = config.out / "measured.json"
    measured: Measured = read_json(kept) if kept.is_file() else {}
    if config.rows is not None:
        measured |= speed(read_json(config.rows))
    for path in config.summaries:
        measured |= reproduction(read_json(path))
    for package in PACKAGES:
        for kind in ("speed", "reproduction"):
            name = f"{package}-{kind}"
            entry = measured.get(name)
            label = f"{package} {kind}"
            if entry is None:
                write_badge(config.out, name, label=label, message="not measured", colour="lightgrey")
                continue
            colour = badge_colour(entry["colour"], datetime.fromisoformat(entry["measured"]))
            write_badge(config.out, name, label=label, message=entry["message"], colour=colour)
    write_atomically(kept, (json.dumps(measured, indent=1, sort_keys=True) + "\n").encode())


def speed(content: dict[str, Any]) -> Measured:
    """How many bars of each package hold."""
    found: Measured = {}
    for package in PACKAGES:
        rows = [row for row in content["rows"] if row["package"] == package]
        if rows:
            holding = sum(row["holds"] for row in rows)
            colour: Colour = "brightgreen" if holding == len(rows) else "yellow" if 2 * holding >= len(rows) else "red"
            message = f"{holding} of {len(rows)} bars hold"
            found[f"{package}-speed"] = {"message": message, "colour": colour, "measured": content["measured"]}
    return found


def reproduction(content: dict[str, Any]) -> Measured:
    """Arms and seeds of a reproduction; a smoke run is yellow, for it says only that the code runs."""
    colour: Colour = "yellow" if content["scale"] == "smoke" else "brightgreen"
    if content["missing"]:
        colour = "red"
    message = (
        f"{content['scale']}, {content['arms']} arms, {content['seeds']} seed{'s' if content['seeds'] > 1 else ''}"
    )
    entry = {"message": message, "colour": colour, "measured": content["measured"]}
    return {f"{content['package']}-reproduction": entry}


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: it is missing or no JSON; it is named.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from error


if __name__ == "__main__":
    raise SystemExit(run_commands("badges", "0.1.0", {"draw": Command(draw, BadgesConfig)}, ["draw", *sys.argv[1:]]))
