"""A run folder names no home, user, host or path, but in the config.json that `--resume` needs; its files say where they come from."""

import json
import socket
from importlib import import_module
from pathlib import Path

import numpy
import pytest
from PIL import Image

HOST, USER, PLACE = "zz-host-of-ours", "zz-user-of-ours", "zz-folder-of-ours"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, in a home of its own, with pictures, DNA and a table below it."""
    home = tmp_path / USER
    folder = home / PLACE
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    for name, value in {"HOME": home, "USER": USER, "LOGNAME": USER, "HOSTNAME": HOST}.items():
        monkeypatch.setenv(name, str(value))
    generator = numpy.random.default_rng(0)
    for number in range(24):
        path = folder / "photos" / ("otter", "seal")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=numpy.uint8)).save(path)
    letters = "".join(generator.choice(list("ACGT"), 4000))
    (folder / "dna.fa").write_text(f">one\n{letters}\n")
    rows = [f"{letters[start : start + 20]},{'ab'[start % 2]}" for start in range(0, 1600, 21)]
    (folder / "rows.csv").write_text("\n".join(["sequence,label", *rows]))
    return folder


TRAIN = {
    "layermatch": [
        *("train", "{place}/photos", "--labels-per-class", "2", "--model", "cnn", "--steps", "2", "--batch-size", "2"),
        *("--device", "cpu", "--threads", "1"),
    ],
    "imwa": [
        *("train", "{place}/photos", "--replicas", "2", "--episodes", "1", "--steps", "2", "--batch-size", "4"),
        *("--device", "cpu", "--threads", "1", "--no-diagnostics"),
    ],
    "randommask": [
        *("pretrain", "{place}/dna.fa", "--steps", "2", "--tokens", "16", "--batch-size", "2", "--k", "3", "--device", "cpu"),
        *("--evaluation-windows", "8"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("package", list(TRAIN))
def test_a_run_names_no_machine_and_says_where_it_comes_from(package, place, capsys):
    words = [word.replace("{place}", str(place)) for word in TRAIN[package]]
    run = place / "run"
    assert run_command(package, [*words, "--out", str(run)]) == 0
    if package == "randommask":  # a model that began as a folder of this machine
        more = ["finetune", str(place / "rows.csv"), "--model", str(run / "model"), "--steps", "2", "--no-regressions"]
        assert run_command(package, [*more, "--device", "cpu", "--out", str(place / "tuned")]) == 0
        look(place / "tuned", line=f"{package} finetune rows.csv --model model --steps 2", tmp=place.parent.parent)
    look(run, line=f"{package} {words[0]} {Path(words[1]).name} ", tmp=place.parent.parent)


def run_command(package: str, words: list[str]) -> int:
    return import_module(f"{package}.commands").main(words)


def look(run: Path, *, line: str, tmp: Path) -> None:
    """Search every file of a run, its name too; and look for the line in the record, the card and each picture."""
    files = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".png" for path in files)
    for path in files:
        name = path.relative_to(run).as_posix()
        for word in (HOST, USER, PLACE, tmp.name):
            assert word not in name
            if name != "config.json":
                assert word.encode() not in path.read_bytes(), f"{name} names {word}"
    record = json.loads((run / "result.json").read_text())
    card = (run / "model" / "README.md").read_text()
    texts = [Image.open(path).text for path in files if path.suffix == ".png"]
    assert record["command_line"].startswith(line)
    assert f"| command | `{record['command_line']}` |" in card
    assert f"| data digest | `{record['data_digest']}` |" in card
    assert len(record["data_digest"]) == 16
    for text in texts:
        assert (text["Command"], text["Data digest"]) == (record["command_line"], record["data_digest"])
        assert "torch" in text["Versions"]
