"""`python -m faults --size small|large`: run the fault suite over the installed packages, and print cases, faults and seconds.

A large size is run in parts, whose records are added up afterwards:

    python -m faults --size large --rows 1 --from 0 --cases 100 --json one.json
    python -m faults --size large --rows 1 --from 100 --cases 100 --json two.json
    python -m faults --add one.json two.json --json benchmarks/records/faults/large.json
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from faults.bench import Bench, Row
from faults.children import cpu_seconds, prepare
from faults.jobs import JOBS, SHARED
from faults.parts import add_up, closing_table
from faults.rows import (
    data_order,
    death,
    failing_files,
    fuzzed,
    golden,
    kill,
    mismatch,
    non_finite,
    one_writer,
    poisoned,
    signals,
    torn,
)
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError
from scarce_common_utils.run_folder import to_stderr

ROWS: dict[int, Row] = {
    row.number: row
    for row in (
        *(kill.ROW, failing_files.ROW, torn.ROW, poisoned.ROW, fuzzed.ROW, data_order.ROW),
        *(signals.ROW, non_finite.ROW, death.ROW, one_writer.ROW, mismatch.ROW, golden.ROW),
    )
}
FAULT_FOUND = 2


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Options of the suite, as `parser` explains them."""

    size: str = "small"
    packages: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    begin: int = 0
    cases: int | None = None
    json: Path | None = None
    add: tuple[Path, ...] = ()
    scratch: Path | None = None
    keep_golden: bool = False


def parser() -> argparse.ArgumentParser:
    """The suite's words: its own, so that nothing under test reads them."""
    words = argparse.ArgumentParser(prog="faults", description="Run the fault suite over the installed packages.")
    words.add_argument(
        "--size", choices=("small", "large"), default="small", help="how many cases; large is for the night"
    )
    words.add_argument("--packages", action="extend", nargs="+", default=[], help="these packages alone")
    words.add_argument("--rows", action="extend", nargs="+", type=int, default=[], help="these rows alone")
    words.add_argument("--from", dest="begin", type=int, default=0, metavar="CASE", help="first case of each row")
    words.add_argument("--cases", type=int, help="cases of each row from there on; by default all")
    words.add_argument("--json", type=Path, help="file to write the counts to; those of parts add up")
    words.add_argument(
        "--add", action="extend", nargs="+", type=Path, default=[], help="run nothing; add up the counts of parts"
    )
    words.add_argument("--scratch", type=Path, help="folder to work in, kept; by default one that is removed")
    words.add_argument(
        "--keep-golden", action="store_true", help="keep this machine's digests of row 12 in faults/golden.json"
    )
    return words


def run_suite(config: FaultsConfig) -> None:
    """Kill, cut, flip and signal what the packages do, and count what they got wrong; or add up what parts of it counted.

    Raises:
        UserError: a fault was found, the first is told; or a package, row or file is not there.
    """
    packages = config.packages or tuple(JOBS)
    for name, known, chosen in (("--packages", JOBS, packages), ("--rows", ROWS, config.rows)):
        unknown = [str(value) for value in chosen if value not in known]
        if unknown:
            raise UserError(f"{name} is {unknown[0]}; there are {', '.join(map(str, known))}.")
    counts = add_up(config.add) if config.add else counted(config, packages)
    if config.json is not None:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.json, (json.dumps(counts, indent=1) + "\n").encode())
    if len(packages) > 1 or config.json is None:
        print(closing_table(counts))
    found = [sentence for count in counts for sentence in count["found"]]
    if found:
        raise UserError(f"{len(found)} faults; the first: {found[0]}")


def counted(config: FaultsConfig, packages: tuple[str, ...]) -> list[dict[str, Any]]:
    """Run the rows and return what they counted, one entry a row and package."""
    scratch = (config.scratch or Path(tempfile.mkdtemp(prefix="faults-"))).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        if len(packages) == 1:
            counts = one_package(config, packages[0], scratch=scratch)
        else:
            counts = each_in_a_process(config, packages, scratch=scratch)
        if config.keep_golden:
            golden.keep(scratch)
    finally:
        if config.scratch is None:
            shutil.rmtree(scratch, ignore_errors=True)
    return counts


def one_package(config: FaultsConfig, package: str, *, scratch: Path) -> list[dict[str, Any]]:
    """Counts of each row over one package."""
    job = JOBS[package]
    prepare((*SHARED, *job.loads, "faults.__main__"))  # which multiprocessing runs in each child, under another name
    bench = Bench(job, scratch / package, every_shell=config.size == "large" or bool(config.rows))
    return [row_over(bench, ROWS[number], config) for number in config.rows or ROWS]


def row_over(bench: Bench, row: Row, config: FaultsConfig) -> dict[str, Any]:
    """Run the cases of a row; folders of those without a fault are removed."""
    began, used, found = time.monotonic(), cpu_seconds(), []
    end = row.count(bench, config.size)
    last = end if config.cases is None else min(end, config.begin + config.cases)
    for number in range(config.begin, last):
        sentences = [sentence.replace(str(bench.scratch), "...") for sentence in row.case(bench, number)]
        for sentence in (told := [f"row {row.number}, {bench.job.package}, case {number}: {one}" for one in sentences]):
            to_stderr(sentence)
        found += told
        if not sentences:
            for path in bench.scratch.glob(f"*-{number}"):
                if not path.name.startswith(("whole-", "images")):
                    shutil.rmtree(path, ignore_errors=True)
    seconds, cpu = round(time.monotonic() - began, 1), round(cpu_seconds() - used, 1)
    cases = max(0, last - config.begin)
    to_stderr(f"{bench.job.package}, row {row.number}: {cases} cases, {len(found)} faults, {seconds} s, {cpu} CPU s")
    what = {"row": row.number, "title": row.title, "package": bench.job.package, "size": config.size}
    ran = {"parts": [[config.begin, last]] if cases else [], "cases": cases, "of": end}
    return what | ran | {"faults": len(found), "seconds": seconds, "cpu_seconds": cpu, "found": found}


def each_in_a_process(config: FaultsConfig, packages: tuple[str, ...], *, scratch: Path) -> list[dict[str, Any]]:
    """Each package's rows in a process of their own, all at once, so that its children are forked from a parent that knows it alone."""

    def go(package: str) -> list[dict[str, Any]]:
        file = scratch / f"{package}.json"
        words = ["--size", config.size, "--packages", package, "--from", str(config.begin), "--scratch", str(scratch)]
        words += ["--json", str(file)] + ([] if config.cases is None else ["--cases", str(config.cases)])
        words += [word for number in config.rows for word in ("--rows", str(number))]
        subprocess.run([sys.executable, "-m", "faults", *words], check=False)
        if not file.is_file():
            raise UserError(f"The suite over {package} ended without its counts; what it said is above.")
        return json.loads(file.read_text())

    with ThreadPoolExecutor(len(packages)) as pool:
        return [count for counts in pool.map(go, packages) for count in counts]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite by words, the process's own by default; 2 where a fault was found."""
    words = vars(parser().parse_args(argv))
    values = {field.name: words[field.name] for field in fields(FaultsConfig)}
    values |= {name: tuple(values[name]) for name in ("packages", "rows", "add")}
    try:
        run_suite(FaultsConfig(**values))
    except UserError as error:
        to_stderr(f"faults: {error}")
        return FAULT_FOUND
    return 0


if __name__ == "__main__":
    sys.exit(main())
