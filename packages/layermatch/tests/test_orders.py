import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layermatch.data.orders import labelled_order, unlabelled_order
from scarce_common_utils.streams import stream


@settings(max_examples=60)
@given(size=st.integers(1, 40), batch=st.integers(1, 50), steps=st.integers(1, 12), seed=st.integers(0, 3))
def test_steps_laid_end_to_end_are_whole_passes(size, batch, steps, seed):
    row = torch.cat([unlabelled_order(seed, step, size=size, batch=batch) for step in range(steps)])
    assert len(row) == steps * batch
    for start in range(0, len(row) - size + 1, size):
        assert row[start : start + size].sort().values.tolist() == list(range(size))
    assert row[size * (len(row) // size) :].unique().numel() == len(row) % size


def test_a_pass_is_the_stream_named_in_the_design():
    expected = torch.randperm(10, generator=stream(3, "labelled order", 1))
    assert labelled_order(3, 2, size=10, batch=5).tolist() == expected[:5].tolist()
    expected = torch.randperm(10, generator=stream(3, "unlabelled order", 0))
    assert unlabelled_order(3, 1, size=10, batch=5).tolist() == expected[5:].tolist()


def test_any_step_can_be_asked_for_alone_and_passes_differ():
    whole = [labelled_order(0, step, size=7, batch=3) for step in range(30)]
    assert torch.equal(labelled_order(0, 29, size=7, batch=3), whole[29])
    assert not torch.equal(labelled_order(0, 0, size=50, batch=50), labelled_order(0, 1, size=50, batch=50))
    assert not torch.equal(labelled_order(0, 0, size=50, batch=50), labelled_order(1, 0, size=50, batch=50))
    assert not torch.equal(labelled_order(0, 0, size=50, batch=50), unlabelled_order(0, 0, size=50, batch=50))


@pytest.mark.parametrize(("size", "batch", "step"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_values_out_of_range_are_named(size, batch, step):
    with pytest.raises(ValueError, match=f"size is {size}, batch {batch} and step {step}"):
        labelled_order(0, step, size=size, batch=batch)
