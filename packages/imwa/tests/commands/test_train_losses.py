"""`imwa train --loss` and `--reweighting`: each runs, resumes to the same bits, and its written model loads by its card."""

import contextlib
import json
import re

import pytest
import torch

from imwa.commands import main
from scarce_common_utils.images import load_images

RUN = [
    "train",
    "digits",
    "--imbalance",
    "20",
    "--batch-size",
    "8",
    "--replicas",
    "2",
    "--episodes",
    "2",
    "--steps",
    "10",
]
RUN += ["--checkpoint-every", "3", "--evaluate-every", "10"]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *arguments, **named: [])
    monkeypatch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)


@pytest.mark.parametrize("words", [["balanced-softmax"], ["logit-adjustment", "--reweighting", "deferred"], ["ldam"]])
def test_each_loss_runs_and_resumes_to_the_same_bits(words, tmp_path, monkeypatch, capsys):
    from imwa.training import loop

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*RUN, "--loss", *words, "--out", str(whole)]) == 0
    plain, steps = loop.train_step, []

    def step(*arguments, **named):
        steps.append(named["step"])
        if len(steps) == 17:  # within the second episode, where deferred weights count already
            raise KeyboardInterrupt
        plain(*arguments, **named)

    monkeypatch.setattr(loop, "train_step", step)
    assert main([*RUN, "--loss", *words, "--out", str(cut)]) == 130
    monkeypatch.setattr(loop, "train_step", plain)
    assert main(["train", "--resume", str(cut)]) == 0
    numbers = [json.loads((run / "result.json").read_text())["numbers"] for run in (whole, cut)]
    assert numbers[0] == numbers[1]
    assert f"| loss | {words[0]}" in (whole / "model" / "README.md").read_text()


def test_the_losses_differ_and_the_plain_one_is_the_default(tmp_path):
    losses = {}
    for name, words in {"default": [], "plain": ["--loss", "cross-entropy"], "rebalanced": ["--loss", "balanced-softmax"],
                        "reweighted": ["--reweighting", "deferred"]}.items():  # fmt: skip
        assert main([*RUN, *words, "--out", str(tmp_path / name)]) == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert losses["default"] == losses["plain"]
    assert losses["default"] != losses["rebalanced"]
    assert losses["default"][0] == losses["reweighted"][0]
    assert losses["default"][-1] != losses["reweighted"][-1]


def test_a_model_with_cosine_logits_loads_by_its_card(tmp_path):
    run = tmp_path / "run"
    assert main([*RUN, "--loss", "ldam", "--out", str(run)]) == 0
    _, test = load_images("digits", test_share=0.2, seed=0)
    code = re.findall(r"```python\n(.*?)```", (run / "model" / "README.md").read_text(), re.DOTALL)[0]
    names = {"images": test.images}
    with contextlib.chdir(run / "model"), torch.no_grad():
        exec(compile(code, "card", "exec"), names)
    assert "cosine=True" in code
    assert names["model"].classifier.weight.shape[0] == 10


def test_ldam_needs_a_model_with_cosines(tmp_path, capsys):
    assert main([*RUN, "--loss", "ldam", "--model", "resnet18", "--out", str(tmp_path / "run")]) == 2
    assert "--loss ldam needs a classifier of cosines, which resnet18 has not" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*RUN, "--loss_type", "LDAM", "--out", str(tmp_path / "run")]) == 2
    assert "--loss" in capsys.readouterr().err
