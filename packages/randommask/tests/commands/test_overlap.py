"""`randommask overlap` end to end: pairs of fine-tunings, taken up again, and the differences by hand."""

import itertools
import json
import math
import statistics

import pytest
import torch

from randommask import KmerTokenizer, MaskedBert
from randommask.analysis.overlap_report import comparison, comparison_text
from randommask.commands import main
from randommask.models.presets import bert_config
from scarce_common_utils.records import Record, write_record

QUICK = ("--k", "3", "--steps", "3", "--batch-size", "8")


@pytest.fixture
def table(tmp_path):
    letters = torch.randint(4, (60, 30), generator=torch.Generator().manual_seed(0)).tolist()
    rows = ["".join("ACGT"[code] for code in row) for row in letters]
    path = tmp_path / "t.csv"
    path.write_text("sequence,label\n" + "".join(f"{row},{row.count('A') > 7}\n" for row in rows))
    return path


@pytest.fixture
def pretended(monkeypatch):
    """Fine-tunings that only write what a real one leaves; returns the options of those that ran."""
    ran = []

    def finetune(config):
        ran.append(config)
        out = config.out or config.resume
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text("{}")
        score = (7 * config.seed % 5 + 3 * bool(config.overlap) + (config.steps or 0)) / 20
        numbers = {"mcc_last": score, "mcc_chosen": score**2}
        write_record(out / "result.json", Record(experiment="x", arm="scratch", seed=config.seed, numbers=numbers))

    monkeypatch.setattr("randommask.commands.overlap.finetune", finetune)
    return ran


def result(run, arm, seed):
    return json.loads((run / "runs" / arm / f"seed-{seed:03d}" / "result.json").read_text())["numbers"]


