import pickle

import pytest
import torch

from randommask.numbering import NumberedBatches, NumberedDataset, NumberedExample, NumberedIndex
from workers import numbers


def test_an_index_is_an_int_that_carries_its_number_through_pickle():
    index = NumberedIndex(7, 3)
    again = pickle.loads(pickle.dumps(index))
    assert (index, again, again.number, type(again)) == (7, 7, 3, NumberedIndex)
    assert list(range(10))[index] == 7


def test_examples_come_with_their_number_only_when_asked_for_by_one():
    dataset = NumberedDataset("abcdef")
    assert dataset[NumberedIndex(2, 9)] == NumberedExample(9, "c")
    assert dataset[2] == "c"
    assert len(dataset) == 6


def test_one_pass_of_full_batches_numbered_from_zero():
    batches = NumberedBatches(range(10), batch_size=4, batches=6, seed=3)
    dealt = list(batches)
    assert len(dealt) == len(batches) == 6
    assert [{index.number for index in batch} for batch in dealt] == [{number} for number in range(6)]
    flat = [int(index) for batch in dealt for index in batch]
    assert sorted(flat[:10]) == sorted(flat[10:20]) == list(range(10))
    assert flat[:10] != flat[10:20] != list(range(10))
    assert [list(map(int, batch)) for batch in batches] == [list(map(int, batch)) for batch in dealt]
    other = NumberedBatches(range(10), batch_size=4, batches=6, seed=4)
    assert list(map(int, next(iter(other)))) != flat[:4]


def test_without_shuffling_the_order_is_the_datas_own():
    batches = NumberedBatches(range(5), batch_size=3, batches=3, shuffle=False)
    assert [list(map(int, batch)) for batch in batches] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_numbers_arrive_whatever_the_workers(method):
    batches = NumberedBatches(range(10), batch_size=4, batches=6)
    loader = torch.utils.data.DataLoader(
        batches.dataset,
        batch_sampler=batches,
        collate_fn=numbers,
        num_workers=0 if method is None else 2,
        multiprocessing_context=method,
    )
    assert list(loader) == [[number] * 4 for number in range(6)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch_size": 0, "batches": 1}, "batch_size: 0"), ({"batch_size": 1, "batches": 0}, "batches: 0")],
)
def test_counts_below_one_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        NumberedBatches(range(3), **arguments)
    with pytest.raises(ValueError, match="examples in the dataset: 0"):
        NumberedBatches([], batch_size=1, batches=1)
