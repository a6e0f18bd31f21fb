"""What a file says of its origin: the command line without folders, the data's digest, versions."""

import json

import pytest
from PIL import Image

from scarce_common_utils.figures import line_figure
from scarce_common_utils.provenance import (
    command_under_way,
    current_line,
    cut_line,
    data_digest_of,
    stamp,
    stamp_lines,
    tell_data,
    tell_line,
)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "/home/me/photos/", "--out", "runs/a"], "imwa train photos --out a"),
        (["train", "--out=/home/me/a b"], "imwa train '--out=a b'"),
        (["pretrain", "--dataset", "/x/a.jsonl,../b.jsonl"], "imwa pretrain --dataset a.jsonl,b.jsonl"),
        (["train", r"C:\Users\me\photos"], "imwa train photos"),
        (["train", "hf:some/set", "--push-to-hub", "me/model"], "imwa train hf:some/set --push-to-hub model"),
        (["train", ".", "--barrier", "0,last", "--warm-up", "0.5", "-o", "-"], "imwa train . --barrier 0,last --warm-up 0.5 -o -"),
    ],
)  # fmt: skip
def test_a_line_holds_the_last_names_of_paths_alone(words, line):
    assert cut_line("imwa", words) == line


def test_outside_a_command_nothing_is_said_and_within_one_all_is():
    assert (stamp(), stamp_lines(), current_line()) == ({}, {}, "")
    tell_data("abc")
    assert stamp() == {}
    with command_under_way("scarce-common-utils", ["train", "/a/b"]):
        tell_data("abc")
        with command_under_way("scarce-common-utils", ["inner"]):
            tell_data("def")
            tell_line("scarce-common-utils earlier")
            assert stamp()["command_line"] == "scarce-common-utils earlier"
        found = stamp()
    assert (found["command_line"], found["data_digest"]) == ("scarce-common-utils train b", "abc")
    assert found["versions"]["scarce-common-utils"] == "0.1.0"
    assert stamp() == {}


def test_a_program_that_is_no_distribution_has_the_others_versions():
    with command_under_way("no-such-distribution", []):
        assert "torch" in stamp()["versions"]


def test_the_digest_is_of_content_not_of_order():
    assert data_digest_of({"a": [1], "b": 2}) == data_digest_of({"b": 2, "a": [1]})
    assert data_digest_of({"a": [1]}) != data_digest_of({"a": [2]})
    assert len(data_digest_of({})) == 16


def test_a_picture_says_where_it_comes_from(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib")
    words = {"x_label": "x", "y_label": "y", "caption": "c"}
    with command_under_way("scarce-common-utils", ["train", "/a/b", "--caption", "größe 你"]):
        tell_data("abc")
        path = line_figure(tmp_path / "a.png", {"a": ([0, 1], [0, 1])}, **words)
    text = Image.open(path).text
    assert text["Command"] == "scarce-common-utils train b --caption 'größe 你'"
    assert text["Data digest"] == "abc"
    assert "torch" in text["Versions"]
    plain = line_figure(tmp_path / "b.png", {"a": ([0, 1], [0, 1])}, **words)
    assert "Command" not in Image.open(plain).text
    json.dumps(text)
