"""Counts of the suite: parts of a large size added up into one record, and the closing table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table

_SUMMED = ("cases", "faults", "seconds", "cpu_seconds", "found")


def add_up(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Counts of several files as one: of a row, package and size one entry, its parts `[first, behind the last]` side by side.

    Raises:
        UserError: a file is not the suite's, or two parts hold the same case; they are named.
    """
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for file in files:
        for count in _read(file):
            key = (count["row"], count["package"], count["size"])
            if key not in sums:
                sums[key] = count
                continue
            total = sums[key]
            for name in _SUMMED:
                total[name] = total[name] + count[name] if name == "found" else round(total[name] + count[name], 1)
            total["parts"] = _joined(
                [*total["parts"], *count["parts"]], what=f"{file}: row {key[0]}, {key[1]}, {key[2]}"
            )
    return [sums[key] for key in sorted(sums, key=str)]


def closing_table(counts: Sequence[dict[str, Any]]) -> str:
    """Cases, faults and seconds by row, over the packages."""
    rows = []
    for number in sorted({count["row"] for count in counts}):
        mine = [count for count in counts if count["row"] == number]
        total = [sum(count[name] for count in mine) for name in ("cases", "of", "faults", "seconds", "cpu_seconds")]
        rows.append([number, mine[0]["title"], *total])
    return table(["row", "what", "cases", "of", "faults", "seconds", "CPU seconds"], rows)


def _joined(parts: list[list[int]], *, what: str) -> list[list[int]]:
    """Parts in order, those that touch as one."""
    joined: list[list[int]] = []
    for first, behind in sorted(parts):
        if joined and first < joined[-1][1]:
            raise UserError(f"{what}: case {first} was counted in another part too. Add each part once.")
        if joined and first == joined[-1][1]:
            joined[-1][1] = behind
        else:
            joined.append([first, behind])
    return joined


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        counts = json.loads(file.read_text(encoding="utf-8"))
        return [
            count | {name: count[name] for name in (*_SUMMED, "row", "package", "size", "parts")} for count in counts
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} does not hold counts of the fault suite ({error}).") from error
