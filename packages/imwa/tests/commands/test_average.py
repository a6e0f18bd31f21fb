"""`imwa average` end to end."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from imwa.commands import main


@pytest.fixture
def files(tmp_path):
    for name, value in (("a", 1.0), ("b", 4.0)):
        save_file({"w": torch.full((2, 2), value), "n": torch.tensor(int(value))}, tmp_path / f"{name}.safetensors")
    return [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]


@pytest.mark.parametrize("flag", ["-o", "--output"])
def test_it_writes_the_mean(files, tmp_path, capsys, flag):
    output = tmp_path / "c.safetensors"
    assert main(["average", *files, flag, str(output)]) == 0
    assert load_file(output)["w"].tolist() == [[2.5, 2.5]] * 2
    assert load_file(output)["n"].item() == 4
    assert f"{output}: mean of 2 files, 2 tensors." in capsys.readouterr().out
    output.unlink()
    assert main(["average", *files, flag, str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"output": str(output), "files": files, "tensors": 2, "tied": {}}


def test_ties_are_named(files, tmp_path, capsys):
    save_file({"w": torch.ones(2, 2), "tied": torch.ones(2, 2), "n": torch.tensor(2)}, files[0])
    assert main(["average", *files, "-o", str(tmp_path / "c.safetensors")]) == 0
    assert "tied (tied to w)" in capsys.readouterr().out


def test_each_mistake_is_one_sentence_and_exit_code_2(files, tmp_path, capsys):
    output = str(tmp_path / "c.safetensors")
    save_file({"w": torch.full((2, 2), math.nan), "n": torch.tensor(2)}, tmp_path / "nan.safetensors")
    for words, sentence in (
        ([files[0], "-o", output], "1 files are given"),
        (files, "No output is given"),
        ([*files, "-o", "-"], "-o is -, but a mean is written in place"),
        ([*files, "-o", files[0]], "exists already"),
        ([files[0], str(tmp_path / "nan.safetensors"), "-o", output], "'w' of"),
        ([*files, "--ouput", output], "Did you mean --output?"),
    ):
        assert main(["average", *words]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.startswith("imwa: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "c.safetensors").exists()
