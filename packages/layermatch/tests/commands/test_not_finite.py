"""A number that is not finite where no loss sees it: a checkpoint is refused, the tensor named, and the run goes on without it."""

import pytest

from layermatch.commands import main
from layermatch.training import loop
from scarce_common_utils.checkpoints import load_checkpoint
from scarce_common_utils.finite import not_finite

RUN = [
    *("train", "digits", "--model", "cnn", "--labels-per-class", "2", "--steps", "6", "--batch-size", "4"),
    *(
        "--unlabelled-ratio",
        "1",
        "--checkpoint-every",
        "2",
        "--evaluate-every",
        "6",
        "--device",
        "cpu",
        "--tracker",
        "none",
    ),
]
PLACES = {
    "model.body.layers.1.running_var": lambda state: state.model.get_buffer("body.layers.1.running_var"),
    "average.classifier.weight": lambda state: state.average.average.classifier.weight,
    "optimizer.0.momentum_buffer": lambda state: state.optimizer.state[state.parameters[0]]["momentum_buffer"],
}


@pytest.mark.parametrize("place", PLACES)
def test_no_checkpoint_holds_it_and_the_tensor_is_named(tmp_path, monkeypatch, capsys, place):
    step, out = loop.train_step, tmp_path / "run"

    def poisoned(state, *words, **options):
        step(state, *words, **options)
        if state.step == 4:
            PLACES[place](state).data.view(-1)[1] = float("inf")

    monkeypatch.setattr(loop, "train_step", poisoned)
    assert main([*RUN, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"'{place}'" in said
    assert "NaN or infinity after step 3." in said
    (kept,) = (out / "checkpoints").glob("step-*.pt")
    assert kept.name == "step-00000002.pt"
    assert not_finite(load_checkpoint(kept)) == []
    assert not (out / "result.json").exists()
