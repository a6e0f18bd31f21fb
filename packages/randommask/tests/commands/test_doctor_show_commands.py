"""`randommask doctor` and `show` on a real pretraining and a real fine-tuning, and on copies that are given one symptom each."""

import json
import shutil

import pytest
import torch

from randommask.commands import main

STEPS = 24


def dna(length, seed):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "g.fa").write_text("".join(f">r{number}\n{dna(400, number)}\n" for number in range(12)))
    words = ["--k", "3", "--tokens", "24", "--batch-size", "4", "--evaluation-windows", "8", "--method", "dnabert"]
    out = folder / "pretrained"
    with pytest.MonkeyPatch.context() as patched:  # no figure is looked at here
        patched.setattr("randommask.training.report.draw_pretraining", lambda *args, **options: [])
        assert main(["pretrain", str(folder / "g.fa"), *words, "--steps", str(STEPS), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Sequences whose labels are drawn, so that there is nothing to be learnt; two test rows are training rows too."""
    folder = tmp_path_factory.mktemp("doctor")
    rows = [f"{dna(30, number)},{'ab'[number % 2]}" for number in range(40)]
    for name, some in (("train", rows[:24]), ("dev", rows[24:32]), ("test", rows[32:] + rows[:2])):
        (folder / f"{name}.csv").write_text("\n".join(["sequence,label", *some]) + "\n")
    words = ["--dev", str(folder / "dev.csv"), "--test", str(folder / "test.csv"), "--k", "3", "--epochs", "4"]
    out = folder / "tuned"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("randommask.training.finetuning_report.draw_finetuning", lambda *args, **options: [])
        assert main(["finetune", str(folder / "train.csv"), *words, "--learning-rate", "1e-5", "--out", str(out)]) == 0
    return out


def copied(real, tmp_path, change, **numbers):
    """A copy with `change(line, share)` in place of each line of the metrics, and other numbers in its result."""
    copy = tmp_path / "run"
    shutil.copytree(real, copy, dirs_exist_ok=True)
    lines = [json.loads(line) for line in (real / "metrics.jsonl").read_text().splitlines()]
    new = [change(line, place / (len(lines) - 1)) for place, line in enumerate(lines)]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in new))
    record = json.loads((real / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps(record | {"numbers": record["numbers"] | numbers}))
    return copy


def seen(run, capsys):
    assert main(["doctor", str(run), "--json"]) == 0
    return {symptom["name"]: symptom for symptom in json.loads(capsys.readouterr().out)["symptoms"]}


GOOD = {f"{name}_width_{width}": value for width in (3, 11) for name, value in (("loss", 2.0), ("ceiling", 4.0))}
SHARE = 0.137  # 1 - (1 - 0.05)^3 = 0.1426 in a long row, less at the ends of 24 tokens and fewer


def learning(line, share):
    return line | {"loss": 4.2 - 2 * share, "masked_share": SHARE}


def test_a_real_run_too_short_to_learn(pretrained, capsys):
    assert main(["doctor", str(pretrained)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(pretrained), "RUN").splitlines())) <= 80
    words = " ".join(printed.split())
    assert "1. The loss is far above its floor, and flat" in words
    assert "knowing nothing costs 4.16." in words
    assert "--start structured" in words
    assert "closed form" not in words


def test_nothing_wrong_is_said(pretrained, tmp_path, capsys):
    run = copied(pretrained, tmp_path, learning, **GOOD)
    assert main(["doctor", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "randommask pretrain, finished, 24 steps logged Nothing wrong was seen." in printed


def test_a_loss_above_its_floor_and_flat_and_one_that_still_falls(pretrained, tmp_path, capsys):
    # Width 3 at k = 3 and p = 0.05: floor 1.21, nothing known 4.16, half of the way 2.68.
    run = copied(pretrained, tmp_path, lambda line, share: learning(line, share) | {"loss": 2.75}, **GOOD)
    found = seen(run, capsys)
    assert list(found) == ["The loss is far above its floor, and flat"]
    assert (
        "At width 3 it is 2.75 nats a masked token (at the phase's begin 2.75); its floor is 1.21"
        in found.popitem()[1]["seen"]
    )
    for loss in (lambda share: 2.6, lambda share: 2.9 - 0.1 * share):
        run = copied(
            pretrained, tmp_path, lambda line, share, loss=loss: learning(line, share) | {"loss": loss(share)}, **GOOD
        )
        assert seen(run, capsys) == {}


def test_no_better_than_frequencies(pretrained, tmp_path, capsys):
    run = copied(pretrained, tmp_path, learning, **GOOD | {"loss_width_11": 4.0})
    found = seen(run, capsys)
    assert list(found) == ["No better than k-mer frequencies"]
    assert (
        "width 11 is 4.00 nats a masked token; frequencies of the training k-mers alone give 4.00"
        in found.popitem()[1]["seen"]
    )


@pytest.mark.parametrize(("share", "is_off"), [(0.12, True), (0.127, False), (0.145, False), (0.155, True)])
def test_a_masked_share_off_its_closed_form(share, is_off, pretrained, tmp_path, capsys):
    run = copied(pretrained, tmp_path, lambda line, at: learning(line, at) | {"masked_share": share}, **GOOD)
    found = seen(run, capsys)
    assert list(found) == (["The share of masked tokens is off its closed form"] if is_off else [])
    if is_off:
        assert f"At width 3 {100 * share:.1f} % of the tokens were masked, and 13." in found.popitem()[1]["seen"]


def test_a_real_fine_tuning_with_nothing_to_learn(tuned, capsys):
    found = seen(tuned, capsys)
    assert "2 of 10 test rows" in found["Test rows stand in the training rows too"]["seen"]


DEV = [  # dev loss and score of each epoch, numbers of the result, the symptom
    ([(0.7, 0.0)] * 4, {}, "The model is no better than chance"),
    ([(0.6, 0.3), (0.5, 0.4), (0.55, 0.4), (0.56, 0.4)], {}, "The dev loss rises"),
    ([(0.6, 0.3)] * 4, {"mcc_last": 0.3, "mcc_chosen": 0.2, "mcc_kmer_regression": 0.33}, "A regression is better"),
    ([(0.6, 0.3)] * 4, {"mcc_last": 0.3, "mcc_chosen": 0.2, "mcc_kmer_regression": 0.31}, None),
    ([(0.6, 0.3), (0.5, 0.4), (0.54, 0.4), (0.54, 0.4)], {}, None),
]


@pytest.mark.parametrize(("dev", "numbers", "name"), DEV)
def test_symptoms_of_a_fine_tuning(dev, numbers, name, tuned, tmp_path, capsys):
    def change(line, share):
        loss, score = dev[round(share * (len(dev) - 1))]
        return line | {"dev_loss": loss, "dev_mcc": score}

    fine = {"mcc_last": 0.9, "test_rows_also_in_train": 0, "mcc_positional_regression": 0.1, "mcc_kmer_regression": 0.1}
    found = seen(copied(tuned, tmp_path, change, **fine | numbers), capsys)
    assert list(found) == ([] if name is None else [name])


def test_show_compares_runs_of_two_commands(pretrained, tuned, capsys):
    assert main(["show", str(pretrained), str(tuned)]) == 0
    _, table, _ = capsys.readouterr().out.split("\n\n")
    rows = {line[:28].strip(): line[28:].split() for line in table.splitlines()}
    assert rows["command"] == ["pretrain", "finetune"]
    assert rows["--batch-size"] == ["4", "32"]
    assert "--method" not in rows  # the other has none
    assert rows["test_rows"] == ["-", "10"]


def test_show_refuses_another_packages_run(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"package": "imwa", "command": "train", "options": {}}))
    assert main(["show", str(tmp_path)]) == 2
    assert "is a run of `imwa train`. Look at it with `imwa show`" in capsys.readouterr().err
