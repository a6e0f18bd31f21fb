"""`randommask observe` end to end: a finished run, one half way, one with torn checkpoints, other DNA, and every refusal."""

import json
import shutil

import pytest
import torch

from randommask import MaskedBert
from randommask.analysis.embeddings import kmer_rows, neighbour_purity
from randommask.commands import main
from randommask.models.presets import bert_config
from randommask.models.starts import start_weights

QUICK = ("--steps", "12", "--tokens", "24", "--k", "3", "--batch-size", "4", "--evaluation-windows", "8")
FIGURES = ["attention.png", "attention_over_training.png", "embeddings.png", "purity.png", "staircase.png"]


def dna(length, seed=0):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps that kept all four checkpoints."""
    folder = tmp_path_factory.mktemp("observe")
    genome = folder / "g.fa"
    genome.write_text("".join(f">r{i}\n{dna(400, i)}\n" for i in range(12)))
    words = ["--checkpoint-every", "3", "--keep-checkpoints", "20", "--start", "structured", "--seed", "4"]
    assert main(["pretrain", str(genome), *QUICK, *words, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy whose DNA is where it was."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def undrawn(monkeypatch):
    """No figures: most of a look's time, and one test has looked at them."""
    monkeypatch.setattr("randommask.commands.observe._figures", lambda *_, **__: [])


