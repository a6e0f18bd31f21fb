"""In every command alike: `--json`, `--quiet`, `--config RUN`, `-`; and standard output holds results, standard error the rest."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from scarce_common_utils.command_line import Command, Operands, Option, plain_config, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import RunOptions
from scarce_common_utils.progress import Progress
from scarce_common_utils.run_folder import RunFolder, config_digest, to_stderr


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions):
    data: Annotated[str | None, Operands("DATA", "Data")] = None
    steps: Annotated[int, Option("Steps", at_least=1)] = 10
    every: Annotated[int | None, Option("By default a tenth of the steps")] = None
    labels: Annotated[int | None, Option("Labels")] = None
    workers: Annotated[int, Option("Workers")] = 0

    def __post_init__(self) -> None:
        if not self.unsettled and self.labels == 1 and self.steps == 10:
            raise UserError("--labels 1 does not go with 10 steps.")


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen: list[TrainConfig] = []

    def train(config) -> dict:
        """Train."""
        resolved = plain_config(config) | {"every": config.every or config.steps // 10}
        run = RunFolder.create(
            config.out,
            default_name="x",
            package="scarce-common-utils",
            command="train",
            config=resolved,
            given=config.written,
        )
        with run, Progress(1, "steps", label="x") as bar:
            bar.advance(1)
        to_stderr("x: a notice")
        print("a table")
        seen.append(config)
        return {"run": run.path, "accuracy": float("nan"), "names": ("a", "b")}

    def refused(config) -> None:
        to_stderr("x: a notice")
        raise UserError("steps is 3, and that is wrong.")

    def silent(config) -> None:
        print("only text")

    commands = {
        "train": Command(train, TrainConfig),
        "refused": Command(refused, TrainConfig),
        "silent": Command(silent, TrainConfig),
    }

    def run(*words: str) -> TrainConfig | int:
        code = run_commands("scarce-common-utils", "1", commands, words)
        return seen[-1] if code == 0 and seen else code

    return run


def test_json_is_one_object_and_nothing_else_on_standard_output(call, capsys):
    call("train", "d", "--json")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"run": "runs/x", "accuracy": None, "names": ["a", "b"]}
    assert out.count("\n") == 1
    assert "a notice" in err
    call("silent", "d", "--json")
    assert json.loads(capsys.readouterr().out) == {"text": "only text\n"}


def test_of_several_processes_the_first_prints_the_object(call, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    call("train", "d", "--json")
    assert capsys.readouterr().out == ""


def test_quiet_leaves_results_and_errors_alone(call, capsys):
    call("train", "d", "--quiet")
    assert capsys.readouterr() == ("a table\n", "")
    assert call("refused", "d", "--quiet", "--json") == 2
    assert capsys.readouterr() == ("", "scarce-common-utils: steps is 3, and that is wrong.\n")


@dataclass(frozen=True, kw_only=True)
class ToolConfig:
    json: Annotated[Path | None, Option("File to write")] = None
    given: frozenset[str] = frozenset()


def test_a_tool_with_a_json_file_of_its_own_keeps_it(capsys):
    got: list[ToolConfig] = []
    tool = {"rows": Command(got.append, ToolConfig, mannered=False)}
    assert run_commands("x", "1", tool, ["rows", "--json", "rows.json"]) == 0
    assert got[0].json == Path("rows.json")
    assert run_commands("x", "1", tool, ["rows", "--quiet"]) == 2
    assert "Unknown option: --quiet" in capsys.readouterr().err


def test_manners_are_no_options_of_the_run(call):
    call("train", "d", "--json", "--quiet", "--out", "a")
    content = json.loads(Path("a/config.json").read_text())
    assert not {"json", "quiet", "config", "resume", "given", "inherited"} & content["options"].keys()
    assert content["given"] == ["data"]


def test_what_becomes_of_the_model_is_no_part_of_the_digest():
    plain = {"steps": 3, "licence": None, "push_to_hub": None}
    assert config_digest(plain) == config_digest(plain | {"licence": "mit", "push_to_hub": "me/x"})
    assert config_digest(plain) == config_digest({"steps": 3})  # a run of before there were these options


def test_config_begins_the_same_run_anew_in_a_new_folder(call, capsys):
    call("train", "d", "--steps", "40", "--labels", "4", "--out", "a")
    again = call("train", "--config", "a")
    assert (again.data, again.steps, again.labels, again.every, again.out) == ("d", 40, 4, 4, None)
    assert again.config is None
    assert Path("runs/x/config.json").is_file()  # not a: nothing is written over
    options = [json.loads(Path(run, "config.json").read_text())["options"] for run in ("a", "runs/x")]
    assert options[0] | {"out": None} == options[1]


def test_an_option_given_beside_config_comes_first_and_what_follows_from_it_is_worked_out_again(call):
    call("train", "d", "--steps", "40", "--labels", "4", "--out", "a")
    more = call("train", "--config", "a", "--steps", "60")
    assert (more.data, more.steps, more.labels, more.every) == ("d", 60, 4, None)
    assert call("train", "--config", "a", "--out", "b").every == 4  # another folder is the same run
    other = call(
        "train", "e", "--config", "runs/x", "--seed", "3"
    )  # the grandchild knows what was written for the first
    assert (other.data, other.steps, other.labels, other.seed) == ("e", 60, 4, 3)


def test_options_are_held_against_each_other_when_both_are_known(call, capsys):
    call("train", "d", "--steps", "40", "--out", "a")
    assert call("train", "--config", "a", "--labels", "1").labels == 1
    call("train", "d", "--out", "b")
    assert call("train", "--config", "b", "--labels", "1") == 2
    assert "does not go with 10 steps" in capsys.readouterr().err


def test_config_refuses_what_is_no_run_of_this_command(call, capsys):
    call("train", "d", "--out", "a")
    capsys.readouterr()
    for words, sentence in [
        (("silent", "--config", "a"), "a is a run of `scarce-common-utils train`"),
        (("train", "--config", "nowhere"), "Give --config the run folder"),
        (("train", "--config", "a", "--resume", "a"), "--resume goes on with a run, --config begins it anew"),
    ]:
        assert call(*words) == 2
        assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_dash_stands_for_itself_among_operands(call):
    assert Path(call("train", "-").data) == Path("-")


def test_without_a_terminal_no_bar_is_drawn_and_nothing_of_one_is_written(call, capsys):
    call("train", "d")
    err = capsys.readouterr().err
    assert "x: 1/1 steps" in err
    assert not set(err) & {"\r", "\x1b", "━"}


def test_completion_is_installed_for_a_shell(call, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["scarce-common-utils"])
    assert run_commands("imwa", "1", {"train": Command(lambda config: None, TrainConfig)}, [
        "--install-completion", "--shell", "bash", "--output", "imwa.bash",
    ]) == 0  # fmt: skip
    script = Path("imwa.bash").read_text()
    assert "--steps" in script
    assert "--quiet" in script
