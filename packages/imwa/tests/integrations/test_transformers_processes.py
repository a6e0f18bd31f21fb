"""Trainers in two processes, three replicas: the bits of one Trainer that trains them in turn."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed (extra: transformers)")

from forked import finished
from imwa.integrations.transformers import IMWACallback, IMWATrainer
from integrations.small_trainer import train_together, trainer_of


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed")
def test_two_processes_of_trainers_end_with_the_bits_of_one(tmp_path):
    codes, printed = finished(2, tmp_path / "said", train_together, str(tmp_path))
    assert codes == [0, 0], "\n".join(printed)
    alone = trainer_of(IMWATrainer, tmp_path / "alone", [IMWACallback(replicas=3, episodes=2, optimizer_state="local")])
    alone.train()
    for rank, steps in enumerate((6, 12)):  # one replica, and two
        world_size, done, state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (world_size, done) == (1, steps)
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, state[name]), name
