"""The written model's config.json, where somebody else may have written it: values of another kind are named, and nothing is built."""

import json

import pytest

from layermatch.commands.trained import WRITTEN, read_config
from scarce_common_utils.errors import UserError

SOUND = {
    "model": "cnn",
    "class_names": ["a", "b"],
    "channels": 1,
    "image_size": [8, 8],
    "mean": [0.0],
    "deviation": [1],
}


def written(folder, content):
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_train_writes_is_read(tmp_path):
    assert read_config(written(tmp_path, SOUND)) == SOUND


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("value", [None, {}, [[]], [], -1, True, ["x", 1], [1e400, -5]], ids=str)
def test_a_value_of_another_kind_is_named(tmp_path, name, value):
    if name in ("mean", "deviation") and value == [1e400, -5]:
        value = [1.0, 1.0]  # a number a channel, 1 or 3
    path = written(tmp_path, SOUND | {name: value})
    with pytest.raises(
        UserError, match=rf"config.json says that '{name}' is .*, which `layermatch train` does not write"
    ):
        read_config(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", "null", '{"model": "cnn"}'])
def test_another_file_is_refused(tmp_path, text):
    with pytest.raises(
        UserError, match=r"config.json (cannot be read|does not say 'model'|does not say 'class_names')"
    ):
        read_config(written(tmp_path, text))
