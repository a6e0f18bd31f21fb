"""The fault suite's own eyes: what it compares, each thing changed once and seen; a row that passes, and one with a fault planted."""

import errno
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from faults.__main__ import FaultsConfig, main, row_over, run_suite
from faults.bench import Bench, Row, checkpoints
from faults.children import Ended
from faults.comparing import differences, tree
from faults.jobs import JOBS, SHARED, words_of
from faults.parts import add_up, closing_table
from faults.rows import failing_files, golden, torn
from imwa.commands import main as imwa
from scarce_common_utils.checkpoints import newest_checkpoint, save_checkpoint
from scarce_common_utils.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of imwa's job, by its own words."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    words = words_of(JOBS["imwa"], 0, images=lambda: folder)
    assert imwa([*words, "--out", str(folder)]) == 0
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


def counts_of(run, tmp_path, *, begin, found=()):
    row = Row(99, "of this test", lambda bench, size: 5, lambda bench, number: list(found) if number == 1 else [])
    return row_over(Finished(run, tmp_path), row, FaultsConfig(begin=begin, cases=3))


def test_counts_and_the_closing_table(run, tmp_path, capsys):
    counts = counts_of(run, tmp_path, begin=0, found=[f"wrong in {tmp_path}/x"])
    assert (counts["cases"], counts["of"], counts["faults"], counts["parts"]) == (3, 5, 1, [[0, 3]])
    assert counts["found"] == ["row 99, imwa, case 1: wrong in .../x"]  # no folder of this machine goes into a record
    assert "row 99, imwa, case 1: wrong" in capsys.readouterr().err
    table = closing_table([counts, counts | {"package": "layermatch", "faults": 0}])
    assert table.splitlines()[-1].split()[:1] == ["99"]
    assert table.splitlines()[-1].split()[4:7] == ["6", "10", "1"]


def test_parts_add_up_and_none_counts_twice(run, tmp_path):
    files = []
    for begin in (3, 0):
        files.append(tmp_path / f"{begin}.json")
        files[-1].write_text(json.dumps([counts_of(run, tmp_path, begin=begin, found=["wrong"])]))
    (total,) = add_up(files)
    assert (total["cases"], total["faults"], total["parts"], len(total["found"])) == (5, 1, [[0, 5]], 1)
    assert (
        main(["--add", *map(str, files), "--json", str(tmp_path / "records" / "all.json")]) == 2
    )  # for the fault in it
    assert json.loads((tmp_path / "records" / "all.json").read_text())[0]["cases"] == 5
    with pytest.raises(UserError, match=r"3.json: row 99, imwa, small: case 3 was counted in another part too"):
        add_up([*files, files[0]])
    files[0].write_text("[{}]")
    with pytest.raises(UserError, match=r"3.json does not hold counts of the fault suite"):
        add_up(files)


def test_unknown_rows_and_packages_are_named(tmp_path, capsys):
    with pytest.raises(UserError, match="--rows is 77; there are 1, 2"):
        run_suite(FaultsConfig(rows=(77,), scratch=tmp_path))
    assert main(["--packages", "otherone", "--from", "200", "--cases", "100"]) == 2
    assert "--packages is otherone; there are layermatch, imwa, randommask" in capsys.readouterr().err


def test_what_the_parent_imports_is_there():
    # The fork server passes over a name that is gone, and every child would import the rest anew.
    names = {name for job in JOBS.values() for name in job.loads} | set(SHARED)
    assert [name for name in names if importlib.util.find_spec(name) is None] == []


class Repeated(Bench):
    """A bench whose every run is a copy of one, changed by `change`."""

    def __init__(self, run: Path, scratch: Path, change=lambda folder: None) -> None:
        super().__init__(JOBS["imwa"], scratch, every_shell=False)
        self.original, self.change = run, change

    def run(self, words, *, fault=None):
        shutil.copytree(self.original, words[-1])
        self.change(Path(words[-1]))
        return Ended(0, "", 0.0)


def test_a_change_of_the_bits_is_told_with_its_first_step(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    assert golden.case(Repeated(run, tmp_path / "scratch" / "imwa"), 0) == []  # nothing is known yet
    golden.keep(tmp_path / "scratch")
    assert golden.case(Repeated(run, tmp_path / "imwa"), 0) == []
    step = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["step"]
    key = golden.key_of_machine()
    assert golden.case(Repeated(run, tmp_path / "imwa", change_a_number), 0) == [
        f"departs at step {step} from those kept for {key}"
    ]
    assert "other weights" in golden.case(Repeated(run, tmp_path / "imwa", flip_a_weight), 0)[0]
    assert "lines of metrics in place of" in golden.case(Repeated(run, tmp_path / "imwa", cut_last_line), 0)[0]
    monkeypatch.setattr(golden, "key_of_machine", lambda: "another processor")
    assert golden.case(Repeated(run, tmp_path / "imwa", change_a_number), 0) == []  # reported, and nothing fails
    assert f"this run departs at step {step} from those of {key}" in capsys.readouterr().err


def saved_under(tmp_path, place, number, *, counted=None):
    """Two checkpoints saved in a forked process with a fault planted; how it ended."""
    folder = tmp_path / f"run-{place}-{number}"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            failing_files.plant(str(folder), place, number, counted=counted, whole_run=False)
            for step in (1, 2):
                save_checkpoint(folder / "checkpoints", step=step, state={"step": step})
            code = 0
        except OSError as error:
            code = 2 if str(folder) in str(error.filename) else 3
        finally:
            os._exit(code)
    return folder / "checkpoints", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the suite forks its children")
def test_each_operation_of_a_save_can_be_made_to_fail(tmp_path):
    file = tmp_path / "operations.txt"
    assert saved_under(tmp_path, -1, 0, counted=str(file))[1] == 0
    names = [line.split()[0] for line in file.read_text().splitlines()]
    assert {"open", "write", "fsync", "os.rename"} <= set(names)
    for place, name in enumerate(names):
        for number, codes in (
            (errno.ENOSPC, (0,) if name == "os.mkdir" else (2,)),
            (0, (-9,)),
        ):  # the folder is there already
            folder, ended = saved_under(tmp_path, place, number)
            assert ended in codes, (name, number)
            assert newest_checkpoint(folder, lambda sentence: None) is not None
