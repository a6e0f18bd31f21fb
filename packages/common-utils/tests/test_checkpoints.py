"""Checkpoints are whole or passed over by name: torn at every length, altered, missing, foreign; faults at every operation."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from scarce_common_utils import checkpoints
from scarce_common_utils.checkpoints import (
    adopt_folder,
    checkpoint_step,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    verify,
)
from scarce_common_utils.errors import UserError


def save(folder: Path, step: int, **options: int) -> Path:
    return save_checkpoint(folder, step=step, state={"step": step, "weights": torch.full((3,), float(step))}, **options)


def test_round_trip_and_name(tmp_path):
    path = save(tmp_path, 1200)
    assert path.name == "step-00001200.pt"
    assert checkpoint_step(path) == 1200
    state = load_checkpoint(path)
    assert state["step"] == 1200
    assert torch.equal(state["weights"], torch.full((3,), 1200.0))


def test_digests_are_those_of_sha256sum(tmp_path):
    path = save(tmp_path, 3)
    expected = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  step-00000003.pt\n"
    assert (tmp_path / "step-00000003.sha256").read_text() == expected


def test_two_are_kept_and_nothing_is_left_aside(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000003.pt", "step-00000003.sha256", "step-00000004.pt", "step-00000004.sha256"]


def test_a_checkpoint_cut_at_any_length_is_named_and_the_older_used(tmp_path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    whole = newest.read_bytes()
    for length in range(0, len(whole), max(len(whole) // 60, 1)):
        newest.write_bytes(whole[:length])
        said: list[str] = []
        found = newest_checkpoint(tmp_path, said.append)
        assert found is not None
        assert found.name == "step-00000001.pt"
        assert len(said) == 1
        assert "step-00000002.pt is torn or altered" in said[0]


def test_a_flipped_bit_a_swapped_file_and_missing_digests_are_named(tmp_path):
    first, second = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    with pytest.raises(UserError, match=r"step-00000001\.pt is torn or altered"):
        load_checkpoint(first)
    torch.save({"step": 1, "weights": torch.zeros(3)}, first)
    first.replace(second)
    with pytest.raises(UserError, match="torn or altered"):
        verify(second)
    second.with_suffix(".sha256").unlink()
    with pytest.raises(UserError, match="has no digests beside it"):
        verify(second)
    assert newest_checkpoint(tmp_path / "b", lambda sentence: None) is None


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_only_plain_content_is_read_and_no_code_runs(tmp_path):
    path = tmp_path / "step-00000001.pt"
    torch.save({"object": Payload(tmp_path / "it ran")}, path)
    path.with_suffix(".sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        load_checkpoint(path)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("operation", ["fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_fault_at_any_operation_leaves_a_whole_checkpoint(tmp_path, monkeypatch, operation, number):
    save(tmp_path, 1)
    real, calls = getattr(os, operation), 0

    def faulty(*words):
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(28, "No space left on device")
        return real(*words)

    monkeypatch.setattr(checkpoints.os, operation, faulty)
    try:
        save(tmp_path, 2)
        failed = False
    except OSError:
        failed = True
    monkeypatch.undo()
    found = newest_checkpoint(tmp_path, lambda sentence: None)
    assert found is not None
    state = load_checkpoint(found)
    assert state["step"] in ((1, 2) if failed else (2,))
    assert torch.equal(state["weights"], torch.full((3,), float(state["step"])))
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_is_adopted_whole_and_verified_by_file(tmp_path):
    source = tmp_path / "checkpoint-7"
    (source / "inner").mkdir(parents=True)
    (source / "model.bin").write_bytes(b"model")
    (source / "inner" / "state.json").write_text("{}")
    path = adopt_folder(source, tmp_path / "checkpoints", step=7)
    assert path.name == "step-00000007"
    assert not source.exists()
    assert newest_checkpoint(tmp_path / "checkpoints", lambda sentence: None) == path
    (path / "model.bin").write_bytes(b"modem")
    with pytest.raises(UserError, match=r"model\.bin is torn or altered"):
        verify(path)
    (path / "model.bin").unlink()
    with pytest.raises(UserError, match=r"model\.bin is missing"):
        verify(path)


def test_digests_cannot_lead_out_of_the_folder(tmp_path):
    path = tmp_path / "step-00000001"
    path.mkdir()
    (tmp_path / "outside").write_text("x")
    (path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'x').hexdigest()}  ../outside\n")
    with pytest.raises(UserError, match="no digest of a file of this checkpoint"):
        verify(path)


def test_wrong_values_are_named(tmp_path):
    with pytest.raises(ValueError, match="-3"):
        save(tmp_path, -3)
    with pytest.raises(ValueError, match="keep is 0"):
        save(tmp_path, 1, keep=0)
    with pytest.raises(ValueError, match=r"model\.pt"):
        checkpoint_step(Path("model.pt"))
