"""A number that is not finite where no loss sees it: nothing is kept or averaged of it, and the tensor is named."""

import pytest

from imwa.commands import main
from imwa.training import loop
from scarce_common_utils.checkpoints import load_checkpoint
from scarce_common_utils.finite import not_finite

RUN = [
    *(
        "train",
        "digits",
        "--imbalance",
        "20",
        "--replicas",
        "2",
        "--episodes",
        "2",
        "--steps",
        "6",
        "--batch-size",
        "8",
    ),
    *("--checkpoint-every", "2", "--evaluate-every", "6", "--device", "cpu", "--ema-decay", "0.9", "--no-diagnostics"),
]


def buffer_of(state):
    return next(value for name, value in state.model.named_buffers() if name.endswith("running_mean"))


PLACES = {
    "running_mean": buffer_of,  # of a statistic no loss in training mode knows
    "moving average": lambda state: next(state.ema.model.parameters()),
    "momentum_buffer": lambda state: next(iter(state.optimizer.state.values()))["momentum_buffer"],
    "model": lambda state: next(state.model.parameters()),  # as a gradient does, behind the loss of its step
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("done", [2, 3])
def test_no_checkpoint_holds_it_and_the_tensor_is_named(tmp_path, monkeypatch, capsys, place, done):
    step, out = loop.train_step, tmp_path / "run"

    def poisoned(state, *words, **options):
        step(state, *words, **options)
        if state.done == done:  # 3: a replica's end, whose infinity an average lets through
            PLACES[place](state).data.view(-1)[1] = float("inf")

    monkeypatch.setattr(loop, "train_step", poisoned)
    assert main([*RUN, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"NaN or infinity after step {done - 1} of replica 0, episode 0." in said
    assert place in said
    found = list((out / "checkpoints").glob("step-*.pt"))
    assert [path.name for path in found] == ([] if done == 2 else ["step-00000002.pt"])
    assert all(not_finite(load_checkpoint(path)) == [] for path in found)
    assert not (out / "result.json").exists()
