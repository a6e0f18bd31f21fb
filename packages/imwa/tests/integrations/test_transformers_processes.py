"""Trainers in two processes, three replicas: the bits of one Trainer that trains them in turn."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed (extra: transformers)")

from imwa.integrations.transformers import IMWACallback, IMWATrainer
from integrations.small_trainer import trainer_of


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")
@pytest.mark.timeout(900)  # starting processes is slow where others work
def test_two_processes_of_trainers_end_with_the_bits_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(Path(__file__).parent / "small_trainer.py"), str(tmp_path)]
    ranks = [
        subprocess.Popen(
            words,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=840)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(outputs)
    alone = trainer_of(IMWATrainer, tmp_path / "alone", [IMWACallback(replicas=3, episodes=2, optimizer_state="local")])
    alone.train()
    for rank, steps in enumerate((6, 12)):  # one replica, and two
        world_size, done, state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (world_size, done) == (1, steps)
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, state[name]), name
