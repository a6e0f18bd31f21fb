"""Row 12: a run on built-in data has the bits that earlier commits had, on the same processor with the same torch; else where it departs.

The digests stand in `golden.json` by processor and torch version. `--keep-golden` adds those of this machine; for a key that is not
there nothing fails.
"""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import torch

from faults.bench import Bench, Row
from faults.comparing import plain
from scarce_common_utils.checkpoints import write_atomically

FILE = Path(__file__).parent.parent / "golden.json"


def count(bench: Bench, size: str) -> int:
    """One run a package."""
    return 1


def case(bench: Bench, number: int) -> list[str]:
    """Compare, line by line of the metrics, then the weights."""
    run, _ = bench.whole(0)
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    mine, key = digests(run), f"{bench.job.package} {key_of_machine()}"
    before = known.get(key)
    (bench.scratch / FILE.name).write_text(json.dumps({key: mine}))
    if before is None:
        return []
    for line, same in zip(mine["lines"], before["lines"], strict=False):
        if line != same:
            return [f"the bits differ from step {line[0]} on from those kept for {key}"]
    return [] if mine == before else [f"the weights differ from those kept for {key}"]


def digests(run: Path) -> dict[str, Any]:
    """Digest of each line of the metrics by its step, and of the weights."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = sorted((run / "model").glob("*.safetensors"))
    return {
        "lines": [[line["step"], _digest(json.dumps(plain(line), sort_keys=True).encode())] for line in lines],
        "weights": [_digest(path.read_bytes()) for path in weights],
    }


def key_of_machine() -> str:
    """What the bits depend on: processor, its vector instructions, torch."""
    model = platform.machine()
    file = Path("/proc/cpuinfo")
    if file.is_file():
        model = next(
            (line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith("model name")),
            model,
        )
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__.partition('+')[0]}"


def keep(scratch: Path) -> None:
    """Add what the packages' folders in `scratch` hold to the digests that are kept."""
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for file in sorted(scratch.glob(f"*/{FILE.name}")):
        known |= json.loads(file.read_text())
    write_atomically(FILE, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


ROW = Row(12, "golden runs: the bits of earlier commits", count, case)
