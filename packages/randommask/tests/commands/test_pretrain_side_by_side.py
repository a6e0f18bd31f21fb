"""`randommask pretrain --no-overlap`: k-mers side by side, and what the option leaves as it was."""

import json
import math

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from randommask.commands import main
from randommask.commands.pretrain import PretrainConfig, build_job, stored_config
from scarce_common_utils.command_line import resumed_config
from scarce_common_utils.run_folder import RunFolder

QUICK = ("--steps", "12", "--tokens", "24", "--k", "3", "--batch-size", "4", "--evaluation-windows", "8")


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "g.fa"
    letters = torch.randint(4, (12, 400), generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text("".join(f">r{i}\n{''.join('ACGT'[code] for code in row)}\n" for i, row in enumerate(letters)))
    return path


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_k_mers_side_by_side(genome, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["pretrain", str(genome), *QUICK, "--no-overlap", "--windows", "full", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "iid, tiny, usual start, k = 3, 12 steps, seed 0; k-mers side by side" in printed
    run = json.loads((out / "config.json").read_text())
    assert run["options"]["overlap"] is False
    assert run["options"]["method"] == "iid"
    lines = metrics(out)
    assert {line["mask_width"] for line in lines} == {1}
    assert all(line["hidden_bases"] == 3 for line in lines if line["masked_share"])
    shares = [line["masked_share"] for line in lines]
    assert 0.08 < sum(shares) / len(shares) < 0.22
    job = build_job(PretrainConfig(genome=(str(genome),), k=3, tokens=24, windows="full", overlap=False))
    assert max(len(job.windows[number]) for number in range(20)) == job.held_out.full == 24 * 3
    numbers = json.loads((out / "result.json").read_text())["numbers"]
    for width in (3, 11):
        assert numbers[f"floor_width_{width}"] == pytest.approx(0.9 * 3 * math.log(4))
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert not tokenizer.overlap
    assert len(tokenizer("ACGTAC")["input_ids"]) == 4
    model = AutoModelForMaskedLM.from_pretrained(out / "model")
    assert model.config.vocab_size == 69
    assert main(["pretrain", "--resume", str(out), "--overlap"]) == 2
    assert "--overlap is True, but the run to resume has False" in capsys.readouterr().err


def test_overlapping_k_mers_leave_the_configuration_as_it_was_before_there_were_others():
    whole = stored_config(PretrainConfig(steps=7))
    assert "overlap" not in whole
    assert stored_config(PretrainConfig(steps=7, overlap=False)) == whole | {"overlap": False}
    earlier = whole | {"method": "randommask"}
    assert resumed_config(PretrainConfig(), earlier).overlaps


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--no-overlap", "--widths", "3,5"), "--widths changes nothing with --no-overlap, where --method is iid by default"),
        (("--no-overlap", "--method", "dnabert", "--milestones", "0,5"), "--milestones changes nothing with --method dnabert"),
    ],
)  # fmt: skip
def test_widths_without_a_schedule_are_refused_for_k_mers_side_by_side_too(tmp_path, capsys, words, sentence):
    assert main(["pretrain", *words, "--out", str(tmp_path / "none")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_run_with_overlap_does_not_go_on_without(genome, tmp_path, capsys):
    job = build_job(PretrainConfig(genome=(str(genome),), k=3))
    options = stored_config(job.config)
    with RunFolder.create(tmp_path / "run", default_name="r", package="randommask", command="pretrain", config=options):
        pass
    assert main(["pretrain", "--resume", str(tmp_path / "run"), "--no-overlap"]) == 2
    assert "--no-overlap is given, but the run to resume has overlapping k-mers" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
