"""The fault suite's own eyes: what it compares, each thing changed once and seen; a row that passes, and one with a fault planted."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from faults.__main__ import closing_table, row_over, run_suite
from faults.bench import Bench, Row, checkpoints
from faults.comparing import differences, tree
from faults.jobs import JOBS, words_of
from faults.rows import torn
from imwa.commands import main
from scarce_common_utils.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of imwa's job, by its own words."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    words = words_of(JOBS["imwa"], 0, images=lambda: folder)
    assert main([*words, "--out", str(folder)]) == 0
    return folder


def edit(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def cut_last_line(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")


def change_a_number(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[1]["loss"] += 1e-12
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def flip_a_weight(run):
    path = run / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def move_the_state(run):
    path = checkpoints(run)[-1]
    state = torch.load(path, weights_only=True)
    state["moved"] = torch.zeros(1)
    torch.save(state, path)


CHANGES = {
    "metrics line 2": change_a_number,
    "lines of metrics": cut_last_line,
    "model/model.safetensors": flip_a_weight,
    "state (keys)": move_the_state,
    "split.json": lambda run: edit(run / "split.json", lambda content: content | {"more": 1}),
    "result.json": lambda run: edit(run / "result.json", lambda content: content | {"digest": "other"}),
    "newest checkpoints": lambda run: checkpoints(run)[-1].rename(run / "checkpoints" / "step-99999999.pt"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_seen(run, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert differences(run, copy) == []
    CHANGES[name](copy)
    assert name in " ".join(differences(run, copy))


def test_timings_and_places_are_no_differences(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    edit(copy / "result.json", lambda content: content | {"seconds": 1e9})
    edit(copy / "config.json", lambda content: content | {"options": content["options"] | {"out": "elsewhere"}})
    assert differences(run, copy) == []


def test_the_lock_is_no_file_of_the_run(run):
    assert (run / ".lock").is_file()
    assert ".lock" not in tree(run)


class Finished(Bench):
    """A bench whose whole run is there already."""

    def __init__(self, run: Path, scratch: Path) -> None:
        super().__init__(JOBS["imwa"], scratch)
        self._whole[0] = (run, 1.0)


@pytest.mark.parametrize("number", [1, 2])
def test_flips_and_cuts_of_a_checkpoint_are_all_refused(run, tmp_path, monkeypatch, number):
    monkeypatch.setattr(torn, "FLIPS_A_CASE", 10)
    monkeypatch.setattr(torn, "CUTS_A_CASE", 10)
    bench = Finished(run, tmp_path)
    assert torn.case(bench, number) == []
    # The planted fault: a reader that takes what is newest, whole or not.
    monkeypatch.setattr(torn, "newest_checkpoint", lambda folder, said: checkpoints(folder.parent)[-1])
    found = torn.case(bench, number)
    assert found
    assert all("loaded in silence" in sentence for sentence in found)


def test_counts_and_the_closing_table(run, tmp_path, capsys):
    class Words:
        size, begin, cases = "small", 0, 3

    row = Row(99, "of this test", lambda bench, size: 5, lambda bench, number: ["wrong"] if number == 1 else [])
    counts = row_over(Finished(run, tmp_path), row, Words())
    assert (counts["cases"], counts["faults"]) == (3, 1)
    assert counts["found"] == ["row 99, imwa, case 1: wrong"]
    assert "row 99, imwa, case 1: wrong" in capsys.readouterr().err
    table = closing_table([counts, counts | {"package": "layermatch", "faults": 0}])
    assert table.splitlines()[-1].split()[:1] == ["99"]
    assert " 6 " in table
    assert " 1 " in table


def test_unknown_rows_and_packages_are_named(tmp_path):
    from faults.__main__ import FaultsConfig

    with pytest.raises(UserError, match="--rows is 77; there are 1, 2, 3, 7, 10, 11, 12"):
        run_suite(FaultsConfig(rows=(77,), scratch=tmp_path))
    with pytest.raises(UserError, match="--packages is otherone; there are layermatch, imwa, randommask"):
        run_suite(FaultsConfig(packages=("otherone",), scratch=tmp_path))
