"""Two gloo processes against one: widths by optimizer step, batches dealt to both, gradients and parameters alike."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training_runs import STEPS, WIDTHS, run

TESTS = Path(__file__).parents[1]
CODE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from training_runs import run
options = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "dropout": 0.0} | json.loads(sys.argv[3])
seen, parameters, trainer = run(sys.argv[2], **options)
out = sys.argv[2] + "/rank-" + os.environ["RANK"]
losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
torch.save(parameters, out + ".pt")
with open(out + ".json", "w") as file:
    json.dump({"seen": seen, "losses": losses}, file)
torch.distributed.monitored_barrier()  # or one may be aborted as it ends
torch.distributed.destroy_process_group()
"""


# Plain gradient descent: Adam would turn the rounding of a gradient near 0 into a whole step.
PLAIN = {"optim": "sgd", "learning_rate": 0.05}


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_two_processes_equal_one_and_keep_their_widths(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(TESTS), str(tmp_path), json.dumps(PLAIN)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [child.communicate(timeout=400)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert found[0]["seen"] == found[1]["seen"] == [width for width in WIDTHS for _ in range(2)]
    assert len(found[0]["losses"]) == STEPS
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    # One process with twice the accumulation is dealt the same batches, in the same optimizer steps.
    seen, parameters, trainer = run(
        tmp_path / "one", gradient_accumulation_steps=4, per_device_train_batch_size=2, dropout=0.0, **PLAIN
    )
    assert seen == [width for width in WIDTHS for _ in range(4)]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert found[0]["losses"] == pytest.approx(losses, rel=1e-4)
    for one, other, single in zip(*ranks, parameters, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, single, rtol=1e-3, atol=2e-5)
