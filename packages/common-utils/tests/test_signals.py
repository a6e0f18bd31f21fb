"""What a signal does to a run: remembered within a block, raised outside, told by the exit code."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from scarce_common_utils.signals import Stopped, raised_on_terminate, stop_requests

COMMAND = """
import os, signal, sys, time
from dataclasses import dataclass
from typing import Annotated
from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.signals import Stopped, stop_requests

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

@dataclass(frozen=True, kw_only=True)
class Config:
    steps: Annotated[int, Option("steps")] = 0
    given: frozenset[str] = frozenset()

def work(config: Config) -> None:
    "Work."
    with stop_requests() as stop:
        for step in range(config.steps):
            print(step, flush=True)
            os.kill(os.getpid(), int(sys.argv[-1]))
            if stop.asked:
                raise Stopped(stop.signal, f"Step {step} is kept.")
    print("waits", flush=True)
    time.sleep(60)

sys.exit(run_commands("program", "1", {"work": Command(work, Config)}, sys.argv[1:-1]))
"""


@pytest.fixture(autouse=True)
def heard():
    """Both signals as in a terminal: whoever started the tests in the background let SIGINT be ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_the_block_is_kept_for_the_steps_end(number: signal.Signals) -> None:
    with stop_requests() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        assert stop.signal == number
        os.kill(os.getpid(), signal.SIGTERM)  # the second one changes nothing
        assert stop.signal == number
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler


def test_what_the_process_was_started_to_ignore_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_third_signal_ends_it_at_once() -> None:
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.exit_code == 130


def test_terminate_is_raised_where_no_step_is_waited_for() -> None:
    earlier = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped, raised_on_terminate():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.signal is signal.SIGTERM
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == earlier


def test_other_threads_change_no_handler() -> None:
    earlier, found = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stop_requests() as stop, raised_on_terminate():
            found.append((signal.getsignal(signal.SIGTERM), stop.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(earlier, False)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_with_the_signals_exit_code_and_a_sentence(number: signal.Signals) -> None:
    child = subprocess.run(
        [sys.executable, "-c", COMMAND, "work", "--steps", "3", str(int(number))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 128 + number
    assert child.stdout == "0\n"
    assert child.stderr.splitlines()[-1] == f"program: stopped by {number.name}. Step 0 is kept."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_without_a_step_to_wait_for_ends_at_once(number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "work", str(int(number))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waits\n"
    child.send_signal(number)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 128 + number
    assert said.startswith(f"program: stopped by {number.name}. With --resume")
