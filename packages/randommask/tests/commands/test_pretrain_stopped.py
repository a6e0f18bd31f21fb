"""A pretraining run that SIGTERM stops between two lines of its log: the step is kept, and the lines come out as if nothing had been."""

import json
import os
import signal

import pytest

from randommask.commands import main
from randommask.training.trainer import RandomMaskTrainer

WORDS = [
    *("pretrain", "--steps", "300", "--tokens", "16", "--batch-size", "2", "--checkpoint-every", "150"),
    *("--dropout", "0.1", "--evaluation-windows", "4", "--threads", "1", "--device", "cpu"),
]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*WORDS, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("step", [100, 101, 102])
def test_the_step_is_kept_and_the_log_goes_on(whole, tmp_path, monkeypatch, capsys, step):
    folder, plain = tmp_path / "run", RandomMaskTrainer.training_step

    def signalled(self, *words, **options):
        if self.state.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *words, **options)

    monkeypatch.setattr(RandomMaskTrainer, "training_step", signalled)
    assert main([*WORDS, "--out", str(folder)]) == 143
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"randommask: stopped by SIGTERM. Step {step} of 300 is kept; --resume with the run folder goes on from it."
    )
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{step:08d}"]
    monkeypatch.undo()
    assert main(["pretrain", "--resume", str(folder)]) == 0
    assert lines_of(folder) == lines_of(whole)
    assert (folder / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
