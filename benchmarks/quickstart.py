"""The three main jobs on built-in real data, one seed each, and one table of what was measured."""

import sys
import time
from pathlib import Path

from reproduce.runner import Reproduction, columns, rows
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table

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
    print(f"\nQuickstart: what was measured here, in {time.monotonic() - began:.0f} s")
    for reproduction, records in found:
        print(f"\n{reproduction.package}: {reproduction.scale.note}")
        print(table(columns(reproduction), rows(reproduction, records)))
    print(
        "\nEach row is one seed: it shows that the method runs on real data, and claims nothing about which arm is better."
    )
    print(
        "cost: gradient evaluations in units of the first arm's. s: seconds of this run. Seeds and intervals: benchmarks/README.md."
    )
    print("\nFigures:")
    for reproduction, _ in found:
        for path in reproduction.figures():
            print(f"  {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
