"""Row 12: 100 steps of each method on built-in data have the bits of earlier commits, on the same processor with the same torch.

The digests stand in `golden.json` by processor and torch version. Where this machine's key is known, any other bit is a fault, and the
sentence names the first step that departs; `--keep-golden` keeps what a commit changes on purpose. Where the key is not known
there is nothing to be equal to: the first step that departs from each known machine's run is reported, and nothing fails. (So we
read the issue's "equal where the key is known, else reported and nothing fails".)
"""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from faults.bench import Bench, Row
from faults.comparing import plain
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.run_folder import to_stderr

FILE = Path(__file__).parent.parent / "golden.json"


def count(bench: Bench, size: str) -> int:
    """One run a package; the large size runs it on three Pythons, which have one key."""
    return 1


def case(bench: Bench, number: int) -> list[str]:
    """Run, keep what was seen aside for `keep`, and compare with what is known."""
    run = bench.folder(f"golden-{number}")
    words = [*bench.job.golden, "--out", str(run)]
    ended = bench.shell(words) if bench.by_shell(12, number) else bench.run(words)
    if ended.code != 0:
        return [f"the run itself ended with {ended.code}: {ended.last}"]
    mine, key = digests(run), key_of_machine()
    (bench.scratch / FILE.name).write_text(json.dumps({bench.job.package: {key: mine}}))
    known = json.loads(FILE.read_text()).get(bench.job.package, {}) if FILE.is_file() else {}
    if key in known:
        return [f"{departs(mine, known[key])} from those kept for {key}"] if mine != known[key] else []
    for other, theirs in known.items():
        same = "has the bits" if mine == theirs else f"{departs(mine, theirs)} from those"
        to_stderr(f"row 12, {bench.job.package}: no digests are kept for {key}; this run {same} of {other}")
    return []


def departs(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Where a run leaves another one: its first line of metrics with other numbers, or the weights alone."""
    for line, same in zip(mine["lines"], theirs["lines"], strict=False):
        if line != same:
            return (
                f"departs at step {line[0]}"
                if line[0] == same[0]
                else f"has step {line[0]} where {same[0]} was, and departs"
            )
    if len(mine["lines"]) != len(theirs["lines"]):
        return f"has {len(mine['lines'])} lines of metrics in place of {len(theirs['lines'])}, and departs"
    return "has the same metrics and other weights, and departs"


def digests(run: Path) -> dict[str, Any]:
    """Digest of each line of the metrics by its step, and of the weights."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = sorted((run / "model").glob("*.safetensors"))
    return {
        "lines": [[line["step"], _digest(json.dumps(plain(line), sort_keys=True).encode())] for line in lines],
        "weights": _digest(
            b"".join(value.numpy().tobytes() for file in weights for _, value in sorted(load_file(file).items()))
        ),
    }


def key_of_machine() -> str:
    """What the bits depend on: processor, its vector instructions, what torch uses of them, torch."""
    file, processor = Path("/proc/cpuinfo"), platform.machine()
    if file.is_file():
        lines = (line.partition(":") for line in file.read_text().partition("\n\n")[0].splitlines())
        told = {name.strip(): value.strip() for name, _, value in lines}
        names = [told[name] for name in ("model name", "cpu family", "model") if name in told]
        vectors = sorted(flag for flag in told.get("flags", "").split() if flag.startswith(("avx", "fma", "amx")))
        processor = " ".join([*(names or [processor]), *vectors])
    return f"{processor}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__.partition('+')[0]}"


def keep(scratch: Path) -> None:
    """Add what the packages' folders in `scratch` hold to the digests that are kept."""
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for file in sorted(scratch.glob(f"*/{FILE.name}")):
        for package, seen in json.loads(file.read_text()).items():
            known[package] = known.get(package, {}) | seen
    write_atomically(FILE, (json.dumps(known, sort_keys=True) + "\n").encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


ROW = Row(12, "golden runs: the bits of earlier commits", count, case)
