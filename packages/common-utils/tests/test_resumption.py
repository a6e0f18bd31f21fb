"""How commands begin, go on and end: refusals before anything is written, data compared, checkpoints that do not fit named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import torch

from scarce_common_utils.checkpoints import save_checkpoint
from scarce_common_utils.command_line import Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import RunOptions
from scarce_common_utils.resumption import begin, check_split, closing_lines, load_newest, record_of, threads
from scarce_common_utils.run_folder import RunFolder

KIND = {"package": "scarce-common-utils", "command": "train"}


@dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    steps: Annotated[int, Option("Steps")] = 10


def make(path: Path, config: Config) -> RunFolder:
    return RunFolder.create(path, default_name="x", config=plain_config(config), **KIND)


def test_a_new_run_writes_nothing_and_refuses_a_used_folder(tmp_path):
    config = Config(out=tmp_path / "new")
    assert begin(config, may_change=(), **KIND) == (None, config)
    assert not (tmp_path / "new").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    with pytest.raises(UserError, match="already holds files"):
        begin(Config(out=tmp_path / "used"), may_change=(), **KIND)


def test_a_resumed_run_takes_its_own_options(tmp_path):
    make(tmp_path / "run", Config(steps=20, seed=3))
    run, config = begin(
        Config(resume=tmp_path / "run", device="cpu", given=frozenset({"device"})), may_change=("device",), **KIND
    )
    assert run is not None
    assert (config.steps, config.seed, config.device) == (20, 3, "cpu")
    run.close()
    with pytest.raises(UserError, match="--steps is 5, but the run to resume has 20"):
        begin(Config(resume=tmp_path / "run", steps=5, given=frozenset({"steps"})), may_change=(), **KIND)
    with pytest.raises(UserError, match="a resumed run goes on in its own folder"):
        begin(Config(resume=tmp_path / "run", out=tmp_path / "y", given=frozenset({"out"})), may_change=(), **KIND)


def test_data_that_changed_are_refused(tmp_path):
    run = make(tmp_path / "run", Config())
    check_split(run, {"labelled": [1, 2]}, place="photos")
    check_split(run, {"labelled": [1, 2]}, place="photos")
    with pytest.raises(UserError, match=r"The data in photos are not what .*split\.json was made from"):
        check_split(run, {"labelled": [1, 3]}, place="photos")


def test_the_newest_whole_checkpoint_is_loaded_and_a_misfit_named(tmp_path, capsys):
    run = make(tmp_path / "run", Config())
    seen = []
    assert not load_newest(run, seen.append)
    for step in (1, 2):
        save_checkpoint(run.checkpoints, step=step, state={"step": step})
    (run.checkpoints / "step-00000002.pt").write_bytes(b"torn")
    assert load_newest(run, seen.append)
    assert seen == [{"step": 1}]
    assert "step-00000002.pt is torn or altered" in capsys.readouterr().err

    def refuse(state):
        raise ValueError("it has 3 classes.")

    with pytest.raises(UserError, match=r"step-00000001\.pt does not fit this run: it has 3 classes\. Start a new run"):
        load_newest(run, refuse)


def test_a_foreign_checkpoint_is_named_and_the_one_before_it_used(tmp_path, capsys):
    run, seen = make(tmp_path / "run", Config()), []
    for step, owner in ((1, "us"), (2, "them"), (3, "them")):
        save_checkpoint(run.checkpoints, step=step, state={"step": step, "owner": owner}, keep=9)

    def load(state):
        if state["owner"] != "us":
            raise ValueError("it belongs to them.")
        seen.append(state["step"])

    assert load_newest(run, load)
    assert seen == [1]
    said = capsys.readouterr().err
    for name in ("step-00000003.pt", "step-00000002.pt"):
        assert f"{name} does not fit this run: it belongs to them. The checkpoint before it is used." in said
    (run.checkpoints / "step-00000001.pt").unlink()
    with pytest.raises(
        UserError, match=r"step-00000003\.pt does not fit this run: it belongs to them\. Start a new run"
    ):
        load_newest(run, load)


def test_threads_come_back_and_the_record_holds_where_it_ran(tmp_path):
    before = torch.get_num_threads()
    run = make(tmp_path / "run", Config())
    with threads(1):
        assert torch.get_num_threads() == 1
        record = record_of(
            run, experiment="e", arm="a", seed=0, numbers={"x": 1.0}, units={}, seconds=2.0, device=torch.device("cpu")
        )
    assert torch.get_num_threads() == before
    assert (record.threads, record.device, record.digest) == (1, "cpu", run.digest)
    with threads(None):
        assert torch.get_num_threads() == before


def test_the_last_lines_name_everything_that_was_made(tmp_path):
    run = make(tmp_path / "run", Config())
    assert closing_lines(
        run, seed=3, figures=[run.figures / "a.png", run.figures / "b.png"], model=True
    ).splitlines() == [
        "One seed (3) says little.",
        f"Figures: {tmp_path / 'run' / 'figures'}",
        "  a.png, b.png",
        f"Model: {tmp_path / 'run' / 'model'}",
        f"Run folder: {tmp_path / 'run'}",
    ]
