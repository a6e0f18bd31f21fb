"""A silent process is named and ends the others, one that counts on does not; a stopped child is killed, a running one is not."""

import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest

from scarce_common_utils import watch
from scarce_common_utils.command_line import Command, run_commands
from scarce_common_utils.options import RunOptions
from scarce_common_utils.watch import dead_worker, end_watch, stopped_workers_end, wait_for_verdict, watched


class Store:
    """A launcher's store: the others in `silent` count no further, all else does, at each look."""

    def __init__(self, silent=(), gone=False):
        self.silent, self.gone, self.numbers, self.looks = silent, gone, {}, 0

    def add(self, key, number):
        self.looks += 1
        if self.gone and self.looks > 9:
            raise RuntimeError("Broken pipe")
        rank = int(key.rpartition("/")[2])
        self.numbers[rank] = self.numbers.get(rank, 0) + (rank not in self.silent or rank not in self.numbers)
        return self.numbers[rank]


@pytest.fixture
def ended(monkeypatch):
    """What was written and with which code the process would have ended, once it would; `start(store, rank)` sets it up."""
    found, over = [], threading.Event()

    def leave(code):
        found.append(code)
        over.set()
        watch._watch._over.wait(120)  # as far as the thread would come

    plain = os.write

    def write(file, text):
        if file != 2:
            return plain(file, text)
        found.append(text.decode())
        return len(text)

    def start(store, rank, count=3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setattr(watch, "_BEAT", 0.01)
        monkeypatch.setattr(watch, "SILENCE", 0.1)
        monkeypatch.setattr(watch._Others, "_joined", lambda self: store)
        monkeypatch.setattr(watch.os, "_exit", leave)
        monkeypatch.setattr(watch.os, "write", write)
        return found, over

    return start


@pytest.mark.parametrize(
    ("rank", "silent", "says"), [(0, (2,), True), (1, (2,), False), (1, (0,), True), (2, (0, 1), True)]
)
def test_a_silent_process_ends_the_others_and_the_first_that_is_left_says_so(ended, rank, silent, says):
    found, over = ended(Store(silent), rank)
    with watched("imwa"):
        assert over.wait(120)
    assert found[-1] == 2
    names = " and ".join(f"process {number}" for number in silent)
    assert len(found) == 1 + says
    if says:
        assert found[0].startswith(f"\nimwa: {names} of 3 (numbered from 0) has not been heard of")
        assert "--resume" in found[0]


def test_a_store_that_is_gone_is_its_holder_that_is_gone(ended):
    found, over = ended(Store(gone=True), 1)
    with watched("imwa"):
        assert over.wait(120)
    assert found[-1] == 2
    assert "process 0 of 3" in found[0]


def test_processes_that_count_on_are_let_be_and_an_error_is_raised(ended):
    found, _ = ended(store := Store(), 0)

    def work():
        while store.looks < 300:
            time.sleep(0.01)
        raise RuntimeError("of our own")  # asks for the verdict, which is that all are there

    with pytest.raises(RuntimeError, match="of our own"), watched("imwa"):
        work()
    assert found == []


def test_after_the_end_nobody_is_looked_at(ended):
    found, _ = ended(store := Store((1,)), 0)
    with watched("imwa"):
        end_watch()
        looks = store.looks
        time.sleep(0.3)
        assert store.looks == looks
    wait_for_verdict()
    assert found == []


def test_one_process_alone_has_no_thread(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = threading.active_count()
    with watched("imwa"):
        assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells that a process is stopped")
def test_a_stopped_child_is_killed_and_a_running_one_is_not(monkeypatch):
    monkeypatch.setattr(watch, "_BEAT", 0.05)
    monkeypatch.setattr(watch, "STOPPED", 0.2)
    stopped, running = (multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)) for _ in range(2))
    for child in (stopped, running):
        child.start()
    try:
        with stopped_workers_end():
            os.kill(stopped.pid, signal.SIGSTOP)
            stopped.join(120)
        assert stopped.exitcode == -signal.SIGKILL
        assert running.is_alive()
    finally:
        running.kill()
        running.join()
        stopped.kill()


@pytest.mark.parametrize(
    "text",
    ["DataLoader worker (pid 123) is killed by signal: Killed. ", "DataLoader worker (pid(s) 123) exited unexpectedly"],
)
def test_a_dead_loading_process_ends_a_command_in_a_sentence(text, capsys):
    def work(config):
        """Load."""
        raise RuntimeError(text)

    assert run_commands("prog", "0", {"work": Command(work, RunOptions)}, ["work"]) == 2
    assert capsys.readouterr().err.startswith("prog: A process that loads data (123) was killed or stopped.")
    assert dead_worker(RuntimeError("DataLoader timed out")) is None


def test_a_loading_process_that_is_gone_with_a_batch_ready_is_one_that_died(tmp_path):
    place = tmp_path / "torch" / "multiprocessing"
    place.mkdir(parents=True)
    for name, is_one in (("reductions.py", True), ("other.py", False)):
        file = place / name
        code = compile("raise ConnectionResetError(104, 'Connection reset by peer')", str(file), "exec")
        with pytest.raises(ConnectionResetError) as caught:
            exec(code)
        assert (dead_worker(caught.value) is not None) is is_one
