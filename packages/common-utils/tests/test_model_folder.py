import json
import re
import sys

import pytest
import torch

from scarce_common_utils.errors import UserError
from scarce_common_utils.intervals import Interval
from scarce_common_utils.model_card import Card, Classes, Metric, Paper
from scarce_common_utils.model_folder import ModelCard, write_model
from scarce_common_utils.run_folder import RunFolder

CARD = ModelCard(
    model="linear",
    class_names=("ape", "bée"),
    channels=3,
    image_size=(2, 2),
    mean=(100.1,),
    deviation=(50.7,),
    card=Card(
        title="linear, trained by hand",
        facts={"data": "drawn", "accuracy": "50.00 % of 4 test images"},
        reading="All of it is ours.",
        metrics=[Metric("accuracy", "accuracy", 50.0, Interval(15.0, 85.0, "Wilson"), "%", "4 test images")],
        classes=Classes(("class", "images"), [["ape", 2], ["bée", 2]]),
        settings={"steps": 3},
        task="image-classification",
        library="pytorch",
        tags=["by-hand"],
        data_name="drawn",
        paper=Paper("A title", "Somebody", 2024, "2401.00001", "somebody2024"),
        seconds=3.0,
        device="cpu",
    ),
    builder="from torch import nn",
    build="nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, len(config['class_names'])))",
)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(
        tmp_path / "run", default_name="x", package="scarce-common-utils", command="train", config={}
    )


def linear():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))


def test_the_card_of_a_written_model_gives_its_logits_back(run, monkeypatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install safetensors")
    model = linear()
    assert write_model(run, model.state_dict(), CARD) == run.model
    assert {path.name for path in run.model.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    text = (run.model / "README.md").read_text(encoding="utf-8")
    assert "| accuracy | 50.00 % of 4 test images |" in text
    images = torch.randint(0, 256, (5, 1, 2, 2), dtype=torch.uint8)
    names = {"images": images}
    monkeypatch.chdir(run.model)
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    expected = model(((images.float() - 100.1) / 50.7).expand(-1, 3, -1, -1))
    assert torch.equal(names["logits"], expected)
    assert names["names"] == [CARD.class_names[number] for number in expected.argmax(1)]
    config = json.loads((run.model / "config.json").read_text(encoding="utf-8"))
    assert config == {
        "model": "linear",
        "class_names": ["ape", "bée"],
        "channels": 3,
        "image_size": [2, 2],
        "mean": [100.1],
        "deviation": [50.7],
        "package": "scarce-common-utils",
        "version": "0.1.0",
    }


def test_tied_and_strided_tensors_keep_their_names_and_values(run):
    file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed: pip install safetensors")
    weight = torch.randn(4, 3)
    state = {
        "encoder.weight": weight,
        "decoder.weight": weight,
        "turned": weight.t(),
        "part": weight[1:],
        "count": torch.tensor(7),
    }
    write_model(run, state, CARD)
    loaded = file.load_file(run.model / "model.safetensors")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in state.items())


def test_written_again_the_files_are_the_same_and_nothing_lies_beside_them(run):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install safetensors")
    state = linear().state_dict()
    write_model(run, state, CARD)
    before = {path.name: path.read_bytes() for path in run.model.iterdir()}
    write_model(run, state, CARD)
    assert {path.name: path.read_bytes() for path in run.model.iterdir()} == before


def test_what_is_no_tensor_is_named(run):
    with pytest.raises(ValueError, match="'extra' is a str"):
        write_model(run, {"extra": "a"}, CARD)
    assert not run.model.exists()


def test_without_safetensors_the_pip_line_is_given(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UserError, match="pip install safetensors"):
        write_model(run, linear().state_dict(), CARD)
    assert not run.model.exists()
