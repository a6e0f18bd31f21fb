"""`python -m faults --size small|large`: run the fault suite over the installed packages, and print cases, faults and seconds."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from faults.bench import Bench, Row
from faults.children import prepare
from faults.jobs import JOBS, SHARED
from faults.rows import failing_files, golden, kill, mismatch, one_writer, signals, torn
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import Command, Operands, Option, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.run_folder import to_stderr

ROWS: dict[int, Row] = {
    row.number: row
    for row in (kill.ROW, failing_files.ROW, torn.ROW, signals.ROW, one_writer.ROW, mismatch.ROW, golden.ROW)
}


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Options of the suite."""

    size: Annotated[Literal["small", "large"], Option("How many cases; large is for the night")] = "small"
    packages: Annotated[tuple[str, ...], Option("This package alone; give it once for each")] = ()
    rows: Annotated[tuple[int, ...], Option("This row alone; give it once for each")] = ()
    begin: Annotated[int, Option("First case of each row", at_least=0)] = 0
    cases: Annotated[int | None, Option("Cases of each row from there on; by default all", at_least=1)] = None
    json: Annotated[Path | None, Option("File to write the counts to; those of parts add up")] = None
    scratch: Annotated[Path | None, Option("Folder to work in, kept; by default one that is removed")] = None
    keep_golden: Annotated[bool, Option("Keep this machine's digests of row 12 in faults/golden.json")] = False
    extra: Annotated[str | None, Operands("WORDS", "None are taken")] = None
    given: frozenset[str] = frozenset()


def run_suite(config: FaultsConfig) -> None:
    """Kill, cut, flip and signal what the packages do, and count what they got wrong."""
    packages = config.packages or tuple(JOBS)
    for name, known, chosen in (("--packages", JOBS, packages), ("--rows", ROWS, config.rows)):
        unknown = [str(value) for value in chosen if value not in known]
        if unknown:
            raise UserError(f"{name} is {unknown[0]}; there are {', '.join(map(str, known))}.")
    scratch = config.scratch or Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        if len(packages) == 1:
            counts = one_package(config, packages[0], scratch=scratch.resolve())
        else:
            counts = each_in_a_process(config, packages, scratch=scratch.resolve())
        if config.keep_golden:
            golden.keep(scratch)
    finally:
        if config.scratch is None:
            shutil.rmtree(scratch, ignore_errors=True)
    if config.json is not None:
        write_atomically(config.json, (json.dumps(counts, indent=1) + "\n").encode())
    if len(packages) > 1 or config.json is None:
        print(closing_table(counts))
    found = [sentence for count in counts for sentence in count["found"]]
    if found:
        raise UserError(f"{len(found)} faults; the first: {found[0]}")


def one_package(config: FaultsConfig, package: str, *, scratch: Path) -> list[dict[str, Any]]:
    """Counts of each row over one package."""
    job = JOBS[package]
    prepare((*SHARED, *job.loads))
    bench = Bench(job, scratch / package)
    return [row_over(bench, ROWS[number], config) for number in config.rows or ROWS]


def row_over(bench: Bench, row: Row, config: FaultsConfig) -> dict[str, Any]:
    """Run the cases of a row; folders of those without a fault are removed."""
    began, found = time.monotonic(), []
    end = row.count(bench, config.size)
    last = end if config.cases is None else min(end, config.begin + config.cases)
    for number in range(config.begin, last):
        sentences = row.case(bench, number)
        found += [f"row {row.number}, {bench.job.package}, case {number}: {sentence}" for sentence in sentences]
        for sentence in sentences:
            to_stderr(f"row {row.number}, {bench.job.package}, case {number}: {sentence}")
        if not sentences:
            for path in bench.scratch.glob(f"*-{number}"):
                if not path.name.startswith(("whole-", "images")):
                    shutil.rmtree(path, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    cases = max(0, last - config.begin)
    to_stderr(f"{bench.job.package}, row {row.number}: {cases} cases, {len(found)} faults, {seconds} s")
    counts = {"row": row.number, "title": row.title, "package": bench.job.package, "size": config.size}
    return counts | {"begin": config.begin, "cases": cases, "faults": len(found), "seconds": seconds, "found": found}


def each_in_a_process(config: FaultsConfig, packages: tuple[str, ...], *, scratch: Path) -> list[dict[str, Any]]:
    """Each package's rows in a process of their own, so that its children are forked from a parent that knows it alone; two at a time."""

    def go(package: str) -> list[dict[str, Any]]:
        file = scratch / f"{package}.json"
        words = ["--size", config.size, "--packages", package, "--begin", str(config.begin), "--scratch", str(scratch)]
        words += ["--json", str(file)] + ([] if config.cases is None else ["--cases", str(config.cases)])
        words += [word for number in config.rows for word in ("--rows", str(number))]
        subprocess.run([sys.executable, "-m", "faults", *words], check=False)
        if not file.is_file():
            raise UserError(f"The suite over {package} ended without its counts; what it said is above.")
        return json.loads(file.read_text())

    scratch.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        return [count for counts in pool.map(go, packages) for count in counts]


def closing_table(counts: list[dict[str, Any]]) -> str:
    """Cases, faults and seconds by row, over the packages."""
    rows = []
    for number in dict.fromkeys(count["row"] for count in counts):
        mine = [count for count in counts if count["row"] == number]
        total = {name: sum(count[name] for count in mine) for name in ("cases", "faults", "seconds")}
        rows.append([number, mine[0]["title"], total["cases"], total["faults"], total["seconds"]])
    return table(["row", "what", "cases", "faults", "seconds"], rows)


def main() -> int:
    """Run the suite by the process's own words; 2 where a fault was found."""
    return run_commands("faults", "0", {"run": Command(run_suite, FaultsConfig)}, ["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
