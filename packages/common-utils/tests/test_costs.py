import time

import pytest
import torch

from scarce_common_utils import costs
from scarce_common_utils.costs import measure, memory_in_words, time_in_words

CPU = torch.device("cpu")


def test_the_first_step_is_done_and_not_counted(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 11.0, 20.0, 23.0, 30.0, 32.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    done = []
    cost = measure(done.append, device=CPU, most=4)
    assert done == [0, 1, 2, 3]
    assert (cost.seconds, cost.steps) == (2.0, 3)


def test_one_step_alone_is_counted():
    assert measure(lambda number: None, device=CPU, most=1).steps == 1


def test_no_step_is_begun_after_the_time(monkeypatch):
    clock = iter([0.0, 3.0, 5.5, 7.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert measure(lambda number: None, device=CPU).steps == 2


def test_memory_is_that_of_the_process():
    memory = measure(lambda number: None, device=CPU, most=1).memory
    assert memory is None or 2**24 < memory < 2**40


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0042, "4.2 ms"), (0.5, "500 ms"), (89, "89.0 s"), (91, "1.5 min"), (5401, "1.5 h"), (172_800, "2.0 days")],
)
def test_times_in_words(seconds, words):
    assert time_in_words(seconds) == words


def test_memory_in_words():
    assert [memory_in_words(size) for size in (2**20 * 5, 2**31, None)] == ["5 MiB", "2.0 GiB", "not known here"]
    assert costs.MOST_STEPS > 1
