"""`randommask pretrain --dataset`: a stream of sequences in place of FASTA files, resumed with the same bits, and refusals."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from encoder_folders import dna
from randommask import MaskSchedule
from randommask.commands import main

pytest.importorskip("datasets", reason="streams are read by `datasets`")
QUICK = ("--steps", "12", "--tokens", "24", "--k", "3", "--batch-size", "4", "--evaluation-windows", "8")


def write(path, count, seed=0):
    rows = [json.dumps({"dna": dna(60 + 7 * (row % 9), seed + row), "id": row}) for row in range(count)]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_stream_trains_and_goes_on_with_the_same_bits(tmp_path, capsys):
    data = write(tmp_path / "a.jsonl", 60)
    words = ["--dataset", data, "--column", "dna", "--shuffle-buffer", "16", "--accumulation", "2", "--dropout", "0.1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["pretrain", *words, *QUICK, "--checkpoint-every", "5", "--out", str(whole)]) == 0
    printed = capsys.readouterr().out
    assert "held out: row " in printed
    assert "known bases are held out; nats a masked token" in printed
    schedule = MaskSchedule(k=3, total_steps=12)
    assert [line["mask_width"] for line in metrics(whole)] == [schedule.width(step) for step in range(12)]
    split = json.loads((whole / "split.json").read_text())
    assert len(split["held_out"]) < len(split["training"])
    # As after a kill behind step 10: the last checkpoint and what came after it are gone.
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000012")
    shutil.rmtree(cut / "model")
    (cut / "result.json").unlink()
    assert main(["pretrain", "--resume", str(cut), "--workers", "2"]) == 0
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(whole) == metrics(cut)
    # The same options on other data are refused.
    write(tmp_path / "a.jsonl", 60, seed=1)
    assert main(["pretrain", "--resume", str(cut)]) == 2
    assert "are not what" in capsys.readouterr().err


def test_other_files_are_held_out(tmp_path, capsys):
    words = ["--dataset", write(tmp_path / "a.jsonl", 30), "--held-out", write(tmp_path / "b.jsonl", 3, seed=100)]
    assert main(["pretrain", *words, "--column", "dna", *QUICK, "--out", str(tmp_path / "run")]) == 0
    assert "held out: row 1 (60 bases), row 2 (67 bases), row 3 (74 bases)\n201 known bases" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{genome}", "--dataset", "{rows}"], "and GENOME is"),
        (["--dataset", "{rows}", "--records", "a"], "--records is for FASTA files, and the DNA comes from --dataset"),
        (["--shuffle-buffer", "5"], "--shuffle-buffer is for --dataset, which is missing"),
        (["--dataset", "{folder}/none.csv"], "none.csv, which does not exist. Give the paths of files."),
        (["--dataset", "{rows},{genome}"], "g.fa, which is no .jsonl file. Give files of one kind."),
        (["--dataset", "nobody/nothing"], "--dataset is 'nobody/nothing', which cannot be opened as split 'train'"),
        (
            ["--dataset", "{rows}"],
            "a.jsonl has no column 'sequence'; it has 'dna', 'id'. Name the column of letters by --column.",
        ),
        (["--dataset", "{rows}", "--column", "id"], "a.jsonl, row 1: the column 'id' holds '0', no letters"),
        (["--dataset", "{rows}", "--column", "dna", "--held-out", "dev"], "--held-out names dev, which does not exist"),
        (["--dataset", "{broken}", "--column", "dna"], "b.jsonl"),
        (["--dataset", "{protein}", "--column", "dna"], "p.csv, row 1: 'L' is no letter of DNA"),
        (["--dataset", "{one}", "--column", "dna"], "has no held out row. Give more rows, or a split"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(tmp_path, capsys, words, sentence):
    files = {"folder": tmp_path, "genome": tmp_path / "g.fa", "rows": write(tmp_path / "a.jsonl", 20)}
    files |= {"broken": tmp_path / "b.jsonl", "protein": tmp_path / "p.csv", "one": tmp_path / "o.csv"}
    files["genome"].write_text(">a\nACGTACGT\n")
    files["broken"].write_text('{"dna": "ACGT"\n[')
    files["protein"].write_text("dna\nMKVLAAGE\n")
    files["one"].write_text("dna\nACGTACGTACGT\n")
    out = tmp_path / "out"
    assert main(["pretrain", *(word.format(**files) for word in words), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert not out.exists()
