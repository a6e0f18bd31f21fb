"""What the commands share where several processes are begun, without beginning any: who works, who speaks, who writes."""

import json
import sys
from dataclasses import dataclass

import pytest

from randommask.commands import launch
from randommask.commands.pretrain import PretrainConfig, stored_config
from randommask.training.processes import Processes
from scarce_common_utils.checkpoints import adopt_folder
from scarce_common_utils.errors import UserError
from scarce_common_utils.run_folder import RunFolder


@dataclass(frozen=True)
class Told(Processes):
    """One of two processes; the second is told `told` by the first."""

    count: int = 2
    told: object = None

    def shared(self, value):
        return value if self.main else self.told


def spoken():
    print("a table")
    print("a warning", file=sys.stderr)
    return "done"


def test_the_first_process_speaks_and_returns(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    assert launch.in_all_processes(spoken) == "done"
    assert capsys.readouterr() == ("a table\n", "a warning\n")


def test_another_one_works_without_a_word(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    worked = []
    assert launch.in_all_processes(lambda: worked.append(spoken())) is None
    assert worked == ["done"]
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_told_by_the_first_alone(monkeypatch, capsys):
    def mistaken():
        raise UserError("such a file does not exist")

    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        launch.in_all_processes(mistaken)
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="such a file"):
        launch.in_all_processes(mistaken)


def test_a_failure_of_another_process_is_no_mistake_of_the_person(monkeypatch):
    def failing():
        raise RuntimeError("broken")

    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RuntimeError, match="broken"):
        launch.in_all_processes(failing)


def test_all_end_together_and_only_where_nothing_failed(monkeypatch):
    ends = []
    monkeypatch.setattr(launch, "leave_together", lambda: ends.append(1))
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        launch.in_all_processes(lambda: None)
    assert len(ends) == 2
    with pytest.raises(SystemExit):
        launch.in_all_processes(lambda: sys.exit(3))
    assert len(ends) == 2


def folder_of(tmp_path, **options):
    config = PretrainConfig(steps=9, k=4, **options)
    with RunFolder.create(
        tmp_path / "run", default_name="r", package="randommask", command="pretrain", config=stored_config(config)
    ) as run:
        return run.path


def test_the_first_of_several_takes_the_folder_up_and_all_take_its_options(tmp_path, monkeypatch):
    path = folder_of(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(launch, "choose_device", lambda name: name)
    asked = PretrainConfig(resume=path, workers=3, device="cpu", given=frozenset({"workers", "device"}))
    for rank in (0, 1):
        monkeypatch.setattr(launch, "join", lambda device, rank=rank: Told(rank, told="the first one's"))
        run, config, processes = launch.begin_together(asked, command="pretrain", may_change=("workers", "device"))
        assert (config.k, config.steps, config.workers, processes.rank) == (4, 9, 3, rank)
        if rank:
            assert run == "the first one's"
        else:
            assert run.path == path
            run.close()


def test_an_option_that_would_change_the_result_is_refused_in_every_process(tmp_path, monkeypatch):
    path = folder_of(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setattr(launch, "join", lambda device, rank=rank: Told(rank))
        with pytest.raises(UserError, match="--k is 5, but the run to resume has 4"):
            launch.begin_together(
                PretrainConfig(resume=path, k=5, given=frozenset({"k"})), command="pretrain", may_change=("workers",)
            )


def test_a_run_that_goes_on_is_not_made_and_a_new_one_is_made_once():
    made = []
    assert launch.open_run("taken up", Told(0), make=lambda: made.append(1)) == "taken up"
    assert launch.open_run(None, Told(0), make=lambda: made.append(1) or "new") == "new"
    assert launch.open_run(None, Told(1, told="new"), make=lambda: made.append(1)) == "new"
    assert len(made) == 1


@pytest.mark.parametrize(
    ("begun", "count", "words"),
    [
        (2, 1, "was made by 2 processes, and 1 was started"),
        (0, 2, "was made by 1 process, and 2 were started"),
        (2, 3, "was made by 2 processes, and 3 were started"),
    ],
)
def test_a_checkpoint_of_another_number_of_processes_is_refused_and_the_log_stays(tmp_path, begun, count, words):
    run = run_with_checkpoint(tmp_path, begun)
    with pytest.raises(UserError, match=f"{words}, which would change the result. Start {max(1, begun)}, or a new run"):
        launch.last_checkpoint(run, Told(0, count))
    assert len(run.metrics()) == 4


@pytest.mark.parametrize(("begun", "count"), [(2, 2), (0, 1)])
def test_the_newest_checkpoint_is_found_and_the_log_cut_behind_it(tmp_path, begun, count):
    run = run_with_checkpoint(tmp_path, begun)
    found = launch.last_checkpoint(run, Told(0, count))
    assert found.name == "step-00000002"
    assert [line["step"] for line in run.metrics()] == [0, 1]


def test_without_a_checkpoint_the_log_begins_anew(tmp_path):
    run = RunFolder.reopen(folder_of(tmp_path), package="randommask", command="pretrain")
    run.log(0, loss=1.0)
    assert launch.last_checkpoint(run, Told(0)) is None
    assert run.metrics() == []
    assert launch.last_checkpoint(run, Told(1, told="theirs")) == "theirs"


def run_with_checkpoint(tmp_path, begun):
    run = RunFolder.reopen(folder_of(tmp_path), package="randommask", command="pretrain")
    source = tmp_path / "checkpoint-2"
    source.mkdir()
    (source / "trainer_state.json").write_text(json.dumps({}))
    for rank in range(begun):
        (source / f"rng_state_{rank}.pth").write_bytes(b"0")
    adopt_folder(source, run.checkpoints, step=2)
    for step in range(4):
        run.log(step, loss=1.0)
    return run
