"""The emulated link (bytes are those that were written, a call takes its time, torch's functions come back), and the race over it."""

import json
import os
import socket
import sys
import time

import pytest
import torch
import torch.distributed as dist

from reproduce.imwa import recipes
from reproduce.imwa.communication import race, recipe
from reproduce.imwa.communication.link import CALLS, Link, written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bytes are counted by /proc/self/io")


def sending(count):
    def call():
        one, other = socket.socketpair()
        with one, other:
            os.write(one.fileno(), bytes(count))  # as gloo does; the kernel does not count what goes by send
            return other.recv(count, socket.MSG_WAITALL)

    return call


def test_bytes_are_counted_and_a_call_takes_their_time(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", sending(50_000))
    plain = {name: getattr(dist, name) for name in CALLS}
    link = Link(bandwidth=500_000.0, latency=0.01)
    with link.slow():
        began = time.perf_counter()
        assert len(dist.all_reduce()) == 50_000
        assert time.perf_counter() - began >= link.seconds
    assert 50_000 <= link.sent < 60_000
    assert link.seconds == pytest.approx(0.01 + link.sent / 500_000)
    assert link.calls == 1
    assert {name: getattr(dist, name) for name in CALLS} == plain


def test_a_link_without_a_bandwidth_adds_nothing_and_an_error_passes(monkeypatch):
    def broken():
        raise ValueError("gone")

    monkeypatch.setattr(dist, "all_reduce", broken)
    link = Link(bandwidth=None)
    with link.slow(), pytest.raises(ValueError, match="gone"):
        dist.all_reduce()
    assert dist.all_reduce is broken
    assert (link.sent, link.seconds) == (0, 0.0)
    assert written() > 0


def test_every_arm_is_raced_over_every_link(tmp_path):
    """One worker, in this process: what it does is each worker's work."""
    setting = race.Race(workers=1, steps=4, episodes=1, batch_size=8, imbalance=10.0, seed=0, latency=0.25)
    threads = torch.get_num_threads()
    try:
        race._worker(0, str(tmp_path), setting, [1.0, 100.0], [2])
    finally:
        torch.set_num_threads(threads)
    found = torch.load(tmp_path / "found.pt")
    names = ["batch", "imwa-e2", "batch-in-the-time-of-e2"]
    assert [(megabits, name) for megabits, name, _ in found] == [
        (rate, name) for rate in (1.0, 100.0) for name in names
    ]
    for _, name, numbers in found:
        assert numbers["reductions"] == (2 if name == "imwa-e2" else numbers["steps"])
        assert numbers["link_seconds"] >= 0.25 * numbers["reductions"]
        assert numbers["wall_seconds"] >= numbers["link_seconds"]
        assert 0 <= numbers["accuracy"] <= 100
    batch, ours, same_time = (numbers for _, _, numbers in found[:3])
    assert batch["steps"] == ours["steps"] == 4
    time_of = {name: one["compute_seconds"] + one["link_seconds"] for name, one in (("batch", batch), ("ours", ours))}
    assert same_time["steps"] == max(1, round(4 * time_of["ours"] / time_of["batch"]))


def test_the_recipe_prints_a_table_and_keeps_records(tmp_path, monkeypatch, capsys):
    asked = []

    def made(setting, *, megabits, episodes):
        asked.append((setting, megabits, episodes))
        return [(10.0, "imwa-e5", race.Raced("imwa", 450, 5, 1.25, 2.0, 1.5, 4.0, 91.5, 92.5))]

    monkeypatch.setattr(recipe, "races", made)
    words = ["communication", "--megabits", "10", "--episodes", "5", "--seeds", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["reproduce", *words])
    assert recipes.main() == 0
    assert [(one.seed, one.workers, rates, counts) for one, rates, counts in asked] == [(3, 2, (10.0,), (5,))]
    row = next(line for line in capsys.readouterr().out.splitlines() if "imwa-e5" in line)
    assert row.split() == ["10", "3", "imwa-e5", "450", "5", "1.2", "2.0", "1.5", "3.5", "91.5", "92.5"]
    record = json.loads((tmp_path / "communication-m2-10-mbit" / "imwa-e5" / "seed-003.json").read_text())
    assert record["numbers"]["link_seconds"] == 1.5
    assert record["units"]["megabytes"] == "MB a worker"
