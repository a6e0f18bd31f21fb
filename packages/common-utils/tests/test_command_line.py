"""Flags from a dataclass; what a person gets wrong is one line on standard error and exit code 2."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from scarce_common_utils.command_line import Command, Operands, Option, plain_config, resumed_config, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import ImageDataOptions, RunOptions, choose_device


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ImageDataOptions):
    steps: Annotated[int, Option("Optimizer steps", at_least=1, unit="steps")] = 100
    method: Annotated[Literal["supervised", "fixmatch"], Option("Method")] = "fixmatch"
    grad_relu: Annotated[bool, Option("Cut the gradient")] = True

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise UserError("steps is 13, and 13 is refused here.")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunOptions):
    genome: Annotated[tuple[str, ...], Operands("GENOME", "FASTA files")] = ()
    widths: Annotated[tuple[int, ...], Option("Widths", short="-w")] = ()


@pytest.fixture
def run():
    seen: list = []

    def train(config) -> None:
        """Train a model."""
        seen.append(config)

    commands = {
        "train": Command(train, TrainConfig, {"p_cutoff": "--threshold"}),
        "pretrain": Command(seen.append, PretrainConfig),
    }

    def call(*words: str):
        code = run_commands("layermatch", "0.1.0", commands, words)
        return code, seen[-1] if seen else None

    return call


def test_values_reach_the_dataclass_and_given_says_which_were_written(run):
    code, config = run("train", "digits", "--steps", "5", "--no-grad-relu", "--out=here")
    assert code == 0
    assert isinstance(config, TrainConfig)
    assert (config.data, config.steps, config.grad_relu, config.out) == ("digits", 5, False, Path("here"))
    assert config.given == {"data", "steps", "grad_relu", "out"}
    code, config = run("pretrain", "a.fa", "b.fa", "--widths", "6", "-w", "8", "--seed", "3")
    assert code == 0
    assert (config.genome, config.widths, config.seed) == (("a.fa", "b.fa"), (6, 8), 3)
    assert run("train")[1].data is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "--stpes", "5"), "Unknown option: --stpes. Did you mean --steps?"),
        (("train", "--zzzqq", "5"), "Unknown option: --zzzqq. See `layermatch train --help`."),
        (("train", "--p-cutoff", "0.9"), "Unknown option: --p-cutoff. Here it is called --threshold."),
        (("train", "--p_cutoff", "0.9"), "Here it is called --threshold."),
        (("train", "--steps", "0"), 'Invalid value "0" for --steps. Must be >= 1.'),
        (("train", "--steps", "many"), 'unable to convert "many" into int'),
        (("train", "--steps"), "--steps requires an argument"),
        (("train", "--method", "fixmach"), 'Did you mean "fixmatch"?'),
        (("trian",), 'Did you mean "train"?'),
        (("train", "digits", "more"), "layermatch: 'more' was not expected here. See `layermatch train --help`."),
        (("train", "--steps", "13"), "steps is 13, and 13 is refused here."),
        (("train", "--seed", "-1"), 'Invalid value "-1" for --seed'),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(run, capsys, words, sentence):
    code, config = run(*words)
    captured = capsys.readouterr()
    assert code == 2
    assert config is None
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("layermatch: ")
    assert sentence in captured.err


def test_help_and_version_end_with_0(run, capsys):
    assert run("--version")[0] == 0
    assert "0.1.0" in capsys.readouterr().out
    assert run("train", "--help")[0] == 0
    text = capsys.readouterr().out
    assert "Optimizer steps" in text
    assert "DATA" in text
    assert run("--help")[0] == 0
    assert "Train a model." in capsys.readouterr().out


def test_other_exceptions_stay_our_bugs():
    def broken(config) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        run_commands("x", "0", {"train": Command(broken, TrainConfig)}, ["train"])


def test_a_stopped_command_says_so_and_ends_with_130(capsys):
    def stopped(config) -> None:
        raise KeyboardInterrupt

    assert run_commands("x", "0", {"train": Command(stopped, TrainConfig)}, ["train"]) == 130
    assert "goes on from its last checkpoint" in capsys.readouterr().err


def test_resume_takes_the_stored_options_and_refuses_another_value(run):
    stored = plain_config(TrainConfig(data="digits", steps=50, data_folder=Path("kept")))
    assert "resume" not in stored
    assert "given" not in stored
    _, config = run("train", "--resume", "runs/x", "--device", "cpu")
    resumed = resumed_config(config, stored, may_change={"device"})
    assert (resumed.data, resumed.steps, resumed.device, resumed.data_folder) == ("digits", 50, "cpu", Path("kept"))
    assert resumed.resume == Path("runs/x")
    _, config = run("train", "--resume", "runs/x", "--steps", "60")
    with pytest.raises(UserError, match=r"--steps is 60, but the run to resume has 50"):
        resumed_config(config, stored, may_change={"device"})
    _, config = run("train", "other", "--resume", "runs/x")
    with pytest.raises(UserError, match="DATA is 'other', but the run to resume has 'digits'"):
        resumed_config(config, stored)
    with pytest.raises(UserError, match="'colour'"):
        resumed_config(config, {**stored, "colour": 1})


def test_a_resume_works_from_another_folder(run, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.fa").touch()
    monkeypatch.chdir(tmp_path)
    stored = plain_config(TrainConfig(data="photos"))
    assert stored["data"] == str(tmp_path / "photos")
    assert resumed_config(run("train", "photos")[1], stored).data == str(tmp_path / "photos")
    genome = plain_config(PretrainConfig(genome=("a.fa", "absent.fa")))["genome"]
    assert genome == [str(tmp_path / "a.fa"), "absent.fa"]
    monkeypatch.chdir("/")
    assert resumed_config(run("train")[1], stored).data == str(tmp_path / "photos")


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match=r"'gpu', which is no device\. Choose cpu, cuda"):
        choose_device("gpu")
    for name in ("cuda:99", "xpu:99"):
        with pytest.raises(UserError, match=name):
            choose_device(name)