def observed(folder):
    return json.loads((folder / "observations.json").read_text())


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_looked_into_at_each_checkpoint(run, tmp_path, capsys):
    before = contents(run)
    out = tmp_path / "look"
    assert main(["observe", str(run), "--out", str(out), "--windows", "6"]) == 0
    printed = capsys.readouterr().out
    assert contents(run) == before
    assert sorted(path.name for path in (out / "figures").iterdir()) == FIGURES
    assert all((out / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in FIGURES)
    tables = printed.split("\nFigures")[0]
    assert max(map(len, tables.splitlines())) <= 80
    assert "Losses of different widths are not compared" in " ".join(tables.split())
    assert "One seed (4) says little." in tables
    assert "Missing" not in tables
    found = observed(out)
    assert [look["step"] for look in found["checkpoints"]] == [0, 3, 6, 9, 12]
    assert [look["width"] for look in found["checkpoints"]] == [3, 5, 9, 11, 11]
    assert [(phase["width"], phase["first"]) for phase in found["phases"]] == [(3, 0), (5, 1), (7, 3), (9, 5), (11, 8)]
    assert sum(phase["lines"] for phase in found["phases"]) == 12
    for phase in found["phases"]:
        assert phase["excess"] == pytest.approx(phase["closing"] - phase["floor"])
    assert found["levels"]["neighbours"]["purity"] == pytest.approx(9 / 63)
    for look in found["checkpoints"]:
        assert [row["width"] for row in look["held_out"]] == [3, 11]
        assert {len(heads) for heads in look["attention_by_layer_and_head"]["entropy"]} == {2}
    assert str(tmp_path) not in (out / "observations.json").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_start_is_made_again_and_the_last_checkpoint_is_the_model(run, tmp_path):
    assert main(["observe", str(run), "--windows", "6"]) == 0
    with_checkpoints = observed(run)
    model = MaskedBert(bert_config("tiny", k=3))
    start_weights(model, "structured", k=3, seed=4)
    expected = neighbour_purity(kmer_rows(model.get_input_embeddings().weight, k=3), k=3)
    assert tuple(with_checkpoints["checkpoints"][0]["neighbours"].values()) == tuple(expected)
    shutil.rmtree(run / "checkpoints")
    assert main(["observe", str(run), "--windows", "6", "--out", str(tmp_path / "two")]) == 0
    found = observed(tmp_path / "two")
    assert found["checkpoints"] == [with_checkpoints["checkpoints"][0], with_checkpoints["checkpoints"][-1]]
    assert "only 1 checkpoint is there (after 12 steps)" in found["missing"][0]


@pytest.mark.usefixtures("undrawn")
def test_a_run_half_way_says_what_is_missing(run, capsys):
    shutil.rmtree(run / "model")
    (run / "result.json").unlink()
    for step in (9, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    (run / "checkpoints" / "step-00000003" / "model.safetensors").write_bytes(b"torn")
    (run / "checkpoints" / "trainer").mkdir()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:6]) + lines[6][:9])
    assert main(["observe", str(run), "--windows", "6"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Missing: checkpoint step-00000003 is torn, altered or gone, and passed over." in printed
    assert "Missing: only 1 checkpoint is there (after 6 steps)" in printed
    assert "--keep-checkpoints 20` keeps more" in printed
    found = observed(run)
    assert [look["step"] for look in found["checkpoints"]] == [0, 6]
    assert [phase["closing"] is None for phase in found["phases"]] == [False, False, False, False, True]


def test_a_run_without_a_step_shows_its_start(run, capsys):
    for name in ("model", "checkpoints", "figures"):
        shutil.rmtree(run / name)
    for name in ("result.json", "metrics.jsonl", "split.json"):
        (run / name).unlink()
    assert main(["observe", str(run), "--windows", "6"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Missing: metrics.jsonl holds no line yet" in printed
    assert "Missing: no whole checkpoint is there yet: only the start is looked into." in printed
    assert [look["step"] for look in observed(run)["checkpoints"]] == [0]


@pytest.mark.usefixtures("undrawn")
def test_checkpoints_are_thinned_evenly_and_the_last_one_stays(run):
    assert main(["observe", str(run), "--windows", "6", "--checkpoints", "2"]) == 0
    assert [look["step"] for look in observed(run)["checkpoints"]] == [0, 6, 12]


@pytest.mark.usefixtures("undrawn")
def test_a_fixed_width_is_one_phase(run):
    config = json.loads((run / "config.json").read_text())
    config["options"] |= {"method": "dnabert", "widths": None, "milestones": None}
    (run / "config.json").write_text(json.dumps(config))
    assert main(["observe", str(run), "--windows", "6", "--checkpoints", "1"]) == 0
    found = observed(run)
    assert [(phase["width"], phase["lines"], phase["jump"]) for phase in found["phases"]] == [(3, 12, None)]
    assert [(look["step"], look["width"]) for look in found["checkpoints"]] == [(0, 3), (12, 3)]


@pytest.mark.usefixtures("undrawn")
def test_other_dna_and_dna_that_is_gone_or_changed(finished, tmp_path, capsys):
    genome, run = tmp_path / "g.fa", tmp_path / "run"
    genome.write_text("".join(f">r{i}\n{dna(400, i)}\n" for i in range(12)))
    shutil.copytree(finished, run)
    config = json.loads((run / "config.json").read_text())
    config["options"]["genome"] = [str(genome)]
    (run / "config.json").write_text(json.dumps(config))
    before = contents(run)
    genome.write_text(genome.read_text().replace("A", "C", 1))
    assert main(["observe", str(run)]) == 2
    assert "is not what" in (error := capsys.readouterr().err)
    assert "name DNA by --data" in error
    genome.unlink()
    assert main(["observe", str(run)]) == 2
    assert f"{genome} does not exist" in (error := capsys.readouterr().err)
    assert "Or name other DNA by --data." in error
    assert contents(run) == before
    other = tmp_path / "other.fa"
    other.write_text(f">o\n{dna(300, 99)}\n")
    assert main(["observe", str(run), "--data", str(other)]) == 0
    assert observed(run)["run"]["data"] == "other.fa"
    assert observed(run)["checkpoints"][-1]["held_out"][0]["ceiling"] is None


@pytest.mark.usefixtures("undrawn")
def test_weights_that_vanish_meanwhile_are_said(run, monkeypatch, capsys):
    def gone(folder, *args, **words):
        raise OSError(f"{folder} is gone")

    monkeypatch.setattr(MaskedBert, "from_pretrained", gone)
    assert main(["observe", str(run), "--windows", "6"]) == 0
    assert "Missing: the weights of step 3 cannot be read" in " ".join(capsys.readouterr().out.split())
    assert [look["step"] for look in observed(run)["checkpoints"]] == [0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RUN is missing. Give the folder of a run of `randommask pretrain`."),
        (["{folder}/nowhere"], "nowhere is no folder. Give the folder of a run of `randommask pretrain`."),
        (["{folder}"], "holds no config.json, so it is no run folder"),
        (["{tuned}"], "is a run of `randommask finetune`, not of `randommask pretrain`."),
        (["{run}", "--windows", "0"], "0"),
        (["{run}", "--picture", "umap"], "umap"),
        (["{run}", "--tsne"], "Here it is called --picture tsne."),
        (["{run}", "--out", "{file}"], "is a file. Name a folder."),
        (["{run}", "--data", "{file}"], "line 1: a FASTA file begins with '>'"),
        (["{run}", "--data", "{short}"], "No stretch without long runs of N has 3 bases"),
        (["{run}", "--device", "abacus"], "--device is 'abacus', which is no device"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(run, tmp_path, capsys, words, sentence):
    folder = tmp_path / "folder"
    tuned = tmp_path / "tuned"
    for one in (folder, tuned):
        one.mkdir()
    (tuned / "config.json").write_text(json.dumps({"package": "randommask", "command": "finetune", "options": {}}))
    (folder / "f.txt").write_text("letters\n")
    (folder / "short.fa").write_text(">s\nAC\n")
    places = {
        "folder": folder, "tuned": tuned, "run": run, "file": folder / "f.txt", "short": folder / "short.fa",
    }  # fmt: skip
    before = contents(tmp_path)
    assert main(["observe", *(word.format(**places) for word in words)]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert contents(tmp_path) == before
