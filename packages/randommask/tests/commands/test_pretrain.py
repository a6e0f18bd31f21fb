"""`randommask pretrain` end to end: on built-in and own DNA, killed and resumed, and every sentence of refusal."""

import gzip
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from randommask import KmerTokenizer, MaskSchedule
from randommask.commands import main

QUICK = ("--steps", "12", "--tokens", "24", "--k", "3", "--batch-size", "4", "--evaluation-windows", "8")


def dna(length, seed=0):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text("".join(f">r{i}\n{dna(400, i)}\n" for i in range(12)))
    return path


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_sample_from_one_command(tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        main(["pretrain", "--steps", "20", "--start", "structured", "--evaluation-windows", "16", "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "randommask, tiny, structured start, k = 6, 20 steps, seed 0" in printed
    assert "from 900,001 to 1,000,000 (100,000 bases)" in " ".join(printed.split())
    assert "100,000 of 900,000 known bases are held out" in printed
    assert f"Run folder: {out}" in printed
    assert max(map(len, printed.split("\nFigures")[0].splitlines())) <= 80
    result = json.loads((out / "result.json").read_text())
    assert result["arm"] == "randommask"
    for width in (6, 14):
        floor, loss, ceiling = (result["numbers"][f"{name}_width_{width}"] for name in ("floor", "loss", "ceiling"))
        assert floor < loss < 9
        assert floor < ceiling < 8.4
    assert [line["step"] for line in metrics(out)] == list(range(20))
    schedule = MaskSchedule(total_steps=20)
    assert [line["mask_width"] for line in metrics(out)] == [schedule.width(step) for step in range(20)]
    config = json.loads((out / "config.json").read_text())["options"]
    assert config["widths"] == "6,8,10,12,14"
    assert config["milestones"] == "0,30000,100000,200000,300000"
    for name in ("loss.png", "masked_share.png"):
        assert (out / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000018", "step-00000020"]
    assert type(AutoTokenizer.from_pretrained(out / "model")) is KmerTokenizer
    model = AutoModelForMaskedLM.from_pretrained(out / "model")
    assert type(model).__name__ == "BertForMaskedLM"
    assert "| 14 |" in (out / "model" / "README.md").read_text()


@pytest.mark.parametrize("method", ["randommask", "dnabert", "constant", "constant_share", "iid", "uniform"])
def test_every_method(genome, tmp_path, method):
    out = tmp_path / method
    assert main(["pretrain", str(genome), "--method", method, *QUICK, "--out", str(out)]) == 0
    widths = {line["mask_width"] for line in metrics(out)}
    expected = {"dnabert": {3}, "constant": {11}, "iid": {1}}.get(method, {3, 5, 7, 9, 11})
    assert widths == expected


def test_the_default_folder_names_command_method_and_seed(genome, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", str(genome), "--method", "dnabert", "--seed", "3", *QUICK]) == 0
    assert (tmp_path / "runs" / "randommask-pretrain-dnabert-seed-3" / "model").is_dir()
    assert "Model: runs/randommask-pretrain-dnabert-seed-3/model" in capsys.readouterr().out


def test_gzipped_files_named_records_and_both_strands(genome, tmp_path):
    packed = tmp_path / "h.fa.gz"
    packed.write_bytes(gzip.compress(b">h1\n" + dna(500, 77).encode() + b"\n>h2\n" + dna(300, 78).lower().encode()))
    out = tmp_path / "run"
    words = ["--held-out", "h2,r3", "--reverse-complement", "0.5", "--windows", "dnabert", "--accumulation", "2"]
    assert main(["pretrain", str(genome), str(packed), *words, *QUICK, "--out", str(out)]) == 0
    split = json.loads((out / "split.json").read_text())
    assert sum(stop - start for start, stop in split["held_out"]) == 700
    assert sum(stop - start for start, stop in split["training"]) == 11 * 400 + 500


def test_the_held_out_dna_is_named(tmp_path, capsys):
    path = tmp_path / "g.fa"
    path.write_text(f">chrA\n{dna(1000, 1)}\n>chrB\n{dna(2000, 2)}\n")
    assert main(["pretrain", str(path), "--held-out", "chrB", *QUICK, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "held out: chrB (2,000 bases)\n" in printed
    assert "2,000 of 3,000 known bases are held out" in printed


def test_help_tells_the_rule_for_short_records(capsys):
    assert main(["pretrain", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "where all are shorter, a tenth of the records (at least one), drawn from the seed" in words


@pytest.mark.parametrize(("offset", "printed_at"), [(0.1, [3]), (-0.1, [])])
def test_a_loss_above_its_ceiling_is_said(genome, tmp_path, monkeypatch, capsys, offset, printed_at):
    import randommask.training.evaluation as evaluation

    measured = evaluation.masked_losses

    def set_off(*args, **words):
        first, *others = measured(*args, **words)
        below = [row._replace(loss=row.ceiling - 0.1) for row in others]
        return [first._replace(loss=first.ceiling + offset), *below]

    monkeypatch.setattr(evaluation, "masked_losses", set_off)
    assert main(["pretrain", str(genome), *QUICK, "--out", str(tmp_path / "run")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for width in (3, 11):
        sentence = f"the loss at width {width} is above that of k-mer frequencies alone: the model has not learned yet; train longer"
        assert (sentence in printed) == (width in printed_at)


def test_own_widths_and_milestones(genome, tmp_path):
    out = tmp_path / "run"
    words = ["--widths", "3,8", "--milestones", "0,240000"]
    assert main(["pretrain", str(genome), *words, *QUICK, "--out", str(out)]) == 0
    assert [line["mask_width"] for line in metrics(out)] == [3] * 6 + [8] * 6


DIE_AFTER_7 = """
import os, sys
from randommask.commands import main
from scarce_common_utils.run_folder import RunFolder
log = RunFolder.log
def die_after(self, step, **numbers):
    log(self, step, **numbers)
    if step == 7:
        os.kill(os.getpid(), 9)
RunFolder.log = die_after
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def whole_and_killed(tmp_path_factory):
    """A run that was let be, and one that was killed three steps and lines after its checkpoint of step 5."""
    folder = tmp_path_factory.mktemp("runs")
    genome = folder / "g.fa"
    genome.write_text("".join(f">r{i}\n{dna(400, i)}\n" for i in range(12)))
    words = ["pretrain", str(genome), *QUICK, "--accumulation", "2", "--dropout", "0.1", "--checkpoint-every", "5"]
    assert main([*words, "--out", str(folder / "whole")]) == 0
    line = [sys.executable, "-c", DIE_AFTER_7, *words, "--out", str(folder / "killed")]
    assert subprocess.run(line, capture_output=True, check=False).returncode == -9
    return folder / "whole", folder / "killed"


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_ends_with_the_same_bits(whole_and_killed, tmp_path, workers):
    whole, killed = whole_and_killed
    cut = tmp_path / "cut"
    shutil.copytree(killed, cut)
    assert [path.name for path in (cut / "checkpoints").glob("step-*")] == ["step-00000005"]
    assert not (cut / "result.json").exists()
    assert len(metrics(cut)) == 8
    assert main(["pretrain", "--resume", str(cut), "--workers", str(workers)]) == 0
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(whole) == metrics(cut)
    numbers = [json.loads((folder / "result.json").read_text())["numbers"] for folder in (whole, cut)]
    assert numbers[0] == numbers[1]


def test_a_loss_that_is_no_number_stops_at_its_step_and_the_last_good_checkpoint_stays(
    genome, tmp_path, monkeypatch, capsys
):
    from randommask.training.trainer import RandomMaskTrainer

    learn, calls = RandomMaskTrainer.compute_loss, []

    def broken(self, model, inputs, *others, **words):
        calls.append(1)
        loss = learn(self, model, inputs, *others, **words)
        return loss * float("nan") if len(calls) == 8 else loss

    monkeypatch.setattr(RandomMaskTrainer, "compute_loss", broken)
    out = tmp_path / "run"
    assert main(["pretrain", str(genome), *QUICK, "--checkpoint-every", "5", "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "The loss is nan at step 8. The last good checkpoint is kept; go on with a smaller learning rate" in error
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-00000005"]
    weights = load_file(out / "checkpoints" / "step-00000005" / "model.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert not (out / "result.json").exists()
    assert len(metrics(out)) == 7


@pytest.mark.parametrize("place", ["model", "optimizer"])
def test_what_is_not_finite_behind_the_loss_of_its_step_is_kept_in_no_checkpoint(
    genome, tmp_path, monkeypatch, capsys, place
):
    from randommask.training.trainer import RandomMaskTrainer

    learn, calls = RandomMaskTrainer.training_step, []

    def poisoned(self, model, inputs, *others, **words):
        loss = learn(self, model, inputs, *others, **words)
        calls.append(1)
        if len(calls) == 6:
            parameter = next(model.parameters())
            poisoned = parameter.grad if place == "model" else self.optimizer.state[parameter]["exp_avg_sq"]
            poisoned.view(-1)[0] = float("inf")
        return loss

    monkeypatch.setattr(RandomMaskTrainer, "training_step", poisoned)
    out = tmp_path / "run"
    assert main(["pretrain", str(genome), *QUICK, "--checkpoint-every", "3", "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"'{place}." in error
    assert "NaN or infinity after step 6." in error
    assert [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith("step")] == ["step-00000003"]


def test_a_torn_checkpoint_is_named_and_the_older_one_used(genome, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["pretrain", str(genome), *QUICK, "--checkpoint-every", "6", "--out", str(out)]) == 0
    before = load_file(out / "model" / "model.safetensors")
    (out / "checkpoints" / "step-00000012" / "model.safetensors").write_bytes(b"torn")
    capsys.readouterr()
    assert main(["pretrain", "--resume", str(out)]) == 0
    assert "step-00000012" in (errors := capsys.readouterr().err)
    assert "The checkpoint before it is used" in errors
    after = load_file(out / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["MISSING.fa"], "MISSING.fa does not exist. Give the path of a FASTA file."),
        (["{folder}"], "is a folder. Name the FASTA files in it"),
        (["{protein}"], "protein.fa, line 2: 'L' is no letter of DNA"),
        (["{csv}"], "a.csv, line 1: a FASTA file begins with '>', this one with 'sequence,label'"),
        (["{cut}"], "cut.fa.gz ends within a gzip stream, so it was cut short."),
        (["{empty}"], "empty.fa is empty."),
        (["{unknown}"], "No stretch without long runs of N has 6 bases"),
        (
            ["--held-out", "chrX"],
            "--held-out names 'chrX', but no record is called so; the records are 22:20000001-21000000",
        ),
        (["--stepz", "5"], "Did you mean --steps"),
        (["--mlm-probability", "0.15"], "Here it is called --probability."),
        (["--method", "randommsk"], "randommask"),
        (["--steps", "0"], "0"),
        (["--k", "9"], "9"),
        (["--probability", "1.5"], "1.5"),
        (["--reverse-complement", "-0.1"], "-0.1"),
        (["--tokens", "x"], "x"),
        (["--widths", "6,eight"], "--widths is '6,eight', but it takes integers joined by commas"),
        (["--widths", "6,8"], "There are 2 widths (6, 8) and 5 milestones"),
        (
            ["--widths", "6,8", "--milestones", "0,0"],
            "milestones are (0, 0), but they must be integers that start with 0",
        ),
        (["--method", "dnabert", "--widths", "6,8"], "--widths changes nothing with --method dnabert"),
        (
            ["--method", "constant_share", "--probability", "0.1"],
            "--probability changes nothing with --method constant_share",
        ),
        (["--device", "abacus"], "--device is 'abacus', which is no device"),
        (["--resume", "{folder}"], "holds no config.json, so it is no run folder"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(tmp_path, capsys, words, sentence):
    files = {
        "folder": tmp_path / "folder",
        "protein": tmp_path / "protein.fa",
        "csv": tmp_path / "a.csv",
        "cut": tmp_path / "cut.fa.gz",
        "empty": tmp_path / "empty.fa",
        "unknown": tmp_path / "unknown.fa",
    }
    files["folder"].mkdir()
    files["protein"].write_text(">p\nMKVLAAGE\n")
    files["csv"].write_text("sequence,label\nACGT,1\n")
    files["cut"].write_bytes(gzip.compress(b">a\n" + b"ACGTTGCA" * 999)[:-9])
    files["empty"].write_text("")
    files["unknown"].write_text(">a\nACGTNACGTN\n")
    out = tmp_path / "out"
    line = ["pretrain", *(word.format(**files) for word in words)]
    if "--resume" not in words:
        line += ["--out", str(out)]
    assert main(line) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert not out.exists()


def test_what_is_written_already_is_never_touched(genome, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main(["pretrain", str(genome), *QUICK, "--out", str(out)]) == 2
    assert "already holds files; nothing there is touched" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_resume_refuses_what_would_change_the_result(genome, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["pretrain", str(genome), *QUICK, "--out", str(out)]) == 0
    before = (out / "config.json").read_bytes()
    for words, sentence in (
        (["--learning-rate", "0.5"], "--learning-rate is 0.5, but the run to resume has 0.003"),
        (["--seed", "7"], "--seed is 7, but the run to resume has 0"),
    ):
        assert main(["pretrain", "--resume", str(out), *words]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["finetune", "--resume", str(out)]) == 2
    assert "is a run of `randommask pretrain`, not of `randommask finetune`" in capsys.readouterr().err
    genome.write_text(genome.read_text().replace("A", "C", 1))
    assert main(["pretrain", "--resume", str(out)]) == 2
    assert "are not what" in capsys.readouterr().err
    assert (out / "config.json").read_bytes() == before


def test_chosen_records_from_a_cached_genome_and_from_memory_train_alike(genome, tmp_path, capsys):
    runs = {}
    for name, more in (
        ("memory", ()),
        ("made", ("--cache", str(tmp_path / "c"))),
        ("mapped", ("--cache", str(tmp_path / "c"))),
    ):
        words = ["pretrain", str(genome), *QUICK, "--records", "r1,r2,r3", "--held-out", "r3", "--workers", "1"]
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
        runs[name] = load_file(tmp_path / name / "model" / "model.safetensors")
        assert json.loads((tmp_path / name / "split.json").read_text())["records"] == ["r1", "r2", "r3"]
    assert "held out: r3 (400 bases)" in capsys.readouterr().out
    assert all(torch.equal(runs["memory"][key], value) for key, value in (runs["made"] | runs["mapped"]).items())
    codes = next((tmp_path / "c").glob("g-*.codes"))
    codes.write_bytes(codes.read_bytes()[:-1])
    assert main([*words, *more, "--out", str(tmp_path / "again")]) == 0
    assert f"{codes} is damaged, so it is made anew." in capsys.readouterr().err
    assert main(["pretrain", str(genome), *QUICK, "--records", "r1,x2"]) == 2
    assert "--records names 'x2', but no record is called so" in capsys.readouterr().err


def test_repeats_in_lower_case_can_be_left_out(tmp_path, capsys):
    path = tmp_path / "soft.fa"
    path.write_text(f">a\n{dna(300)}{dna(500, 1).lower()}{dna(300, 2)}\n")
    assert main(["pretrain", str(path), *QUICK, "--no-keep-soft-masked", "--out", str(tmp_path / "run")]) == 0
    assert "of 600 known bases are held out" in capsys.readouterr().out
