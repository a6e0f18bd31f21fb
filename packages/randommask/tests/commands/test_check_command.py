"""`randommask check` on FASTA files and on labelled tables; costs are measured on real steps."""

import gzip
import json

import pytest
import torch

from randommask.commands import check_dna, main

QUICK = ["--k", "3", "--tokens", "24", "--batch-size", "4", "--evaluation-windows", "8", "--steps", "40"]


def dna(length, seed):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())


def other_strand(letters):
    return letters[::-1].translate(str.maketrans("ACGT", "TGCA"))


@pytest.fixture
def genome(tmp_path):
    """Three records, of which the last holds the first's beginning, turned, and the second has N in it."""
    first = dna(600, 0)
    second = dna(500, 1)[:450] + "N" * 50
    path = tmp_path / "data" / "g.fa.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(f">a\n{first}\n>b\n{second}\n>c\n{other_strand(first[:300])}\n".encode()))
    return path


def test_dna(genome, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(genome), "--held-out", "c", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert max(map(len, printed.splitlines())) <= 80
    lines, words = printed.splitlines(), " ".join(printed.split())
    assert lines[0] == "g.fa.gz: 3 records, 1,400 letters"
    assert lines[1].startswith("N and the like: 3.6 %; G and C: ")
    assert "lengths: 300 to 600, median 500" in lines
    assert "b       500      10.00" in lines
    assert "held out: c (300 bases)" in words
    assert "training: 1,050 known bases" in words
    assert "records that repeat another, base for base: none" in lines
    assert "training DNA too: 0 of 11, and 11 on the other strand alone (1,100 training" in words
    assert "The loss on held-out DNA is too low by these." in words
    assert "cost of pretrain --method randommask --size tiny," in lines
    assert "at width 3, " in words
    assert "at width 11; 4 windows" in words
    assert ": 40 steps" in words


def test_dna_as_json_and_a_genome_too_large_to_read_whole(genome, monkeypatch, capsys):
    monkeypatch.setattr(check_dna, "MOST_BASES", 1200)
    assert main(["check", str(genome), "--held-out", "c", "--method", "dnabert", *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["read_whole"], found["records"]) == ("FASTA", False, 2)
    assert found["letters"]["letters"] == 1100
    assert list(found["cost"]["seconds_a_step"]) == ["3"]
    assert found["cost"]["seconds"] > 40 * found["cost"]["seconds_a_step"]["3"]
    assert found["held_out"].startswith(("a (", "b ("))


@pytest.fixture
def tables(tmp_path):
    rows = [(dna(30, number), "ab"[number % 2]) for number in range(40)]
    train = [*rows[:30], (rows[0][0], "b"), ("AC", "a")]
    test = [*rows[30:38], rows[1], (other_strand(rows[2][0]), "a")]
    for name, some in (("train", train), ("dev", rows[38:]), ("test", test)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["sequence,label", *map(",".join, some)]) + "\n")
    return tmp_path


def test_a_table(tables, capsys):
    words = ["--dev", str(tables / "dev.csv"), "--test", str(tables / "test.csv"), "--k", "3", "--epochs", "2"]
    assert main(["check", str(tables / "train.csv"), *words]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    lines, said = printed.splitlines(), " ".join(printed.split())
    assert lines[0] == "train.csv: rows 32 train, 2 dev, 10 test"
    assert "a         16    1     5" in lines
    assert "lengths: 2 to 30 letters, median 30; N and the like: 0 % of them, in 0 rows" in said
    assert "within train: 1 and 0 rows" in said
    assert "test in train too: 1 and 1 rows" in said
    assert "sequences with several labels: 1" in lines
    assert "cost of finetune --size tiny," in lines
    assert ": 2 steps, 2 epochs (without the regressions)" in said
    assert "* test in train too: 1 rows. The score over them is too high" in said
    assert "* test in train too: 1 more rows as the other strand." in said
    assert "* 1 rows have fewer than 3 letters: the model sees nothing of them." in said


def test_a_table_that_is_divided_as_json(tables, capsys):
    assert main(["check", str(tables / "train.csv"), "--k", "3", "--steps", "7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "table"
    assert sum(found["rows"].values()) == 32
    assert sum(sum(sides.values()) for sides in found["labels"].values()) == 32
    assert found["cost"]["steps"] == 7
    assert "test in train too" not in found["repeats"]  # divided by sequence


def test_refusals_are_sentences(genome, tables, tmp_path, capsys):
    refused = {
        (str(tmp_path / "gone.fa"),): "gone.fa is no file. Give FASTA files, or a CSV, TSV or parquet table.",
        (str(genome), "--epochs", "2"): "--epochs is no option of `randommask pretrain`, which is for FASTA.",
        (str(tables / "train.csv"), "--held-out", "c"): "--held-out is no option of `randommask finetune`",
        (str(tables / "train.csv"), str(tables / "dev.csv")): "train.csv is a table, and 2 files are given.",
        ("--dataset", "x.jsonl"): "--dataset is a stream without an end to look at.",
        (str(genome), "--held-out", "d"): "--held-out names 'd', but no record is called so",
        (str(genome), "--method", "dnabert", "--widths", "3,5"): "--widths changes nothing with --method dnabert",
        (str(genome), "--out", "x"): "Unknown option: --out",
    }
    for words, told in refused.items():
        assert main(["check", *words]) == 2, words
        assert told in capsys.readouterr().err
