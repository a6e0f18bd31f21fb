"""`layermatch show` on two real tiny runs, one of them without its end."""

import json

import pytest

from layermatch.commands import main, outcome


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    words = ["--labels-per-class", "2", "--batch-size", "4", "--steps", "4", "--tracker", "none", "--model", "cnn"]
    with pytest.MonkeyPatch.context() as patched:  # no figure is looked at here
        patched.setattr(outcome, "draw_figures", lambda *args, **options: [])
        patched.setattr(outcome, "draw_views", lambda *args, **options: None)
        for method in ("fixmatch", "supervised"):
            assert main(["train", "digits", *words, "--method", method, "--out", str(folder / method)]) == 0
    (folder / "supervised" / "result.json").unlink()
    return folder / "fixmatch", folder / "supervised"


def test_the_table_has_what_differs_and_nothing_else(runs, capsys):
    assert main(["show", *map(str, runs)]) == 0
    printed = capsys.readouterr().out
    legend, table, _ = printed.split("\n\n")
    assert legend == f"1  {runs[0]}\n2  {runs[1]}"
    rows = {line[:28].strip(): line[28:].split() for line in table.splitlines()}
    assert rows["state"] == ["finished", "stopped"]
    assert rows["--method"] == ["fixmatch", "supervised"]
    assert rows["steps done"] == ["4", "4"]
    assert rows["--threshold"] == ["0.95", "-"]
    assert not {"--seed", "--out", "--model", "--steps"} & rows.keys()
    result = json.loads((runs[0] / "result.json").read_text())["numbers"]
    assert rows["best_accuracy %"] == [f"{result['best_accuracy']:.4g}", "-"]
    last = [json.loads(line) for run in runs for line in (run / "metrics.jsonl").read_text().splitlines()[-1:]]
    assert rows["last accuracy"] == [f"{line['accuracy']:.4g}" for line in last]
    assert not any(name.startswith("last used_of") for name in rows)
    assert "Options that differ are listed, and these alone." in printed


def test_as_json(runs, capsys):
    assert main(["show", *map(str, runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in found["runs"]] == ["finished", "stopped"]
    assert "method" in found["differing_options"]
    assert found["runs"][0]["options"]["method"] == "fixmatch"
    assert found["runs"][0]["seconds"] > 0
    assert found["runs"][1]["numbers"] == {}
    assert found["runs"][1]["last"]["loss"] > 0


def test_many_runs_stand_in_several_tables_of_80_columns(runs, capsys):
    assert main(["show", *[str(runs[0])] * 9]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(runs[0]), "RUN").splitlines())) <= 80
    heads = [line.split() for line in printed.splitlines() if line.replace(" ", "").isdigit()]
    assert [number for head in heads for number in head] == list("123456789")
    assert len(heads) > 1
    assert "No option differs." in printed


def test_errors_are_sentences(runs, tmp_path, capsys):
    assert main(["show"]) == 2
    assert "RUN is missing. Give the folders of runs: layermatch show RUN RUN ..." in capsys.readouterr().err
    assert main(["show", str(runs[0]), str(tmp_path)]) == 2
    assert f"{tmp_path} holds no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"package": "randommask", "command": "pretrain", "options": {}}))
    assert main(["show", str(tmp_path)]) == 2
    assert "is a run of `randommask pretrain`. Look at it with `randommask show`" in capsys.readouterr().err
