"""`layermatch train` end to end on built-in real data: what it writes, that it resumes to the bit, and every error sentence."""

import contextlib
import dataclasses
import importlib.util
import json
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from forked import exit_code
from killed_workers import command
from layermatch.commands import main, outcome
from layermatch.commands import train as train_module
from layermatch.training import loop as loop_module
from scarce_common_utils.checkpoints import save_checkpoint
from scarce_common_utils.images import load_images

FEW = ["--labels-per-class", "2"]
QUICK = ["--labels-per-class", "2", "--batch-size", "4", "--unlabelled-ratio", "2", "--threshold", "0.2"]
RUN = ["train", "digits", *QUICK, "--steps", "24", "--checkpoint-every", "5", "--evaluate-every", "7"]
RUN += ["--ema-momentum", "0.97"]
SILENT = ["--tracker", "none"]  # whatever is installed here
RUN += SILENT
PSEUDO = ["--unlabelled-ratio", "2", "--threshold", "0.2"]  # which supervised refuses


def run_of(method):
    """The words of RUN that `method` looks at, with the method."""
    at = RUN.index(PSEUDO[0])
    assert RUN[at : at + len(PSEUDO)] == PSEUDO
    words = RUN[:at] + RUN[at + len(PSEUDO) :] if method == "supervised" else RUN
    return [*words, "--method", method]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of the unbroken run RUN with a method, made once for all tests that compare with it."""
    made = {}

    def folder(method="layermatch"):
        if method not in made:
            made[method] = tmp_path_factory.mktemp("whole") / method
            assert main([*run_of(method), "--out", str(made[method])]) == 0
        return made[method]

    return folder


# Figures, half of a short run's time, are drawn where they are looked at, and of images of four channels.
DRAWN = ("test_the_whole_job[layermatch]", "test_a_folder_of_ones_own_images_of_any_kind[RGBA]")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, request):
    """A folder of its own for each test; figures are drawn in some of them alone."""
    monkeypatch.chdir(tmp_path)
    if request.node.name not in DRAWN:
        monkeypatch.setattr(outcome, "draw_figures", lambda folder, lines, **_: [])
        monkeypatch.setattr(outcome, "draw_views", lambda path, rows, **_: path)


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def last_state(folder):
    state = torch.load(max(Path(folder, "checkpoints").glob("*.pt")), weights_only=True)
    state.pop("digest")  # of the options, which hold the folder's name no more than the numbers do
    return state


def assert_same_run(first, second):
    assert same(last_state(first), last_state(second))
    assert Path(first, "metrics.jsonl").read_text() == Path(second, "metrics.jsonl").read_text()
    numbers = [json.loads(Path(folder, "result.json").read_text())["numbers"] for folder in (first, second)]
    assert numbers[0] == numbers[1]
    assert Path(first, "split.json").read_text() == Path(second, "split.json").read_text()


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "layermatch"])
def test_the_whole_job(method, capsys):
    assert main(run_of(method)) == 0
    folder = Path(f"runs/layermatch-digits-{method}-seed-0")
    printed, progress = capsys.readouterr()
    assert f"Run folder: {folder}" in printed
    assert printed.startswith("method")
    assert max(len(line) for line in printed.splitlines() if not line.startswith("Figures")) <= 80
    assert ("used:" in printed) == (method != "supervised")
    assert "24/24 steps" in progress
    written = {path.name for path in folder.iterdir()}
    assert written == {
        ".lock",
        "config.json",
        "environment.json",
        "split.json",
        "metrics.jsonl",
        "result.json",
        "sittings.json",
        "checkpoints",
        "figures",
        "model",
    }
    if method == "layermatch":
        drawn = {path.name for path in (folder / "figures").iterdir()}
        assert {"test_error.png", "confusion.png", "views.png"} <= drawn
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "accuracy" in line] == [6, 13, 20, 23]
    record = json.loads((folder / "result.json").read_text())
    accuracies = [line["accuracy"] for line in lines if "accuracy" in line]
    assert record["numbers"]["accuracy"] == pytest.approx(sum(accuracies) / 4)
    assert record["arm"] == method
    options = json.loads((folder / "config.json").read_text())["options"]
    assert options["threads"] == 1
    assert options["momentum"] == (pytest.approx(0.5 ** (100 / 24)) if method == "layermatch" else None)
    assert options["ema_momentum"] == 0.97
    split = json.loads((folder / "split.json").read_text())
    assert len(split["labelled"]) == 20


def follow_the_card(folder, data):
    """Accuracy in percent and class names of the written model, loaded by the code of its own card."""
    images, labels = data.images, data.labels
    code = re.findall(r"```python\n(.*?)```", Path(folder, "model/README.md").read_text(), re.DOTALL)[0]
    names = {"images": images}
    with contextlib.chdir(Path(folder, "model")), torch.no_grad():
        exec(code, names)
    right = sum(name == data.class_names[label] for name, label in zip(names["names"], labels.tolist(), strict=True))
    return 100.0 * right / len(labels)


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "layermatch"])
def test_the_written_model_loaded_by_its_card_has_the_last_accuracy(method, whole):
    folder = whole(method)
    last = json.loads((folder / "result.json").read_text())["numbers"]["last_accuracy"]
    assert follow_the_card(folder, load_images("digits", seed=0)[1]) == last
    assert f"{last:.2f} % of 359 images" in (folder / "model/README.md").read_text()
    state = load_file(folder / "model/model.safetensors")
    average = last_state(folder)["average"]
    assert torch.equal(state["classifier.weight"], average["classifier.weight"])
    assert {"stem.weight", "last_norm.running_mean"} <= state.keys()


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "wrn-28-2"])
def test_a_written_model_of_another_kind_loads_by_its_card(model):
    if model == "mobilenet_v3_small":
        pytest.importorskip("torchvision", reason="torchvision is not installed (extra: vision)")
    options = ["--model", model, "--batch-size", "2", "--unlabelled-ratio", "1", "--steps", "2", "--threads", "1"]
    data = photos(size=(8, 8), mode="L")
    assert main(["train", data, "--labels-per-class", "1", *options, "--out", "run"]) == 0
    last = json.loads(Path("run/result.json").read_text())["numbers"]["last_accuracy"]
    assert follow_the_card("run", load_images(data, seed=0)[1]) == last


def test_a_second_run_takes_the_next_name_and_gives_the_same_bits(whole):
    Path("runs/layermatch-digits-layermatch-seed-0").mkdir(parents=True)
    assert main(RUN) == 0
    assert_same_run(whole(), "runs/layermatch-digits-layermatch-seed-0-2")


def test_the_methods_differ_and_share_their_labelled_images(whole):
    fixmatch, layermatch = whole("fixmatch"), whole("layermatch")
    assert (fixmatch / "split.json").read_text() == (layermatch / "split.json").read_text()
    assert (fixmatch / "metrics.jsonl").read_text() != (layermatch / "metrics.jsonl").read_text()
    off = ["--grad-relu", "off", "--avg-clustering", "none", "--method", "layermatch", "--out", "off"]
    assert main([*RUN, *off]) == 0
    assert (fixmatch / "metrics.jsonl").read_text() == Path("off/metrics.jsonl").read_text()
    assert same(last_state(fixmatch), last_state("off"))


def stop_after(monkeypatch, step):
    whole = train_module.save_checkpoint

    def save_and_stop(folder, *, step: int, state, limit=step):
        whole(folder, step=step, state=state)
        if step == limit:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "save_checkpoint", save_and_stop)


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "layermatch"])
def test_stopped_and_resumed_equals_unbroken_bit_for_bit(method, whole, monkeypatch, capsys):
    options = run_of(method)
    with monkeypatch.context() as patched:
        stop_after(patched, 10)
        assert main([*options, "--out", "broken"]) == 130
    assert not Path("broken/result.json").exists()
    capsys.readouterr()
    assert main(["train", "--resume", "broken"]) == 0
    assert "goes on at step 10 of 24" in capsys.readouterr().err
    assert_same_run(whole(method), "broken")


def test_a_model_with_dropout_resumes_bit_for_bit(monkeypatch):
    pytest.importorskip("torchvision", reason="torchvision is not installed (extra: vision)")
    data = photos(size=(8, 8))
    options = ["train", data, *QUICK, "--model", "mobilenet_v3_small", "--steps", "4", "--checkpoint-every", "2"]
    options += ["--evaluate-every", "4", "--threads", "1"]
    assert main([*options, "--out", "whole"]) == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert main([*options, "--out", "broken"]) == 130
    torch.rand(5)
    assert main(["train", "--resume", "broken"]) == 0
    assert_same_run("whole", "broken")


# Share of a whole run's calls after which each start is killed, the first ones before the run can be over.
KILLED_AT = (0.05, 0.3, 0.15, 0.35, 0.25, 0.45, 0.4, 0.55, 0.6, 0.7, 0.8, 0.9)


def test_killed_by_sigkill_again_and_again_it_ends_with_the_bits_of_an_unbroken_run(whole, tmp_path):
    words = [*RUN, "--out", "killed"]
    assert exit_code(command, [*words[:-1], "counted"], str(tmp_path), None) == 0
    calls, kills = int(Path("calls.txt").read_text()), 0
    for share in (*KILLED_AT, None):
        at = None if share is None else int(share * calls)
        code = exit_code(command, words, str(tmp_path), at)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        if Path("killed/config.json").is_file():
            words = ["train", "--resume", "killed"]
        else:  # killed before there was anything to go on with
            shutil.rmtree("killed", ignore_errors=True)
    assert code == 0
    assert kills >= 3
    assert_same_run(whole(), "killed")


def test_a_torn_checkpoint_is_named_and_the_one_before_it_used(whole, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_after(patched, 15)
        assert main([*RUN, "--out", "torn"]) == 130
    newest = Path("torn/checkpoints/step-00000015.pt")
    newest.write_bytes(newest.read_bytes()[:1000])
    capsys.readouterr()
    assert main(["train", "--resume", "torn"]) == 0
    said = capsys.readouterr().err
    assert "step-00000015.pt is torn or altered" in said
    assert "goes on at step 10" in said
    assert_same_run(whole(), "torn")


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(
            train_module, "save_checkpoint", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main([*RUN, "--out", "early"]) == 130
    Path("early/split.json").unlink()
    assert main(["train", "--resume", "early"]) == 0
    assert_same_run(whole(), "early")


def test_a_finished_run_resumed_prints_its_table_again_and_changes_nothing(capsys):
    assert main([*RUN, "--out", "done"]) == 0
    before = last_state("done"), Path("done/metrics.jsonl").read_text()
    first = capsys.readouterr().out
    assert main(["train", "--resume", "done"]) == 0
    printed = capsys.readouterr()
    assert printed.out == first
    assert "this run is finished, all 24 steps of it; nothing is done again" in printed.err
    assert same(before, (last_state("done"), Path("done/metrics.jsonl").read_text()))


def picture(path, *, colour=(200, 30, 30), size=(9, 9), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(len(str(path))).normal(size=(*size, 3)) * 30 + numpy.array(colour)
    Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).convert(mode).save(path)


def photos(folder="photos", *, per_class=6, **options):
    for name, colour in {"otter": (200, 30, 30), "seal": (30, 30, 200)}.items():
        for number in range(per_class):
            picture(Path(folder, name, f"{number}.png"), colour=colour, **options)
    return folder


SMALL = ["--steps", "4", "--batch-size", "2", "--unlabelled-ratio", "2", "--evaluate-every", "2"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_folder_of_ones_own_images_of_any_kind(mode):
    data = photos(mode=mode)
    assert main(["train", data, "--labels-per-class", "2", *SMALL, "--out", "run"]) == 0
    assert json.loads(Path("run/result.json").read_text())["experiment"] == "layermatch-photos"


def test_a_folder_with_unlabelled_images_needs_no_number_of_labels(capsys):
    photos("set/train")
    photos("set/test", per_class=3)
    for number in range(8):
        picture(Path("set/train/unlabelled", f"{number}.png"))
    assert main(["train", "set", *SMALL, "--out", "run"]) == 0
    split = json.loads(Path("run/split.json").read_text())
    assert len(split["labelled"]) == len(set(split["labelled_names"])) == 12
    assert all(Path("set", name).is_file() or Path("set/train", name).is_file() for name in split["labelled_names"])
    printed, told = capsys.readouterr()
    assert "on 6 test images" in printed
    assert (
        "the test part holds 6 images, so that each is 16.7 points of the accuracy, and chance moves it by up to 40"
        in told
    )


def test_images_of_several_sizes_and_a_batch_larger_than_the_set():
    data = photos(per_class=3)
    picture(Path(data, "otter", "wide.png"), size=(20, 31))
    options = ["--labels-per-class", "1", "--steps", "2", "--batch-size", "8", "--unlabelled-ratio", "3"]
    assert main(["train", data, *options, "--image-size", "12", "--out", "run"]) == 0


def test_a_learning_rate_that_explodes_stops_with_step_and_images(capsys):
    assert main([*RUN, "--learning-rate", "1e30"]) == 2
    said = capsys.readouterr().err
    assert "The loss or its gradient was not finite at step" in said
    assert "learning rate" in said
    assert "labelled images" in said
    assert "Lower --learning-rate" in said
    lines = Path("runs/layermatch-digits-layermatch-seed-0/metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["loss"] is not None for line in lines)


def test_a_loss_that_is_not_finite_is_counted_and_left_behind_where_asked(monkeypatch, capsys):
    whole = loop_module.train_step

    def poisoned(state, batch, *, views, **options):
        if state.step in (0, 5):
            mean, factor = views.constants
            views = dataclasses.replace(views, constants=(mean, factor * float("nan")))
        whole(state, batch, views=views, **options)

    monkeypatch.setattr(loop_module, "train_step", poisoned)
    assert main([*RUN, "--out", "stopped"]) == 2
    said = capsys.readouterr().err
    assert "not finite at step 0 (learning rate 0.05, labelled images " in said
    assert "--on-nonfinite count" in said
    assert main([*RUN, "--on-nonfinite", "count", "--out", "counted"]) == 0
    assert "left out: 2 steps whose loss was not finite" in capsys.readouterr().out
    lines = [json.loads(line) for line in Path("counted/metrics.jsonl").read_text().splitlines()]
    assert [line.get("steps_left_out") for line in lines] == [1] * 5 + [2] * 19
    assert [line["loss"] is None for line in lines] == [step in (0, 5) for step in range(24)]
    state = last_state("counted")
    parts = [state["model"], state["average"], state["criterion"]]
    assert all(value.isfinite().all() for part in parts for value in part.values())
    assert json.loads(Path("counted/result.json").read_text())["numbers"]["steps_left_out"] == 2


def test_seconds_count_all_sittings(monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 10)
        assert main([*RUN, "--out", "broken"]) == 130
    assert len(json.loads(Path("broken/sittings.json").read_text())) == 1
    Path("broken/sittings.json").write_text("[1000.5]")
    assert main(["train", "--resume", "broken"]) == 0
    assert 1000.5 < json.loads(Path("broken/result.json").read_text())["seconds"] < 1500
    sittings = json.loads(Path("broken/sittings.json").read_text())
    assert main(["train", "--resume", "broken"]) == 0
    assert json.loads(Path("broken/sittings.json").read_text()) == sittings


@pytest.mark.parametrize("moment", ["figures", "result.json"])
def test_a_run_killed_at_its_end_ends_when_resumed(moment, whole, monkeypatch):
    """Everything of the end is written again unless all of it is there: result.json comes last."""
    with monkeypatch.context() as patched:
        name = {"figures": "draw_figures", "result.json": "record_of"}[moment]
        patched.setattr(outcome, name, lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*RUN, "--out", "late"]) == 130
    assert not Path("late/result.json").exists()
    assert main(["train", "--resume", "late"]) == 0
    assert_same_run(whole(), "late")
    assert Path("late/model/model.safetensors").read_bytes() == (whole() / "model/model.safetensors").read_bytes()


OPTIONS = {
    "every rule": ["--weighting", "freematch", "--variant", "torchssl", "--avg-clustering", "prototypes"],
    "a reading over images": ["--avg-clustering", "temporal", "--weighting", "flexmatch", "--threshold", "0.2"],
    "a teacher": ["--avg-clustering", "teacher", "--weighting", "softmatch"],
    "a gate, wrong labels": ["--grad-relu", "agreement", "--corrupt", "fresh:0.5", "--threshold", "0"],
    "one view, bf16": ["--method", "pseudolabel", "--threshold", "0.1", "--precision", "bf16"],
    "parts": ["--accumulate", "2", "--channels-last", "--views", "fixmatch-pytorch", "--threshold", "0"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_work_and_resume_to_the_same_bits(name, monkeypatch):
    options = ["train", "digits", *FEW, "--batch-size", "4", "--unlabelled-ratio", "2", "--steps", "4", *OPTIONS[name]]
    options += ["--checkpoint-every", "2", "--evaluate-every", "4", *SILENT]
    assert main([*options, "--out", "whole"]) == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert main([*options, "--out", "broken"]) == 130
    assert main(["train", "--resume", "broken"]) == 0
    assert_same_run("whole", "broken")


def test_images_left_on_disk_give_the_same_bits():
    data = photos()
    options = ["train", data, "--labels-per-class", "2", *SMALL]
    assert main([*options, "--in-memory", "--out", "memory"]) == 0
    assert main([*options, "--no-in-memory", "--workers", "0", "--out", "disk"]) == 0
    assert_same_run("memory", "disk")


LAUNCHED = [
    ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "launched with --mixed_precision bf16, and --precision is float32"),
    ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "--gradient_accumulation_steps 4, and --accumulate is 1"),
    ({"ACCELERATE_USE_FSDP": "true"}, "launched with --use_fsdp"),
]


@pytest.mark.parametrize(("environment", "fragment"), LAUNCHED)
def test_what_the_launcher_was_told_and_would_not_happen_is_refused(environment, fragment, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([*RUN, "--out", "run"]) == 2
    assert fragment in capsys.readouterr().err
    assert not Path("run").exists()


def test_metrics_reach_tensorboard():
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra: tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*RUN[: -len(SILENT)], "--out", "run"]) == 0
    events = EventAccumulator("run/tensorboard").Reload()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    found = {event.step: event.value for event in events.Scalars("loss")}
    assert found == pytest.approx({line["step"]: line["loss"] for line in lines})


ERRORS = [
    (["train", "nowhere", "--labels-per-class", "2"], "nowhere is neither an existing path nor a known set"),
    (["train", "empty", "--labels-per-class", "2"], "empty is an empty folder"),
    (["train", "notes", "--labels-per-class", "2"], "notes holds no image"),
    (["train"], "DATA is missing"),
    (["train", "digits"], "Each of the 1438 images of digits has a label. Say how many"),
    (["train", "digits", "--labels-per-class", "9999"], "labels_per_class is 9999, but class '0' has"),
    (["train", "digits", "--labels-per-class", "0"], "0"),
    (["train", "digits", "--labels-per-class", "two"], "two"),
    (["train", "digits", *FEW, "--threshold", "1.5"], "1.5"),
    (["train", "digits", *QUICK, "--momentum", "-0.1"], "-0.1"),
    (["train", "digits", *QUICK, "--learning-rate", "0"], "0"),
    (["train", "digits", *QUICK, "--steps", "0"], "0"),
    (["train", "digits", *QUICK, "--treshold", "0.9"], "--threshold"),
    (["train", "digits", *QUICK, "--p-cutoff", "0.9"], "Here it is called --threshold"),
    (["train", "digits", *QUICK, "--ulb_loss_ratio", "1"], "Here it is called --unlabelled-weight"),
    (["train", "digits", *QUICK, "--method", "fixmtach"], "fixmatch"),
    (
        ["train", "digits", *QUICK, "--method", "fixmatch", "--momentum", "0.9"],
        "--momentum is an option of --method layermatch",
    ),
    (["train", "digits", *FEW, "--method", "supervised", "--grad-relu", "off"], "--grad-relu is an option of"),
    (["train", "digits", *QUICK, "--no-grad-relu"], "Here it is called --grad-relu off"),
    (
        ["train", "digits", *FEW, "--method", "supervised", "--threshold", "0.9"],
        "--threshold is an option of --method pseudolabel, fixmatch, flexmatch or layermatch and changes nothing with supervised",
    ),
    (
        ["train", "digits", *FEW, "--method", "supervised", "--unlabelled-ratio", "3"],
        "--unlabelled-ratio is an option of --method pseudolabel, fixmatch, flexmatch, freematch, softmatch or layermatch",
    ),
    (
        ["train", "digits", *FEW, "--method", "supervised", "--unlabelled-weight", "2"],
        "--unlabelled-weight is an option of --method pseudolabel, fixmatch, flexmatch, freematch, softmatch or layermatch",
    ),
    (["train", "digits", *QUICK, "--avg-clustering", "prototype"], "prototype"),
    (["train", "digits", *QUICK, "--precision", "fp16", "--device", "cpu"], "--precision fp16 needs a GPU"),
    (["train", "digits", *QUICK, "--accumulate", "3"], "--batch-size 4 cannot be cut into 3 equal parts"),
    (["train", "digits", *FEW, "--weighting", "freematch", "--threshold", "0.9"], "--threshold changes nothing with"),
    (["train", "digits", *FEW, "--variant", "torchssl"], "--variant changes nothing with --weighting fixed"),
    (["train", "digits", *FEW, "--avg-clustering", "teacher", "--momentum", "0.9"], "Say --ema-momentum"),
    (["train", "digits", *FEW, "--method", "fixmatch", "--weighting", "softmatch"], "--weighting is an option of"),
    (["train", "digits", *FEW, "--corrupt", "pair"], "--corrupt is 'pair'. Say a kind and a share"),
    (["train", "digits", *FEW, "--corrupt", "triple:0.3"], "kinds are uniform, pair, fresh"),
    (["train", "digits", *FEW, "--uratio", "7"], "Here it is called --unlabelled-ratio"),
    (["train", "digits", *FEW, "--ema_m", "0.999"], "Here it is called --ema-momentum"),
    (["train", "digits", *FEW, "--amp"], "Here it is called --precision bf16"),
    (["train", "digits", *FEW, "--tracker", "wandb"], "--tracker wandb needs the package wandb: pip install wandb"),
    (["train", "digits", *QUICK, "--device", "tpu9"], "--device is 'tpu9'"),
    (["train", "digits", *QUICK, "--model", "resnet1"], "--model is 'resnet1', which is not known. Did you mean"),
    (["train", "digits", *QUICK, "--model", "squeezenet1_0"], "SqueezeNet has no torch.nn.Linear"),
    (["train", "digits", *QUICK, "--model", "vit_b_16"], "--model vit_b_16 cannot be trained on images of 8x8"),
    (["train", "digits", *QUICK, "--out", "taken"], "--out is taken, which already holds files"),
    (["train", "nowhere", *FEW, "--out", "taken"], "--out is taken, which already holds files"),
    (["train", "--resume", "nowhere"], "nowhere is no folder"),
    (["train", "--resume", "notes"], "notes holds no config.json"),
    (["trian", "digits"], "train"),
]


@pytest.mark.parametrize(("argv", "fragment"), ERRORS, ids=[" ".join(argv[:1] + argv[-2:]) for argv, _ in ERRORS])
def test_each_mistake_is_one_sentence_and_exit_code_2(argv, fragment, capsys, tmp_path):
    if "wandb" in argv and importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed here, so nothing is missing")
    if "--model" in argv:
        pytest.importorskip("torchvision", reason="torchvision is not installed (extra: vision)")
    Path("empty").mkdir()
    for name in ("notes", "taken"):
        Path(name).mkdir()
        Path(name, "readme.txt").write_text("nothing to see")
    before = sorted(tmp_path.rglob("*"))
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert fragment in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("taken/readme.txt").read_text() == "nothing to see"


def test_an_absent_torchvision_is_named_with_its_pip_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert main(["train", "digits", *FEW, "--model", "resnet18"]) == 2
    assert "pip install 'layermatch[vision]'" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_resume_refuses_what_would_change_the_result(capsys):
    assert main([*RUN, "--out", "run"]) == 0
    capsys.readouterr()
    for words, fragment in [
        (["--steps", "50"], "--steps is 50, but the run to resume has 24"),
        (["--method", "fixmatch"], "--method is 'fixmatch', but the run to resume has 'layermatch'"),
        (["--momentum", "0.5"], "--momentum is 0.5"),
    ]:
        assert main(["train", "--resume", "run", *words]) == 2
        assert fragment in capsys.readouterr().err
    assert main(["train", "digits", "--resume", "run", "--seed", "0", "--device", "cpu"]) == 0


def test_resume_refuses_other_data_and_a_foreign_checkpoint(capsys):
    data = photos()
    options = ["train", data, "--labels-per-class", "2", *SMALL]
    assert main([*options, "--out", "run"]) == 0
    picture(Path(data, "otter", "another.png"))
    assert main(["train", "--resume", "run"]) == 2
    assert "are not what run/split.json was made from" in capsys.readouterr().err
    Path(data, "otter", "another.png").unlink()
    assert main([*options, "--seed", "1", "--out", "other"]) == 0
    for file in Path("run/checkpoints").iterdir():
        file.write_bytes(Path("other/checkpoints", file.name).read_bytes())
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 2
    assert "does not fit this run" in capsys.readouterr().err


def test_a_foreign_checkpoint_is_named_and_the_one_before_it_used(whole, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_after(patched, 15)
        assert main([*RUN, "--out", "mixed"]) == 130
    state = torch.load("mixed/checkpoints/step-00000015.pt", weights_only=True)
    save_checkpoint(Path("mixed/checkpoints"), step=15, state=state | {"digest": "another"})
    capsys.readouterr()
    assert main(["train", "--resume", "mixed"]) == 0
    said = capsys.readouterr().err
    assert "step-00000015.pt does not fit this run: The checkpoint has format" in said
    assert "run digest 'another'" in said
    assert "goes on at step 10" in said
    assert_same_run(whole(), "mixed")


def arrays(labels, *, name="set.npz", **more):
    """An npz file of 8x8 images whose brightness is their place."""
    images = (
        numpy.zeros((len(labels), 8, 8), dtype=numpy.uint8)
        + numpy.arange(len(labels), dtype=numpy.uint8)[:, None, None]
    )
    numpy.savez(name, x_train=images, y_train=numpy.array(labels), **more)
    return name


def test_a_class_without_a_label_is_named_with_what_to_do(capsys):
    names = {"class_names": numpy.array(["otter", "seal", "walrus"])}
    test = {"x_test": numpy.zeros((3, 8, 8), dtype=numpy.uint8), "y_test": numpy.arange(3)}
    data = arrays([0, 1] * 6 + [-1] * 4, **names, **test)
    assert main(["train", data, *SMALL]) == 2
    said = capsys.readouterr().err
    assert "Class 'walrus' has no labelled image in set.npz" in said
    assert "Give some of its images a label, or leave it out with --classes" in said
    assert main(["train", data, *SMALL, "--labels-per-class", "1"]) == 2
    assert "Class 'walrus' has no labelled image in set.npz" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_labels_that_are_strings_name_the_classes():
    data = arrays(["otter", "seal"] * 6)
    assert main(["train", data, *SMALL, "--labels-per-class", "2", "--out", "run"]) == 0
    assert json.loads(Path("run/model/config.json").read_text())["class_names"] == ["otter", "seal"]


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert "0.1.0" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "half-life of 1 % of the run" in text
    assert "--labels-per-class" in text
