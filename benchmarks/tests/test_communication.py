"""The emulated link: bytes are those that were written, a call takes its time, torch's functions come back."""

import os
import socket
import sys
import time

import pytest
import torch.distributed as dist

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
