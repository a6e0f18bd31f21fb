"""The score without repeats: which rows it is over, when there is none, and that last and chosen weights each have their own."""

import json
from types import SimpleNamespace

import pytest
import torch

from randommask.commands import finetune as command
from randommask.commands import main
from randommask.data.labelled import Labelled, Side
from randommask.training import finetuning
from scarce_common_utils.errors import UserError


def test_rows_of_train_and_of_dev_and_second_ones_are_left_out():
    def side(*sequences):
        return Side(list(sequences), torch.zeros(len(sequences), dtype=torch.int64))

    data = Labelled(["0", "1"], side("AC", "AG"), side("CA", "CC"), side("AC", "CC", "GG", "TT", "GG"), {})
    assert data.fresh == [2, 3]


def test_fewer_than_two_rows_give_no_score(monkeypatch):
    labels = torch.tensor([0, 1, 1])
    monkeypatch.setattr(finetuning, "logits_of", lambda model, side, **_: torch.eye(2)[side.labels])
    for fresh, expected in (([], None), ([1], None), ([0, 1], 1.0), ([0, 2], 1.0)):
        job = SimpleNamespace(
            model=None, scale=None, sides={"test": SimpleNamespace(labels=labels)}, data=SimpleNamespace(fresh=fresh)
        )
        found = command._tested(job, autocast=None)  # type: ignore[arg-type]  # what it looks at
        assert found.fresh == expected
        assert found.whole.mcc == 1.0


def test_last_and_chosen_weights_have_a_score_of_their_own(tmp_path, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    tables = {}
    for name, rows in (("train", 24), ("dev", 10), ("test", 6)):
        letters = torch.randint(4, (rows, 20), generator=draw).tolist()
        lines = [f"{''.join('ACGT'[code] for code in row)},{place % 2}" for place, row in enumerate(letters)]
        if name == "test":
            lines += tables["train"].read_text().splitlines()[1:3]  # two rows that repeat others
        tables[name] = tmp_path / f"{name}.csv"
        tables[name].write_text("\n".join(["sequence,label", *lines]) + "\n")
    turns = []

    def scripted(model, side, **_):
        right = torch.eye(2)[side.labels]
        if len(side) != 8:
            return right
        turns.append(1)
        wrong = 1 - right
        # first the last weights: right but where rows repeat; then the chosen ones: wrong but there
        return torch.cat([right[:6], wrong[6:]] if len(turns) == 1 else [wrong[:6], right[6:]])

    monkeypatch.setattr(finetuning, "logits_of", scripted)
    words = [
        "--dev",
        str(tables["dev"]),
        "--test",
        str(tables["test"]),
        "--k",
        "3",
        "--steps",
        "2",
        "--batch-size",
        "8",
    ]
    out = tmp_path / "run"
    assert main(["finetune", str(tables["train"]), *words, "--no-regressions", "--out", str(out)]) == 0
    numbers = json.loads((out / "result.json").read_text())["numbers"]
    assert numbers["mcc_last_deduplicated"] == 1.0
    assert numbers["mcc_chosen_deduplicated"] == -1.0
    assert numbers["mcc_last"] == 0.5
    assert numbers["mcc_chosen"] == -0.5
    assert numbers["test_rows_repeated"] == 2


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_a_dev_loss_that_is_no_number_stops_before_it_is_kept(tmp_path, monkeypatch, loss):
    found = SimpleNamespace(loss=loss)
    monkeypatch.setattr(finetuning, "predict", lambda *words, **named: found)
    placement, logged = SimpleNamespace(autocast=None), []
    watcher = finetuning._Watcher(
        None, log=lambda *words, **named: logged.append(words), checkpoints=tmp_path, bar=None, placement=placement,
        scale=None, every=1,
    )  # type: ignore[arg-type]  # what it looks at  # fmt: skip
    with pytest.raises(UserError, match=f"The dev loss is {loss} after step 3. The last good checkpoint is kept"):
        watcher._score(SimpleNamespace(global_step=3, epoch=1.0, is_world_process_zero=True), model=None)
    assert (logged, watcher.history, watcher.best) == ([], [], None)
