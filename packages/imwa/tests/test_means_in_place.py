"""What two processes write into float32 models and optimizers at an episode's end, with two threads in place of processes."""

import copy
import threading

import pytest
import torch

from imwa import flat_buffer, processes
from imwa.processes import AcrossProcesses
from imwa.replica_sum import HoldsNan
from imwa.snapshot import MODEL, Objects


class Meeting:
    """What two threads exchange as a group's processes would."""

    def __init__(self):
        self.barrier, self.given = threading.Barrier(2, timeout=300), {}

    def everyone(self, rank, value):
        self.given[rank] = value
        self.barrier.wait()
        found = [self.given[0], self.given[1]]
        self.barrier.wait()
        return found


class Member:
    """`imwa.group.Group` of one of the two threads."""

    size, device = 2, torch.device("cpu")

    def __init__(self, group, *, replicas):
        self.meeting, self.rank = group
        self.own = range(self.rank, self.rank + 1)

    def of(self, process):
        return range(process, process + 1)

    def add_up(self, array, *, when):
        total = sum(self.meeting.everyone(self.rank, array.clone()))
        array.copy_(total)

    def gather(self, value, *, when):
        return self.meeting.everyone(self.rank, copy.deepcopy(value))


class Net(torch.nn.Module):
    """Large and small tensors, one that has no mean (its sum overflows), counters and statistics."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.large, self.small, self.norm = torch.nn.Linear(20, 30), torch.nn.Linear(30, 2), torch.nn.BatchNorm1d(30)
        self.mask = torch.nn.Parameter(torch.full((4,), torch.finfo(torch.float32).min), requires_grad=False)
        self.turned = torch.nn.Parameter(torch.randn(6, 5).t())  # its memory is not in its order

    def forward(self, x):
        return self.small(self.norm(self.large(x))).sum() + self.turned.square().sum()


def setting():
    model, ema = Net(), torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return model, optimizer, ema, Objects(model, optimizer, carry={}, average={"ema": ema})


def step(model, optimizer, ema, *, seed):
    x = torch.randn(8, 20, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).backward()
    optimizer.step()
    with torch.no_grad():
        ema.weight += seed


def tensors(model, optimizer, ema):
    state = {f"{n}/{key}": value for n, own in enumerate(optimizer.state.values()) for key, value in own.items()}
    return {**dict(model.state_dict()), **state, **{f"ema/{name}": value for name, value in ema.state_dict().items()}}


def in_threads(job):
    found, meeting = {}, Meeting()

    def run(rank):
        try:
            found[rank] = job(rank, (meeting, rank))
        except Exception as error:
            found[rank] = error
            if not isinstance(error, HoldsNan):  # which both raise
                meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[0], found[1]]


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    monkeypatch.setattr(processes, "Group", Member)
    monkeypatch.setattr(flat_buffer, "LARGE", 100)


def episodes(rank, group, *, count, settings, reduction):
    """Of every episode what the replica came to, and what was written over it."""
    model, optimizer, ema, objects = settings[rank]
    found, start = [], objects.take()
    for episode in range(count):
        step(model, optimizer, ema, seed=10 * episode + rank)
        if rank and episode == 1:
            model.norm.num_batches_tracked += 5
        before = {name: value.clone() for name, value in tensors(model, optimizer, ema).items()}
        parts = objects.parts(start, with_optimizer=True)
        held = {MODEL: start[MODEL]["tensors"]}
        reduction.add(parts, objects.carried(), replica=rank, start=held, label=f"replica {rank} of episode {episode}")
        mean = reduction.mean(label=f"episode {episode}")
        reduction.clear()
        objects.write(mean.parts, mean.carried, start=start)
        after = tensors(model, optimizer, ema)
        found.append((before, {name: value.clone() for name, value in after.items()}))
        start = objects.take()
    return found


def test_the_mean_is_written_where_the_values_live_and_what_has_no_mean_stays():
    settings = [setting() for _ in range(2)]
    for model, optimizer, ema, _ in settings:
        step(model, optimizer, ema, seed=99)
    places = [{name: value.data_ptr() for name, value in tensors(*own[:3]).items()} for own in settings]

    def job(rank, group):
        reduction = AcrossProcesses(group, replicas=2)
        return episodes(rank, group, count=3, settings=settings, reduction=reduction)

    both = in_threads(job)
    for found in both:
        assert not isinstance(found, Exception), found
    for episode in range(3):
        (one, mean), (other, again) = both[0][episode], both[1][episode]
        for name, value in mean.items():
            assert torch.equal(value, again[name]), name
            if name.endswith(("step", "num_batches_tracked")):
                expected = torch.maximum(one[name], other[name])
            elif torch.equal(one[name], other[name]):
                expected = one[name]
            else:
                expected = (one[name] + other[name]) / 2
            assert torch.equal(value, expected), (episode, name)
        assert torch.equal(mean["mask"], torch.full((4,), torch.finfo(torch.float32).min))
    for own, known in zip(settings, places, strict=True):
        assert {name: value.data_ptr() for name, value in tensors(*own[:3]).items()} == known


def test_a_nan_in_a_small_or_large_tensor_is_named_in_both():
    for spoil, name in (
        (lambda model: model.small.bias, "small.bias"),
        (lambda model: model.large.weight, "large.weight"),
    ):
        settings = [setting() for _ in range(2)]
        with torch.no_grad():
            spoil(settings[1][0]).view(-1)[0] = torch.nan

        def job(rank, group, settings=settings):
            return episodes(rank, group, count=1, settings=settings, reduction=AcrossProcesses(group, replicas=2))

        for error in in_threads(job):
            assert isinstance(error, HoldsNan), error
            assert str(error).startswith(f"'{name}'")
            assert "of replica 1 of episode 0 holds NaN" in str(error)
