"""`randommask embed` and `randommask score` end to end: kinds of files, strands, standard streams, and every refusal."""

import csv
import gzip
import io
import math
from types import SimpleNamespace

import numpy
import pytest
from transformers import BertForSequenceClassification

from encoder_folders import dna, kmer_folder, letter_folder
from randommask.commands import main

LONG, SHORT = dna(60, 2), dna(9, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "kmers": kmer_folder(folder / "kmers"),
        "letters": letter_folder(folder / "letters"),
        "classifier": kmer_folder(folder / "classifier", kind=BertForSequenceClassification),
        "none": folder / "nothing",
    }


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(f">one first\n{LONG}\n>two\n{SHORT.lower()}\n".encode()))
    return path


def table_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_embeddings_as_three_kinds_of_file(folders, fasta, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet

    for suffix in ("npz", "npy", "parquet"):
        assert main(["embed", str(folders["kmers"]), str(fasta), "-o", str(tmp_path / f"e.{suffix}")]) == 0
    captured = capsys.readouterr()
    assert "2 sequences x 64 numbers; longer ones in 1 more pieces of at most 30 tokens" in captured.err
    assert captured.out == ""
    stored = numpy.load(tmp_path / "e.npz")
    assert stored["names"].tolist() == ["one", "two"]
    assert stored["embeddings"].shape == (2, 64)
    assert numpy.array_equal(stored["embeddings"], numpy.load(tmp_path / "e.npy"))
    columns = parquet.read_table(tmp_path / "e.parquet").to_pydict()
    assert columns["name"] == ["one", "two"]
    assert numpy.array_equal(numpy.array(columns["embedding"], dtype=numpy.float32), stored["embeddings"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fa.gz", "e.npy", "e.npz", "e.parquet"]


def test_tables_layers_pooling_and_other_encoders(folders, tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text(f"id\tdna\nx\t{LONG}\ny\t{SHORT}\n")
    words = [str(path), "--sequence-column", "dna", "--name-column", "id", "--pooling", "cls", "--layer", "1"]
    for name, width in (("kmers", 64), ("letters", 32), ("classifier", 64)):
        out = tmp_path / f"{name}.npz"
        assert main(["embed", str(folders[name]), *words, "-o", str(out)]) == 0
        assert numpy.load(out)["names"].tolist() == ["x", "y"]
        assert numpy.load(out)["embeddings"].shape == (2, width)


def test_scores_of_both_strands(folders, fasta, tmp_path, capsys):
    out = tmp_path / "s.csv"
    assert main(["score", str(folders["kmers"]), str(fasta), "-o", str(out)]) == 0
    rows = table_of(out.read_text())
    assert list(rows[0]) == ["name", "bases", "tokens", "log_likelihood", "per_token", "per_base"]
    assert [(row["name"], row["bases"], row["tokens"]) for row in rows] == [("one", "60", "58"), ("two", "9", "7")]
    for row in rows:
        total, token, base = (float(row[name]) for name in ("log_likelihood", "per_token", "per_base"))
        assert total < 0
        assert token == pytest.approx(total / int(row["tokens"]), abs=1e-6)
        assert base == pytest.approx(total / (3 * int(row["tokens"])), abs=1e-6)
    assert "2 sequences, mean -" in (told := capsys.readouterr().err)
    assert "masks 5 tokens wide" in told
    # The mean of both strands is the mean of two runs, and the same whichever strand is given.
    table = str.maketrans("ACGT", "TGCA")
    other = tmp_path / "other.fa"
    other.write_text(f">one\n{LONG.translate(table)[::-1]}\n>two\n{SHORT.translate(table)[::-1]}\n")
    found = {}
    for name, words in (
        ("other", [other]),
        ("both", [fasta, "--reverse-complement"]),
        ("again", [other, "--reverse-complement"]),
    ):
        assert main(["score", str(folders["kmers"]), *map(str, words)]) == 0
        found[name] = [float(row["log_likelihood"]) for row in table_of(capsys.readouterr().out)]
    forward = [float(row["log_likelihood"]) for row in rows]
    assert found["both"] == pytest.approx([(a + b) / 2 for a, b in zip(forward, found["other"], strict=True)], abs=1e-4)
    assert found["both"] == pytest.approx(found["again"], abs=1e-4)
    assert found["other"] != pytest.approx(forward, abs=1e-2)


def test_standard_input_and_output_and_what_is_too_short(folders, monkeypatch, capsys):
    text = f"sequence\n{SHORT}\nAC\n".encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    assert main(["score", str(folders["kmers"]), "-", "-o", "-", "--width", "3"]) == 0
    captured = capsys.readouterr()
    rows = table_of(captured.out)
    assert [(row["name"], row["tokens"]) for row in rows] == [("1", "7"), ("2", "0")]
    assert (rows[1]["log_likelihood"], rows[1]["per_base"]) == ("", "")
    assert "1 sequences hold no known token, so their scores are empty" in captured.err
    assert "at width 3 neighbours show some bases of each scored token; 5 hides all" in captured.err


def test_scores_of_tokens_that_are_letters(folders, fasta, capsys):
    assert main(["score", str(folders["letters"]), str(fasta)]) == 0
    rows = table_of(capsys.readouterr().out)
    assert [row["tokens"] for row in rows] == ["60", "9"]
    assert all(float(row["per_base"]) == pytest.approx(-math.log(9), abs=0.5) for row in rows)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["embed", "{kmers}"], "Give a model's folder and a file of sequences"),
        (["score", "{kmers}", "{fasta}", "{fasta}"], "Give a model's folder and a file of sequences"),
        (["embed", "{kmers}", "{fasta}"], "-o is missing: embeddings are no text."),
        (["embed", "{kmers}", "{fasta}", "-o", "-"], "-o is missing: embeddings are no text."),
        (["embed", "{kmers}", "{fasta}", "-o", "{folder}/e.csv"], "e.csv, whose ending says no kind of file"),
        (["embed", "{kmers}", "{fasta}", "-o", "{folder}/x/e.npy"], "but there is no folder"),
        (["embed", "{kmers}", "{fasta}", "-o", "{there}"], "there.npy, which exists; nothing there is touched"),
        (["score", "{kmers}", "{fasta}", "-o", "{there}"], "there.npy, which exists; nothing there is touched"),
        (["embed", "{none}", "{fasta}", "-o", "{new}"], "nothing, which holds no config.json"),
        (
            ["embed", "{kmers}", "MISSING.fa", "-o", "{new}"],
            "MISSING.fa does not exist. Give the path of a FASTA file, or",
        ),
        (["embed", "{kmers}", "{folder}", "-o", "{new}"], "is a folder. Name a FASTA file, or"),
        (["embed", "{kmers}", "{protein}", "-o", "{new}"], "p.fa, line 2: 'L' is no letter of DNA"),
        (["embed", "{kmers}", "{fasta}", "--layer", "3", "-o", "{new}"], "--layer is 3, but"),
        (["embed", "{kmers}", "{fasta}", "--layer", "-1", "-o", "{new}"], "-1"),
        (
            ["embed", "{kmers}", "{short}", "-o", "{new}"],
            "1 of 2 sequences are too short to hold a token, the first is 'b' with 2",
        ),
        (["embed", "{kmers}", "{fasta}", "--name-column", "id", "-o", "{new}"], "--name-column is 'id', but"),
        (["embed", "{kmers}", "{table}", "-o", "{new}"], "t.csv has no column 'sequence'"),
        (["embed", "{kmers}", "{empty}", "-o", "{new}"], "e.fa is empty"),
        (["embed", "{kmers}", "{fasta}", "--poolin", "cls", "-o", "{new}"], "Did you mean --pooling?"),
        (["embed", "{kmers}", "{fasta}", "--out", "x"], "Here it is called --output (-o)"),
        (["score", "{kmers}", "{fasta}", "--width", "2"], "--width is 2, but the 3-mers of"),
        (["score", "{classifier}", "{fasta}"], "whose weights hold no cls.predictions"),
        (["score", "{kmers}", "{fasta}", "--device", "abacus"], "--device is 'abacus', which is no device"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(folders, fasta, tmp_path, capsys, words, sentence):
    files = {
        "folder": tmp_path, "there": tmp_path / "there.npy", "new": tmp_path / "new.npz", "protein": tmp_path / "p.fa",
        "short": tmp_path / "s.fa", "table": tmp_path / "t.csv", "empty": tmp_path / "e.fa",
    }  # fmt: skip
    files["there"].write_bytes(b"mine")
    files["protein"].write_text(">p\nMKVLAAGE\n")
    files["short"].write_text(">a\nACGTACGT\n>b\nAC\n")
    files["table"].write_text("dna,label\nACGTACGT,1\n")
    files["empty"].write_text("")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main([word.format(**files, **folders, fasta=fasta) for word in words]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert files["there"].read_bytes() == b"mine"
