"""`imwa train --tau` and `--retrain-steps`: their numbers, the model that is left, a stop within, and what is refused."""

import contextlib
import io
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from imwa.commands import main
from scarce_common_utils.images import load_images
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.streams import stream_seed

RUN = [
    "train",
    "digits",
    "--imbalance",
    "20",
    "--batch-size",
    "16",
    "--replicas",
    "2",
    "--episodes",
    "2",
    "--evaluate-every",
    "20",
    "--steps",
    "20",
]
BOTH = ["--tau", "1.5", "--retrain-steps", "12"]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("imwa.commands.outcome.draw_figures", lambda *arguments, **named: [])
    monkeypatch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)


def numbers(run):
    return json.loads((run / "result.json").read_text())["numbers"]


def predictions_by_card(run, images):
    """Logits of the written model, as its card computes them."""
    code = re.findall(r"```python\n(.*?)```", (run / "model" / "README.md").read_text(), re.DOTALL)[0]
    names = {"images": images}
    with contextlib.chdir(run / "model"), torch.no_grad():
        exec(compile(code, "card", "exec"), names)
    return names["logits"]


@pytest.fixture(scope="module")
def corrected_run(tmp_path_factory):
    """A run with both, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("corrected") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("imwa.commands.outcome.draw_figures", lambda *arguments, **named: [])
        patch.setattr("imwa.commands.job.BATCHES_FOR_NORMS", 2)
        assert main([*RUN, *BOTH, "--out", str(folder)]) == 0
    return folder, printed.getvalue()


def test_both_stand_beside_the_plain_numbers_which_they_do_not_change(corrected_run, tmp_path, capsys):
    plain = tmp_path / "plain"
    corrected, printed = corrected_run
    assert main([*RUN, "--out", str(plain)]) == 0
    assert "predictions" not in capsys.readouterr().out
    found = numbers(corrected)
    assert {name: found[name] for name in numbers(plain)} == numbers(plain)
    for label, name in {"plain": "", "adjusted, tau 1.5": "adjusted_", "cRT, 12 steps": "retrained_"}.items():
        row = [found[f"{name}{number}"] for number in ("accuracy", "class_accuracy", "head", "middle", "tail")]
        assert re.search(rf"^{re.escape(label)} +" + " +".join(f"{value:.2f}" for value in row), printed, re.MULTILINE)
    assert json.loads((corrected / "result.json").read_text())["units"]["retrained_tail"] == "%"
    _, test = load_images("digits", test_share=0.2, seed=0)
    content = json.loads((plain / "by_class.json").read_text())
    counts = [content[name]["training"] for name in test.class_names]
    logits = predictions_by_card(plain, test.images)
    adjusted = logits - 1.5 * torch.tensor([math.log(count / sum(counts)) for count in counts])
    right = (adjusted.argmax(1) == test.labels).float().mean()
    assert found["adjusted_accuracy"] == pytest.approx(100 * float(right))
    right = (predictions_by_card(corrected, test.images).argmax(1) == test.labels).float().mean()
    assert found["retrained_accuracy"] == pytest.approx(
        100 * float(right)
    )  # the model that is left is the re-trained one
    card = (corrected / "model" / "README.md").read_text()
    assert "trained anew for 12 steps on classes in equal shares" in card
    assert f"{found['retrained_accuracy']:.2f} % of 359 images" in card


def test_a_stop_while_the_classifier_is_trained_anew_changes_no_bit(corrected_run, tmp_path, monkeypatch):
    from imwa.long_tail.retraining import ClassBalancedOrder

    whole, cut = corrected_run[0], tmp_path / "cut"
    plain = ClassBalancedOrder.__call__

    def stop(order, step):
        if step == 7:
            raise KeyboardInterrupt
        return plain(order, step)

    monkeypatch.setattr(ClassBalancedOrder, "__call__", stop)
    assert main([*RUN, *BOTH, "--out", str(cut)]) == 130
    assert not (cut / "result.json").exists()
    monkeypatch.setattr(ClassBalancedOrder, "__call__", plain)
    assert main(["train", "--resume", str(cut)]) == 0
    assert numbers(whole) == numbers(cut)
    models = [(run / "model" / "model.safetensors").read_bytes() for run in (whole, cut)]
    assert models[0] == models[1]


def test_the_classifier_starts_from_a_stream_of_its_own(tmp_path):
    words = [*RUN[:-1], "2", "--retrain-steps", "1", "--retrain-learning-rate", "1e-30"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    seed_random_state(stream_seed(0, "retraining init"))
    drawn = torch.nn.Linear(12, 10)
    written = load_file(tmp_path / "run" / "model" / "model.safetensors")
    torch.testing.assert_close(written["classifier.weight"], drawn.weight.detach())
    torch.testing.assert_close(written["classifier.bias"], drawn.bias.detach())


def test_tau_is_that_of_the_training_loss_where_it_adjusts_in_training(tmp_path):
    losses = []
    for name, words in {"default": [], "one": ["--tau", "1"], "none": ["--tau", "0"]}.items():
        run = tmp_path / name
        assert main([*RUN[:-1], "4", "--loss", "logit-adjustment", *words, "--out", str(run)]) == 0
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        losses.append([line["loss"] for line in lines if "loss" in line])
        assert "adjusted_accuracy" not in numbers(run)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--tau", "1", "--loss", "balanced-softmax"],
            "--tau is 1, but --loss balanced-softmax balances the classes already",
        ),
        (
            ["--tau", "1", "--reweighting", "deferred"],
            "--tau is 1, but --reweighting deferred balances the classes already",
        ),
        (
            ["--retrain-steps", "3", "--loss", "ldam"],
            "--retrain-steps is 3, but the classifier of --loss ldam gives cosines",
        ),
        (["--retrain-learning-rate", "0.1"], "--retrain-learning-rate is 0.1, but no classifier is trained anew"),
        (
            ["--retrain-steps", "3", "--model", "squeezenet1_1"],
            "--retrain-steps cannot be used with --model squeezenet1_1",
        ),
        (["--tro", "1"], "--tau"),
    ],
)
def test_what_would_correct_twice_or_nothing_is_refused(words, sentence, tmp_path, capsys):
    words = [*words, "--image-size", "64"] if "squeezenet1_1" in words else words
    assert main([*RUN, *words, "--out", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
