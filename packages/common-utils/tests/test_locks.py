"""One writer at a time: who is refused, who is named, and what becomes of a lock whose holder was killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scarce_common_utils.errors import UserError
from scarce_common_utils.locks import HOLDER, hold
from scarce_common_utils.run_folder import RunFolder

HOLDS = """
import sys
from pathlib import Path
from scarce_common_utils.locks import hold
taken = hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    child = holding(tmp_path)
    try:
        with pytest.raises(UserError, match=rf"is in use: process {child.pid}, since \d{{4}}-.* writes into it"):
            hold(tmp_path)
    finally:
        child.kill()
        child.communicate()


def test_the_lock_of_a_killed_process_is_taken(tmp_path: Path) -> None:
    child = holding(tmp_path)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert json.loads((tmp_path / HOLDER).read_text())["process"] == child.pid
    taken = hold(tmp_path)
    assert json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()
    taken.release()
    assert not (tmp_path / HOLDER).exists()


def test_a_released_folder_is_free_also_in_the_same_process(tmp_path: Path) -> None:
    first = hold(tmp_path)
    with pytest.raises(UserError, match="is in use"):
        hold(tmp_path)
    first.release()
    first.release()
    hold(tmp_path).release()


def test_a_holder_that_cannot_be_read_is_another_process(tmp_path: Path) -> None:
    first = hold(tmp_path)
    for content in ("", "no json", '{"process": "x"}', "[]"):
        (tmp_path / HOLDER).write_text(content)
        with pytest.raises(UserError, match="is in use: another process writes into it"):
            hold(tmp_path)
    first.release()


def test_only_the_main_process_of_a_company_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hold(tmp_path)
    monkeypatch.setenv("RANK", "1")
    hold(tmp_path).release()
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="is in use"):
        hold(tmp_path)
    first.release()


@pytest.mark.skipif(os.name == "nt", reason="permissions of folders are others on Windows")
def test_a_folder_that_cannot_be_written_into_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)  # root writes anywhere, so that permissions alone prove nothing
    with pytest.raises(UserError, match=r"cannot be written into \(Permission denied\)"):
        hold(tmp_path)
    monkeypatch.undo()
    hold(tmp_path).release()


def test_a_run_holds_its_folder_from_its_making_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder.create(folder, default_name="x", package="scarce-common-utils", command="c", config={}) as run:
        other = RunFolder.reopen(folder, package="scarce-common-utils", command="c")  # to read is free
        with pytest.raises(UserError, match="is in use"):
            other.hold()
        run.hold()  # what holds already
    other.hold()
    other.close()


def test_runs_without_a_name_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        RunFolder.create(None, default_name="x", package="scarce-common-utils", command="c", config={})
        for _ in range(3)
    ]
    assert [run.path.name for run in runs] == ["x", "x-2", "x-3"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out is file/run, which cannot be made \(Not a directory\)"):
        RunFolder.create(Path("file/run"), default_name="x", package="scarce-common-utils", command="c", config={})
