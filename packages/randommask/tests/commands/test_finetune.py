"""`randommask finetune` end to end: on built-in and own tables, pretrained and from scratch, resumed, and refusals."""

import gzip
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from randommask.commands import main
from randommask.training.classification import score
from randommask.training.finetuning_report import score_cell

QUICK = ("--steps", "8", "--k", "3", "--batch-size", "4", "--no-regressions")


def rows(count, seed, first="1", second="0"):
    """Two classes: rich in A and C, or in G and T."""
    generator = torch.Generator().manual_seed(seed)
    lines = []
    for row in range(count):
        letters = "AACC" if row % 2 else "GGTT"
        drawn = torch.randint(4, (30,), generator=generator).tolist()
        lines.append(f"{''.join(letters[code] for code in drawn)},{first if row % 2 else second}")
    return lines


@pytest.fixture
def tables(tmp_path):
    paths = {}
    for name, count, seed in (("train", 60, 0), ("dev", 20, 1), ("test", 20, 2)):
        paths[name] = tmp_path / f"{name}.csv.gz"
        paths[name].write_bytes(gzip.compress("\n".join(["sequence,label", *rows(count, seed)]).encode()))
    return paths


def result(folder):
    return json.loads((folder / "result.json").read_text())["numbers"]


def test_the_sample_from_one_command(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["finetune", "--steps", "20", "--start", "structured", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "rows: 2552 train, 319 dev, 319 test" in printed
    numbers = result(out)
    assert numbers["test_rows"] == 319
    assert numbers["test_rows_also_in_train"] == 0
    assert 0.85 < numbers["mcc_positional_regression"] < 1
    assert 0.2 < numbers["mcc_kmer_regression"] < 0.6
    assert "logistic regression, letters by position" in printed
    for name in ("dev.png", "confusion.png"):
        assert (out / "figures" / name).read_bytes().startswith(b"\x89PNG")
    model = AutoModelForSequenceClassification.from_pretrained(out / "model")
    assert model.config.id2label == {0: "EI", 1: "IE", 2: "N"}
    card = (out / "model" / "README.md").read_text()
    assert "| data | splice junctions; rows: 2,552 train, 319 dev, 319 test |" in card
    assert "| seed | 0 |" in card
    assert f"| this folder (epoch {numbers['chosen_epoch']}) | {numbers['mcc_chosen']:.3f} |" in card
    assert f"| logistic regression, letters by position | {numbers['mcc_positional_regression']:.3f} |" in card
    assert [line.split(" | ")[1] for line in card.splitlines() if re.match(r"\| [012] \|", line)] == ["EI", "IE", "N"]
    split = json.loads((out / "split.json").read_text())
    assert sorted(row for side in split["rows"].values() for row in side) == list(range(3190))


def test_own_tables_and_a_pretrained_model(tables, tmp_path, capsys):
    genome = tmp_path / "g.fa"
    genome.write_text(">a\n" + "ACGTTGCAAGCT" * 60 + "\n")
    quick = ("--steps", "4", "--tokens", "40", "--k", "3", "--batch-size", "4", "--evaluation-windows", "8")
    assert main(["pretrain", str(genome), *quick, "--start", "structured", "--out", str(tmp_path / "p")]) == 0
    out = tmp_path / "f"
    words = ["--dev", str(tables["dev"]), "--test", str(tables["test"]), "--model", str(tmp_path / "p" / "model")]
    assert (
        main(["finetune", str(tables["train"]), *words, "--epochs", "4", "--batch-size", "4", "--out", str(out)]) == 0
    )
    numbers = result(out)
    assert numbers["mcc_last"] > 0.9  # composition alone tells these classes apart
    assert numbers["mcc_kmer_regression"] > 0.9
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4
    encoder = load_file(tmp_path / "p" / "model" / "model.safetensors")
    tuned = load_file(out / "model" / "model.safetensors")
    assert {name for name in encoder if name.startswith("bert.")} <= set(tuned)


def test_default_folders_name_command_start_and_seed(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["finetune", str(tables["train"]), "--seed", "4", *QUICK]
    assert main(words) == 0
    scratch = tmp_path / "runs" / "randommask-finetune-scratch-seed-4"
    assert (scratch / "model").is_dir()
    short = [word for word in words if word not in ("--k", "3")]
    assert main([*short, "--model", str(scratch / "model")]) == 0
    assert (tmp_path / "runs" / "randommask-finetune-pretrained-seed-4" / "model").is_dir()


def test_the_card_names_the_pretrained_run_and_its_code_runs(tables, tmp_path):
    first, out = tmp_path / "first", tmp_path / "run"
    assert main(["finetune", str(tables["train"]), *QUICK, "--out", str(first)]) == 0
    words = ["--model", str(first / "model"), "--steps", "8", "--no-regressions", "--out", str(out)]
    assert main(["finetune", str(tables["train"]), *words]) == 0
    card = (out / "model" / "README.md").read_text()
    assert "# Classifier of DNA sequences, pretrained first" in card
    assert "| data | train.csv.gz;" in card
    assert "logistic regression" not in card
    assert str(tmp_path) not in card
    code = card.split("```python")[1].split("```")[0].replace('"."', repr(str(out / "model")))
    # In a process and a cache of its own: trust_remote_code would leave its class behind for the tests after this one.
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert ran.stdout.strip() in ("0", "1"), ran.stderr


def test_only_a_test_table_is_given(tables, tmp_path):
    out = tmp_path / "run"
    assert main(["finetune", str(tables["train"]), "--test", str(tables["test"]), *QUICK, "--out", str(out)]) == 0
    assert json.loads((out / "split.json").read_text())["counts"] == {"train": 54, "dev": 6, "test": 20}


def test_rows_that_stand_on_two_sides_are_counted(tables, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--dev", str(tables["train"]), "--test", str(tables["test"])]
    assert main(["finetune", str(tables["train"]), *words, *QUICK, "--out", str(out)]) == 0
    assert "60 dev rows also in train" in capsys.readouterr().out


def test_the_score_without_repeats_stands_beside_the_plain_one(tables, tmp_path, monkeypatch, capsys):
    import randommask.training.finetuning as finetuning

    mixed = tmp_path / "mixed.csv"
    mixed.write_text(
        "\n".join(["sequence,label", *rows(20, 2), *rows(60, 0)[:4]])
    )  # four training rows behind twenty new ones

    def wrong_where_repeated(model, side, **_):
        return torch.nn.functional.one_hot(side.labels ^ (torch.arange(len(side)) >= 20), 2).float()

    monkeypatch.setattr(finetuning, "logits_of", wrong_where_repeated)
    out = tmp_path / "run"
    words = ["--dev", str(tables["dev"]), "--test", str(mixed), *QUICK, "--out", str(out)]
    assert main(["finetune", str(tables["train"]), *words]) == 0
    numbers = result(out)
    # two of twelve wrong in either class: (10 x 10 - 2 x 2) / (12 x 12)
    assert numbers["mcc_last"] == numbers["mcc_chosen"] == pytest.approx(96 / 144)
    assert numbers["mcc_last_deduplicated"] == numbers["mcc_chosen_deduplicated"] == 1.0
    assert numbers["test_rows_repeated"] == numbers["test_rows_also_in_train"] == 4
    assert "without repeats: 20 test rows, each sequence once," in capsys.readouterr().out
    assert "| the same, without 4 rows that repeat others | 1.000 |" in (out / "model" / "README.md").read_text()


def test_a_loss_that_is_no_number_stops_after_its_epoch_and_the_last_good_checkpoint_stays(
    tables, tmp_path, monkeypatch, capsys
):
    import randommask.training.finetuning as finetuning

    learn, calls = finetuning._PoolingTrainer.compute_loss, []

    def broken(self, *inputs, **words):
        calls.append(1)
        return learn(self, *inputs, **words) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(finetuning._PoolingTrainer, "compute_loss", broken)
    out = tmp_path / "run"
    words = [
        "--dev",
        str(tables["dev"]),
        "--test",
        str(tables["test"]),
        "--k",
        "3",
        "--batch-size",
        "15",
        "--epochs",
        "2",
    ]
    assert main(["finetune", str(tables["train"]), *words, "--no-regressions", "--out", str(out)]) == 2
    assert "The dev loss is nan after step 8. The last good checkpoint is kept" in capsys.readouterr().err
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-00000004"]
    assert not (out / "result.json").exists()


def test_rows_without_a_kmer_are_counted(tables, tmp_path, capsys):
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("\n".join(["sequence,label", "AC,1", "GT,0", "A,1", *rows(9, 5)]))
    words = ["--dev", str(tables["dev"]), "--test", str(mixed), *QUICK, "--out", str(tmp_path / "run")]
    assert main(["finetune", str(tables["train"]), *words]) == 0
    printed = capsys.readouterr().out
    assert "3 test rows have fewer than 3 bases: the model sees nothing of them" in printed
    assert "train rows have fewer" not in printed


@pytest.mark.parametrize(
    ("predicted", "cell"),
    [([0, 0, 0, 0], "0.000, predicts one class only"), ([0, 1, 0, 1], "0.000"), ([0, 0, 1, 1], "1.000")],
)
def test_a_constant_prediction_is_said_beside_its_score(predicted, cell):
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()
    assert score_cell(score(logits, torch.tensor([0, 0, 1, 1]))) == cell


def test_a_run_that_predicts_one_class_says_so(tables, tmp_path, monkeypatch, capsys):
    import randommask.training.finetuning as finetuning

    monkeypatch.setattr(finetuning, "logits_of", lambda *_, **__: torch.tensor([[1.0, 0.0]] * 20))
    words = ["--dev", str(tables["dev"]), "--test", str(tables["test"]), *QUICK, "--out", str(tmp_path / "run")]
    assert main(["finetune", str(tables["train"]), *words]) == 0
    printed = capsys.readouterr().out
    assert printed.count("0.000, predicts one class only") == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_ends_with_the_same_bits(tables, tmp_path, monkeypatch, workers):
    # Labels swapped in the dev table: its loss rises as training goes on, so the first epoch is the one to keep over the stop.
    swapped = tmp_path / "swapped.csv"
    swapped.write_text("\n".join(["sequence,label", *rows(20, 1, first="0", second="1")]))
    words = [
        *("finetune", str(tables["train"]), "--dev", str(swapped), "--test", str(tables["test"])),
        *("--k", "3", "--batch-size", "8", "--epochs", "3", "--no-regressions"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*words, "--out", str(whole)]) == 0
    import randommask.training.finetuning as finetuning

    adopt = finetuning.adopt_folder

    def die_after(*args, step, **options):
        adopt(*args, step=step, **options)
        if step == 8:
            raise MemoryError("stands for a kill")

    monkeypatch.setattr(finetuning, "adopt_folder", die_after)
    with pytest.raises(MemoryError):
        main([*words, "--out", str(cut)])
    monkeypatch.setattr(finetuning, "adopt_folder", adopt)
    assert main(["finetune", "--resume", str(cut), "--workers", str(workers)]) == 0
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert result(whole) == result(cut)
    assert result(whole)["chosen_epoch"] == 1
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["MISSING.csv"], "MISSING.csv does not exist. Give the path of a CSV, TSV or parquet file."),
        (
            ["{columns}"],
            "no column 'sequence'; its header line has 'dna', 'y'. Name the column of sequences by --sequence-column",
        ),
        (["{labels}"], "labels.csv, line 3: the column 'label' is empty"),
        (["{protein}"], "protein.csv, line 2: 'L' is no letter of DNA"),
        (["{wide}"], "wide.csv, line 3: the row has 3 cells, but the header line has 2."),
        (["{bare}"], "bare.csv seems to be data; add a header line such as sequence,label."),
        (["{short}"], "short.csv: all sequences have fewer than 6 bases (the longest has 5), so none holds a 6-mer."),
        (["{train}", "--dev", "{short}"], "short.csv: all sequences have fewer than 6 bases (the longest has 5)"),
        (["{one}"], "All training rows have the label '1'. A classifier needs at least two labels."),
        (["{few}"], "2 distinct sequences cannot be divided into 3 parts"),
        (["{train}", "--test", "{other}"], "The test rows have the label '7', which no training row has"),
        (["{train}", "--model", "{folder}"], "which holds no config.json. Give the model/ folder of a pretraining run"),
        (["{train}", "--model", "{folder}", "--size", "base"], "--size is for training from scratch"),
        (["{train}", "--epochs", "2", "--steps", "3"], "--epochs is 2 and --steps is 3. Give one of them."),
        (
            ["{train}", "--task", "regression", "--test", "{words}"],
            "The test rows have the label 'high', but a regression needs",
        ),
        (["{one}", "--task", "regression"], "All training rows have the label '1'. A regression needs several."),
        (["{real}"], "1200 different labels"),
        (["--dropout", "1"], "1"),
        (["--learning-rat", "1"], "Did you mean --learning-rate"),
        (["--method", "dnabert"], "Here it is called --model"),
        (["--device", "abacus"], "--device is 'abacus'"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(tmp_path, capsys, words, sentence):
    contents = {
        "columns": "dna,y\nACGT,1\n",
        "labels": "sequence,label\nACGT,1\nACGT,\n",
        "protein": "sequence,label\nMKVLE,1\n",
        "wide": "sequence,label\nACGT,1\nACGT,1,0\n",
        "bare": "ACGTACGTAC,1\nACGT,0\n",
        "short": "\n".join(
            ["sequence,label", *(f"{line[: n % 5 + 1]},{line[-1]}" for n, line in enumerate(rows(40, 0)))]
        ),
        "one": "sequence,label\n" + "".join(f"{line.split(',')[0]},1\n" for line in rows(20, 0)),
        "few": "sequence,label\nACGT,1\nACGTT,0\nACGT,1\n",
        "train": "\n".join(["sequence,label", *rows(20, 0)]),
        "other": "\n".join(["sequence,label", *rows(20, 0, first="7")]),
        "words": "\n".join(["sequence,label", *rows(20, 0, first="high")]),
        "real": "\n".join(["sequence,label", *(f"{line.split(',')[0]},{n}.5" for n, line in enumerate(rows(1500, 0)))]),
    }
    files = {name: tmp_path / f"{name}.csv" for name in contents}
    for name, text in contents.items():
        files[name].write_text(text)
    files["folder"] = tmp_path / "folder"
    files["folder"].mkdir()
    out = tmp_path / "out"
    assert main(["finetune", *(word.format(**files) for word in words), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert not out.exists()


def test_a_regression_of_long_sequences_from_parquet(tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(4, (80, 700), generator=generator)
    sequences = ["".join("ACGT"[code] for code in row) for row in letters.tolist()]
    values = [10 + 0.1 * sum(letter in "GC" for letter in sequence[:5]) for sequence in sequences]
    parquet.write_table(pyarrow.table({"sequence": sequences, "label": values}), tmp_path / "t.parquet")
    out = tmp_path / "run"
    words = ["--task", "regression", "--k", "3", "--batch-size", "8", "--steps", "6"]
    assert main(["finetune", str(tmp_path / "t.parquet"), *words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "64 train rows have more than 510 tokens: cut into even pieces (up to 2), their logits averaged" in printed
    assert "Pearson r" in printed
    assert "ridge regression, letters by position" in printed
    numbers = result(out)
    assert numbers["mean_square_last"] < 1  # a model that predicts z values would be 100 off
    assert {"pearson_last", "pearson_chosen", "spearman_last", "pearson_positional_regression"} <= set(numbers)
    model = AutoModelForSequenceClassification.from_pretrained(out / "model")
    assert model.config.problem_type == "regression"
    assert model(torch.tensor([[2, 7, 9, 3]])).logits.item() == pytest.approx(10, abs=1)
    assert "# Regression of DNA sequences" in (out / "model" / "README.md").read_text()


def test_the_same_bases_side_by_side(tables, tmp_path):
    words = ["--dev", str(tables["dev"]), "--test", str(tables["test"]), *QUICK, "--no-overlap"]
    assert main(["finetune", str(tables["train"]), *words, "--out", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "model" / "tokenizer_config.json").read_text())
    assert config["overlap"] is False
