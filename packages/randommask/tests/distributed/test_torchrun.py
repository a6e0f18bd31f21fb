"""`randommask pretrain` begun by torch's own launcher: two processes, one run folder, one of them speaks."""

import json
import os
import subprocess
import sys

import pytest
import torch

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed"),
]


def test_pretrain_under_torchrun(tmp_path):
    letters = torch.randint(4, (4, 300), generator=torch.Generator().manual_seed(0)).tolist()
    rows = ("".join("ACGT"[code] for code in row) for row in letters)
    (tmp_path / "g.fa").write_text("".join(f">r{i}\n{row}\n" for i, row in enumerate(rows)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = ["--no-python", sys.executable, "-c", "from randommask.commands import run; run()"]
    options = ("--steps", "2", "--tokens", "16", "--k", "3", "--batch-size", "4", "--evaluation-windows", "2")
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", *command, "pretrain", str(tmp_path / "g.fa"), *options],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    assert done.stdout.count("Run folder:") == 1
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [0, 1]
    (checkpoint,) = (out / "checkpoints").glob("step-*2")
    assert len(list(checkpoint.glob("rng_state_*.pth"))) == 2
    assert set(json.loads((out / "result.json").read_text())["numbers"]) >= {"loss_width_3", "loss_width_11"}
