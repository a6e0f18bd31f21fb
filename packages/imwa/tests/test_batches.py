"""Batches of a replica: pure functions of (seed, replica, step), whatever the workers, the episodes, the resume."""

import itertools
import random

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from imwa import IMWA
from imwa.batches import epoch_order


class Noisy(Dataset):
    """Item i with random numbers beside it, as an augmentation would draw them; remembers what was read."""

    def __init__(self, count=23):
        self.count = count
        self.read = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return index, torch.rand(1).item() + random.random()


def noisy_collate(items):
    return torch.tensor([index for index, _ in items]), torch.tensor([noise for _, noise in items]) + torch.rand(1)


def tiny():
    model = torch.nn.Linear(1, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def collect(loader, *, episodes=3, replicas=2, steps=14, seed=0):
    model, optimizer = tiny()
    seen = {}
    for replica in IMWA(model, optimizer, replicas=replicas, episodes=episodes, steps=steps, seed=seed):
        for step, (indices, noise) in replica.batches(loader):
            seen.setdefault(replica.index, []).append((step, indices.tolist(), noise.tolist()))
    return seen


def loader(dataset=None, **settings):
    return DataLoader(dataset or Noisy(), **{"batch_size": 4, "collate_fn": noisy_collate, **settings})


@pytest.mark.parametrize(
    "settings", [{}, {"shuffle": True}, {"drop_last": True}, {"batch_size": 23}, {"batch_size": 40}]
)
def test_every_epoch_reads_everything_once_in_an_order_of_its_own(settings):
    seen = collect(loader(**settings), steps=18)
    size, drop = settings.get("batch_size", 4), settings.get("drop_last", False)
    each = 23 // size if drop else -(-23 // size)
    orders = set()
    for rows in seen.values():
        assert [step for step, _, _ in rows] == list(range(18))
        for begin in range(0, 18 - each + 1, each):
            epoch = [index for _, indices, _ in rows[begin : begin + each] for index in indices]
            assert len(epoch) == len(set(epoch)) == (each * size if drop else 23)
            orders.add(tuple(epoch))
    assert len(orders) == 2 * (18 // each)


def test_the_episodes_change_no_batch_and_a_replica_more_changes_no_other():
    one = collect(loader(), episodes=1)
    assert collect(loader(), episodes=7) == one
    more = collect(loader(), replicas=3)
    assert {index: more[index] for index in (0, 1)} == one
    assert collect(loader(), seed=1)[0] != one[0]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_change_no_bit(context):
    # A spawned worker loads torch anew, at each of a replica's beginnings: one worker and few steps do.
    workers, episodes, steps = (2, 2, 8) if context == "fork" else (1, 1, 3)
    expected = collect(loader(), episodes=2, steps=steps)
    with_workers = loader(num_workers=workers, multiprocessing_context=context, prefetch_factor=3)
    assert collect(with_workers, episodes=episodes, steps=steps, replicas=2) == expected


def test_a_resume_in_the_middle_of_an_epoch_reads_no_batch_before_it():
    expected = collect(loader())
    for stop in (0, 4, 6, 13):
        model, optimizer = tiny()
        iterative, seen = IMWA(model, optimizer, replicas=2, episodes=3, steps=14), {}
        for replica in iterative:
            for step, (indices, noise) in replica.batches(loader()):
                seen.setdefault(replica.index, []).append((step, indices.tolist(), noise.tolist()))
                if (replica.index, step) == (1, stop):
                    state = iterative.state_dict()
                    break
            else:
                continue
            break
        model, optimizer = tiny()
        again = IMWA(model, optimizer, replicas=2, episodes=3, steps=14)
        again.load_state_dict(state)
        data = Noisy()
        for replica in again:
            for step, (indices, noise) in replica.batches(loader(data)):
                seen.setdefault(replica.index, []).append((step, indices.tolist(), noise.tolist()))
        assert seen == expected
        later = [row for rows in seen.values() for row in rows]
        assert len(data.read) == sum(len(indices) for _, indices, _ in later) - sum(
            len(indices)
            for index, rows in expected.items()
            for step, indices, _ in rows
            if _was_before(index, step, stop)
        )


def _was_before(index, step, stop):
    episode = next(e for e, border in enumerate([4, 9, 14]) if stop < border)
    begin, end = [0, 4, 9][episode], [4, 9, 14][episode]
    return step < begin or (index == 0 and step < end) or (index == 1 and step <= stop)


def test_reading_draws_nothing_from_the_replica_s_global_generators():
    model, optimizer = tiny()
    torch.manual_seed(3)
    random.seed(3)
    for replica in IMWA(model, optimizer, replicas=1, episodes=2, steps=5):
        for _ in replica.batches(loader()):
            pass
    after = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    assert after == (torch.rand(1), random.random())


def test_a_data_set_that_reads_many_at_once_is_asked_so():
    class Many(Noisy):
        def __getitems__(self, indices):
            return [(index, -1.0) for index in indices]

    rows = collect(loader(Many()), steps=3, episodes=1)[0]
    assert all(noise < 0.0 for _, _, noises in rows for noise in noises)


def test_a_random_sampler_of_the_loader_draws_from_the_replica():
    weights = [0.0] * 20 + [1.0, 1.0, 2.0]
    weighted = loader(sampler=WeightedRandomSampler(weights, num_samples=16))
    rows = collect(weighted, steps=8)
    assert {index for _, indices, _ in rows[0] for index in indices} == {20, 21, 22}
    assert rows[0] != rows[1]
    assert collect(weighted, steps=8, episodes=4) == rows
    subset = collect(loader(sampler=SubsetRandomSampler([3, 5, 7, 9, 11])), steps=2, episodes=1)
    assert sorted(index for _, indices, _ in subset[0] for index in indices) == [3, 5, 7, 9, 11]
    again = loader(sampler=RandomSampler(range(23), replacement=True, num_samples=50))
    assert len(epoch_order(again, seed=0, replica=0, epoch=0)) == 50


def test_the_loader_itself_is_left_as_it_was():
    weighted = loader(sampler=WeightedRandomSampler([1.0] * 23, num_samples=8))
    collect(weighted, steps=4)
    assert weighted.sampler.generator is None


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(4))


class OwnBatches:
    def __iter__(self):
        return iter([[0, 1], [2]])

    def __len__(self):
        return 2


class OwnSampler:
    def __iter__(self):
        return iter(range(5))

    def __len__(self):
        return 5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DataLoader(Stream(), batch_size=2), "data set Stream is iterable"),
        (lambda: DataLoader(Noisy(), batch_sampler=OwnBatches()), "a batch sampler of its own, OwnBatches"),
        (lambda: DataLoader(Noisy(), sampler=OwnSampler()), "sampler OwnSampler takes no generator"),
        (lambda: DataLoader(Noisy(), batch_size=None), "batch_size=None"),
        (lambda: DataLoader(Noisy(3), batch_size=4, drop_last=True), "no batch: batch_size=4 with drop_last=True"),
        (lambda: itertools.count(), "takes a torch DataLoader, not a count"),
    ],
)
def test_a_loader_that_cannot_be_cut_is_refused_by_name(make, sentence):
    model, optimizer = tiny()
    replica = next(iter(IMWA(model, optimizer, steps=3, episodes=1)))
    with pytest.raises(ValueError, match=sentence):
        replica.batches(make())


def test_an_error_of_the_data_set_comes_through_and_its_step_is_not_counted():
    class Broken(Noisy):
        def __getitem__(self, index):
            if len(self.read) == 5:
                raise OSError(f"cannot read item {index}")
            return super().__getitem__(index)

    model, optimizer = tiny()
    before = torch.get_rng_state()
    replica = next(iter(IMWA(model, optimizer, steps=6, episodes=1)))
    with pytest.raises(OSError, match="cannot read item"):
        list(replica.batches(loader(Broken())))
    assert replica.steps.following == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_steps_and_batches_may_be_mixed():
    model, optimizer = tiny()
    for replica in IMWA(model, optimizer, replicas=1, episodes=1, steps=4):
        assert next(replica.steps) == 0
        assert [step for step, _ in replica.batches(loader())] == [1, 2, 3]
