"""The three main jobs on built-in real data, one seed each, and one table of what was measured."""

import sys
import time
from pathlib import Path

from reproduce.runner import Reproduction
from reproduce.tables import columns, rows
from scarce_common_utils.errors import UserError

PACKAGES = ("layermatch", "imwa", "randommask")


def main(out: Path = Path("runs/quickstart")) -> int:
    """Run all arms of the three packages at the scale `quickstart`; return the exit code."""
    began = time.monotonic()
    chosen = [Reproduction(package, scale="quickstart", out=out / package) for package in PACKAGES]
    try:
        found = [(reproduction, reproduction.run()) for reproduction in chosen]
    except UserError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    print(f"\nMeasured here in {time.monotonic() - began:.0f} s, one seed a row\n")
    parts = [
        (reproduction, experiment, records)
        for reproduction, records in found
        for experiment in reproduction.experiments
    ]
    print(one_table([(columns(*part), rows(*part)) for part in parts]))
    print()
    for reproduction, experiment, _ in parts:
        print(f"{reproduction.package}: {experiment.note}")
    print("A row of one seed shows that the method runs on real data, and claims nothing about which arm is better.")
    print(
        "cost: optimizer steps in units of the first arm's (randommask: of pretraining). s: seconds of the processor."
    )
    print("Several seeds: benchmarks/README.md.\n")
    for folder in sorted({path.parent for reproduction, _ in found for path in reproduction.figures()}):
        print(f"Figures in {folder}: {', '.join(sorted(path.name for path in folder.glob('*.png')))}")
    return 0


def one_table(blocks: list[tuple[list[str], list[list[str]]]]) -> str:
    """The blocks as one table: each with its own headings, all in the same columns, an empty line between them."""
    count = max(len(headings) for headings, _ in blocks)
    lines: list[list[str] | None] = []
    for package, (headings, found) in zip(PACKAGES, blocks, strict=True):
        # cost and seconds stay the last two columns of every block
        spread = [[*line[:-2], *[""] * (count - len(line)), *line[-2:]] for line in [[package, *headings[1:]], *found]]
        lines += [spread[0], None, *spread[1:], [""] * count]
    widths = [max(len(line[index]) for line in lines if line is not None) for index in range(count)]

    def text(line: list[str] | None) -> str:
        if line is None:
            return "  ".join("-" * width for width in widths)
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(text(line) for line in lines[:-1])


if __name__ == "__main__":
    raise SystemExit(main())