def test_pairs_over_seeds_and_their_differences(table, tmp_path, capsys, pretended):
    out = tmp_path / "out"
    assert main(["overlap", str(table), *QUICK, "--seeds", "2", "--seed", "5", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert max(map(len, captured.out.split("\nFigure")[0].splitlines())) <= 80
    assert "2 seeds, paired" in captured.out
    assert "MCC, last epoch" in captured.out
    assert captured.err.count("mcc_last") == 6
    found = json.loads((out / "comparison.json").read_text())
    assert found["seeds"] == [5, 6]
    assert found["tokens_of_train_rows"] == {"overlapping": 48 * 30, "side-by-side": 48 * 12}
    for other, number in itertools.product(("side-by-side", "equal-tokens"), ("mcc_last", "mcc_chosen")):
        pairs = [result(out, "overlapping", seed)[number] - result(out, other, seed)[number] for seed in (5, 6)]
        difference = found["differences_to"][other][number]
        assert difference["mean"] == pytest.approx(statistics.fmean(pairs))
        assert difference["half_width"] == pytest.approx(12.706 * statistics.stdev(pairs) / math.sqrt(2))
    more = round(3 * 30 / 12)
    assert [(config.seed, config.overlap, config.steps) for config in pretended] == [
        (5, True, 3), (5, False, 3), (5, False, more), (6, True, 3), (6, False, 3), (6, False, more),
    ]  # fmt: skip
    assert (out / "figures" / "overlap.png").read_bytes().startswith(b"\x89PNG")


def test_epochs_grow_where_there_are_no_steps(table, tmp_path, pretended):
    line = ["overlap", str(table), "--k", "3", "--epochs", "2", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main(line) == 0
    assert [(config.epochs, config.steps) for config in pretended] == [(2, None), (2, None), (5, None)]


def test_a_stopped_comparison_does_only_what_is_missing(table, tmp_path, capsys, pretended):
    out = tmp_path / "out"
    words = ["overlap", str(table), *QUICK, "--seeds", "1", "--no-equal-tokens", "--out", str(out)]
    assert main(words) == 0
    assert "One seed gives no interval and supports no claim" in capsys.readouterr().out
    before = (out / "comparison.json").read_text()
    (out / "runs" / "side-by-side" / "seed-000" / "result.json").unlink()
    pretended.clear()
    assert main(["overlap", "--resume", str(out)]) == 0
    assert [(config.overlap, config.out, config.resume) for config in pretended] == [
        (False, None, out / "runs" / "side-by-side" / "seed-000")
    ]
    assert (out / "comparison.json").read_text() == before
    pretended.clear()
    assert main(["overlap", "--resume", str(out), "--seeds", "2"]) == 0
    assert [(config.seed, config.overlap) for config in pretended] == [(1, True), (1, False)]
    assert json.loads((out / "comparison.json").read_text())["seeds"] == [0, 1]
    capsys.readouterr()
    assert main(["overlap", "--resume", str(out), "--steps", "9"]) == 2
    assert "--steps is 9, but the run to resume has 3" in capsys.readouterr().err


def test_a_second_model_makes_two_by_two(table, tmp_path, capsys, pretended):
    folders = {}
    for name, overlap in (("first", True), ("second", False)):
        folders[name] = tmp_path / name / "model"
        MaskedBert(bert_config("tiny", k=3, positions=64)).save_pretrained(folders[name])
        KmerTokenizer(k=3, overlap=overlap).save_pretrained(folders[name])
    out = tmp_path / "out"
    models = ("--model", str(folders["first"]), "--other-model", str(folders["second"]))
    assert main(["overlap", str(table), *models, "--steps", "3", "--seeds", "2", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "among the runs of the other model, second, pretrained with k-mers side by side:" in printed
    assert [(config.seed, config.model, config.overlap) for config in pretended] == [
        (seed, folders[name], way) for seed in (0, 1) for name in ("first", "second") for way in (True, False, False)
    ]
    found = json.loads((out / "comparison.json").read_text())
    arms = ["side-by-side", "equal-tokens", "other-overlapping", "other-side-by-side", "other-equal-tokens"]
    assert list(found["differences_to"]) == arms
    other = found["other_model"]
    assert other["arm"] == "other-overlapping"
    assert list(other["differences_to"]) == arms[3:]
    pairs = [
        result(out, "other-overlapping", s)["mcc_last"] - result(out, "other-side-by-side", s)["mcc_last"]
        for s in (0, 1)
    ]
    assert other["differences_to"]["other-side-by-side"]["mcc_last"]["mean"] == pytest.approx(statistics.fmean(pairs))
    assert found["tokens_of_train_rows"] == other["tokens_of_train_rows"]


def test_real_runs_share_their_split_and_differ_in_their_tokens(table, tmp_path, capsys):
    folder, out = tmp_path / "first" / "model", tmp_path / "out"
    MaskedBert(bert_config("tiny", k=3, positions=64)).save_pretrained(folder)
    KmerTokenizer(k=3, overlap=False).save_pretrained(folder)
    line = ["overlap", str(table), "--model", str(folder), "--steps", "1", "--seeds", "1", "--no-equal-tokens"]
    assert main([*line, "--out", str(out)]) == 0
    assert "first, pretrained with k-mers side by side" in " ".join(capsys.readouterr().out.split())
    runs = [out / "runs" / arm / "seed-000" for arm in ("overlapping", "side-by-side")]
    assert (runs[0] / "split.json").read_text() == (runs[1] / "split.json").read_text()
    assert [KmerTokenizer.from_pretrained(run / "model").overlap for run in runs] == [True, False]
    for run, arm in zip(runs, ("overlapping", "side-by-side"), strict=True):
        assert set(result(out, arm, 0)) >= {"mcc_last", "mcc_chosen"}
        assert (run / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{table}", "--overlap"], "--overlap is for `randommask finetune`; here both ways are run. Leave it out."),
        (["{table}", "--no-overlap"], "--no-overlap is for `randommask finetune`"),
        (["{table}", "--seeds", "0"], "0"),
        (["{folder}/none.csv"], "none.csv does not exist"),
        (["{table}", "--model", "{folder}"], "which holds no config.json"),
        (["{table}", "--lr", "1"], "Here it is called --learning-rate."),
        (["{short}"], "all sequences have fewer than 6 bases"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(table, tmp_path, capsys, words, sentence):
    short = tmp_path / "short.csv"
    short.write_text(
        "sequence,label\n" + "".join(f"{row[:5]},{at % 2}\n" for at, row in enumerate(table.read_text().split()[1:]))
    )
    out = tmp_path / "out"
    places = {"table": table, "folder": tmp_path, "short": short}
    assert main(["overlap", *(word.format(**places) for word in words), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not out.exists()


def test_a_regression_is_compared_by_its_correlation():
    records = [
        Record(experiment="x", arm=arm, seed=seed, numbers={"pearson_last": value, "pearson_chosen": value})
        for arm, seed, value in (("a", 0, 0.5), ("b", 0, 0.25), ("a", 1, 0.75), ("b", 1, 0.5))
    ]
    found = comparison(records, arm="a")
    assert found["differences_to"]["b"]["pearson_last"]["mean"] == 0.25
    assert found["differences_to"]["b"]["pearson_last"]["half_width"] == 0.0
    text = comparison_text(found)
    assert "Pearson r, last epoch" in text
    assert "a - b" in text
    assert "+0.250 ± 0.000" in text
