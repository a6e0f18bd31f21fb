"""The flat array: words of 64 bits pass a sum of floats exactly, floats lie where their views say, a NaN anywhere is seen."""

import pytest
import torch

from imwa import flat_buffer
from imwa.flat_buffer import FlatBuffer, Forms, tensors_of, words_of

WORDS = [0, 1, -1, 2**62 + 12345, -(2**63), 65535, 65536]


def state(seed):
    draw = torch.Generator().manual_seed(seed)
    floats = {f"w{n}": torch.randn(n, 3, generator=draw) for n in (1, 4, 0, 7)}
    counters = {f"c{n}": torch.tensor(word) for n, word in enumerate(WORDS)}
    return {
        "model": {**floats, **counters},
        "optimizer": {"0/exp_avg": torch.randn(5, generator=draw), "0/step": torch.tensor(3.0)},
    }


def leaves_of(parts):
    return [leaf for part in parts.values() for leaf in part.values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_words_and_agreements_of_every_replica_survive_the_sum_to_the_bit(dtype):
    parts = state(0)
    parts["model"]["wide"] = torch.zeros(2, dtype=dtype)
    form = Forms().of(parts, leaves_of(parts))
    buffers = [FlatBuffer(form, replicas=3, device=torch.device("cpu")) for _ in range(3)]
    words = words_of(leaves_of(parts), form)
    assert [words["model", f"c{n}"] for n in range(len(WORDS))] == WORDS
    told = [[1, -(2**63), 2**63 - 1, m] for m in range(3)]
    keys = buffers[0].sums
    for m, buffer in enumerate(buffers):
        buffer.put_flags_and_words({keys[m]: 1, keys[-1]: 1}, {m: words}, {m: told[m]})
    buffers[0].array += buffers[1].array + buffers[2].array
    flags, found, agreement = buffers[0].read_flags_and_words()
    assert found == [words] * 3
    assert agreement == told
    assert flags.tolist() == [1, 1, 1, *[0] * (len(keys) - 4), 3]


@pytest.mark.parametrize("large", [1, 12, 2**15])
def test_floats_lie_where_their_views_say_and_a_nan_anywhere_is_seen(monkeypatch, large):
    monkeypatch.setattr(flat_buffer, "LARGE", large)
    for group in (1, 5, 2**18):
        monkeypatch.setattr(flat_buffer, "GROUP", group)
        parts = state(1)
        form = Forms().of(parts, leaves_of(parts))
        buffer = FlatBuffer(form, replicas=2, device=torch.device("cpu"))
        tensors = tensors_of(leaves_of(parts), form)

        def filled(tensors, buffer=buffer):
            return buffer.fill_checked([tensors[key] for key in buffer.sums])

        assert filled(tensors)
        for key, value in tensors.items():
            assert torch.equal(buffer.views[key], value), key
        for key, value in tensors.items():
            for place in range(value.numel()):
                spoiled = {**tensors, key: value.clone()}
                spoiled[key].view(-1)[place] = torch.nan
                assert not filled(spoiled)
        value = tensors["model", "w4"]
        value[0, 0] = torch.inf
        assert filled(tensors)
        value[1, 1] = -torch.inf
        assert not filled(tensors)  # may be a NaN: then all is looked over


def test_tensors_are_divided_where_they_go_and_all_others_in_the_array(monkeypatch):
    monkeypatch.setattr(flat_buffer, "LARGE", 5)
    parts = state(2)
    form = Forms().of(parts, leaves_of(parts))
    buffer = FlatBuffer(form, replicas=2, device=torch.device("cpu"))
    tensors = tensors_of(leaves_of(parts), form)
    assert buffer.large == [("model", "w4"), ("model", "w7"), ("optimizer", "0/exp_avg")]
    some = {("model", "w7"): torch.empty(7, 3), ("model", "w1"): torch.empty(3, 1).t()}
    for places in ({}, some, {key: torch.empty_like(value) for key, value in tensors.items()}):
        buffer.fill([tensors])
        buffer.divide(3, into=places)
        for key, value in tensors.items():
            assert torch.equal(places.get(key, buffer.views[key]), value / 3), key
