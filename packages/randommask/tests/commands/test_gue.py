"""`randommask gue` end to end on made tables: records, a later run that does the missing ones, one table."""

import gzip
import json

import pytest
import torch

from randommask.commands import main
from randommask.commands.launch import open_run
from randommask.training.processes import Processes
from scarce_common_utils.errors import UserError
from scarce_common_utils.run_folder import RunFolder

WORDS = ("--steps", "6", "--k", "3", "--batch-size", "4", "--learning-rate", "1e-3")


@pytest.fixture
def gue(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for task, stems in (("mouse/2", ("train", "dev", "test")), ("EMP/H4", ("dev", "test"))):
        (tmp_path / "GUE" / task).mkdir(parents=True)
        for stem in stems:
            letters = torch.randint(4, (24, 20), generator=generator).tolist()
            rows = ["".join("ACGT"[code] for code in row) + f",{number % 2}\n" for number, row in enumerate(letters)]
            path = tmp_path / "GUE" / task / f"{stem}.csv.gz"
            path.write_bytes(gzip.compress(("sequence,label\n" + "".join(rows)).encode()))
    return tmp_path / "GUE"


def test_seeds_records_and_one_table(gue, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["gue", "--data", str(gue), "--seeds", "1", *WORDS, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "left out, having no train file: EMP/H4" in captured.err
    assert "mouse/2" in captured.out
    assert "EMP/H4" not in captured.out
    first = (out / "records" / "gue-mouse-2" / "scratch" / "seed-000.json").read_text()
    assert main(["gue", "--resume", str(out), "--seeds", "2", "--reduced"]) == 0
    printed = capsys.readouterr().out
    assert "EMP/H4 (reduced)" in printed
    assert (out / "records" / "gue-mouse-2" / "scratch" / "seed-000.json").read_text() == first
    found = sorted(path.relative_to(out / "records").as_posix() for path in (out / "records").rglob("*.json"))
    assert found == [
        f"gue-{task}/{arm}.json"
        for task in ("EMP-H4", "mouse-2")
        for arm in ("kmer-regression/seed-000", "scratch/seed-000", "scratch/seed-001")
    ]
    numbers = json.loads(first)["numbers"]
    assert numbers["test_rows"] == 24
    assert {"score", "score_last", "score_deduplicated", "test_rows_repeated"} <= set(numbers)
    assert "| EMP/H4 (reduced) |" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--data is missing. Give the folder of GUE"),
        (["--data", "{gue}", "--tasks", "mouse/9"], "'mouse/9', which is no task of GUE"),
        (["--data", "{gue}", "--model", "{gue}"], "which holds no config.json"),
        (["--data", "{gue}", "--model", "{gue}", "--k", "3"], "--k is for training from scratch"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(gue, tmp_path, capsys, words, sentence):
    out = tmp_path / "out"
    assert main(["gue", *(word.format(gue=gue) for word in words), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


def test_another_process_makes_no_folder_and_ends_as_the_first_does(gue, tmp_path, monkeypatch, capsys):
    # What the first process tells, as the broadcast would bring it.
    other = Processes(rank=1, count=2)
    told = RunFolder(tmp_path / "out", package="randommask", command="gue", config={})
    monkeypatch.setattr(Processes, "shared", lambda self, value: told)
    assert open_run(None, other, make=lambda: pytest.fail("the first process makes it")).path == tmp_path / "out"
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Processes, "shared", lambda self, value: UserError("it already holds files"))
    with pytest.raises(UserError, match="already holds files"):
        open_run(None, other, make=lambda: pytest.fail("the first process makes it"))
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit, match="2"):
        main(["gue", "--data", str(tmp_path / "none")])
    assert capsys.readouterr() == ("", "")
