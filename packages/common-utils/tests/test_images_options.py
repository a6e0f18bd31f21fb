"""The flags of image data: what reaches `load_images`, and what is refused before anything is read."""

from dataclasses import dataclass

import pytest

from scarce_common_utils.command_line import Command, plain_config, resumed_config, run_commands
from scarce_common_utils.images import Selection, load_images
from scarce_common_utils.options import ImageDataOptions, RunOptions, StreamingOptions


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ImageDataOptions, StreamingOptions):
    pass


@pytest.fixture
def parse(capsys):
    seen = []

    def call(*words):
        code = run_commands("x", "1", {"train": Command(seen.append, TrainConfig)}, ["train", *words])
        return seen[-1] if code == 0 else capsys.readouterr().err

    return call


def test_flags_become_a_selection(parse, tmp_path):
    (tmp_path / "two.txt").write_text("7\n1\n")
    config = parse("digits", "--classes", str(tmp_path / "two.txt"))
    assert config.selection() == Selection(classes=("7", "1"))
    train, _ = load_images(config.data, selection=config.selection())
    assert train.class_names == ("7", "1")
    assert parse("torchvision:STL10", "--fold", "3").selection(unlabelled=True) == Selection(fold=3, unlabelled=True)
    words = ("hf:user/set", "--image-column", "photo", "--label-column", "kind", "--extra")
    assert parse(*words).selection() == Selection(image_column="photo", label_column="kind", extra=True)
    assert parse("digits").selection() == Selection()


def test_flags_that_change_no_number(parse):
    assert [parse("digits", *words).in_memory for words in ((), ("--in-memory",), ("--no-in-memory",))] == [
        None,
        True,
        False,
    ]
    assert [parse("digits", *words).workers for words in ((), ("--workers", "0"))] == [None, 0]
    stored = plain_config(parse("digits", "--workers", "2", "--no-in-memory"))
    now = parse("digits", "--workers", "5", "--in-memory")
    again = resumed_config(now, stored, may_change=("workers", "in_memory"))
    assert (again.workers, again.in_memory) == (5, True)


def test_values_out_of_range_and_files_that_are_not_there(parse, tmp_path):
    assert "--fold" in parse("torchvision:STL10", "--fold", "10")
    assert "--workers" in parse("digits", "--workers=-1")
    config = parse("digits", "--classes", str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match=r"none\.txt, which cannot be read \(No such file or directory\)"):
        config.selection()
