"""`randommask gue` begun as two processes: one global batch, one run folder, one record and one table."""

import json
import os
import subprocess
import sys

import pytest
import torch

from randommask.commands import main

WORDS = (
    "--steps",
    "4",
    "--k",
    "3",
    "--batch-size",
    "4",
    "--dropout",
    "0",
    "--learning-rate",
    "1e-3",
    "--seeds",
    "1",
    "--no-regressions",
)
# The group meets at a file, so that no port can be taken; the process leaves without the interpreter's end, where threads of
# a group may still be at work.
CHILD = """
import os, sys, torch
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(os.environ["RANK"]), world_size=2)
from randommask.commands import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code
sys.stdout.flush(); sys.stderr.flush()
torch.distributed.monitored_barrier()
os._exit(code)
"""


@pytest.fixture
def data(tmp_path):
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path / "GUE" / "mouse" / "2"
    folder.mkdir(parents=True)
    for stem in ("train", "dev", "test"):
        letters = torch.randint(4, (16, 12), generator=generator).tolist()
        rows = ["".join("ACGT"[code] for code in row) + f",{number % 2}\n" for number, row in enumerate(letters)]
        (folder / f"{stem}.csv").write_text("sequence,label\n" + "".join(rows))
    return tmp_path / "GUE"


def both(tmp_path, words):
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "meeting"), *words],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [child.communicate(timeout=840) for child in children]
    return [child.returncode for child in children], told


@pytest.mark.timeout(900)
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_two_processes_train_one_batch_and_one_of_them_writes(data, tmp_path):
    out = tmp_path / "two"
    codes, told = both(tmp_path, ["gue", "--data", str(data), *WORDS, "--out", str(out)])
    assert codes == [0, 0], told
    assert told[1][0] == ""
    assert "randommask" not in told[1][1]
    assert "mouse/2" in told[0][0]
    assert main(["gue", "--data", str(data), *WORDS, "--out", str(tmp_path / "one")]) == 0
    name = "records/gue-mouse-2/scratch/seed-000.json"
    two, one = (json.loads((folder / name).read_text())["numbers"] for folder in (out, tmp_path / "one"))
    assert two == one  # the batch of all devices together is the batch of one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["GUE", "meeting", "one", "two"]
