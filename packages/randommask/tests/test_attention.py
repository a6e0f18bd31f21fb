"""Measures of attention against loops, on padded rows; uniform attention and eager attention as oracles."""

import pytest
import torch

from randommask import KmerTokenizer, MaskedBert
from randommask.alphabet import base_codes
from randommask.analysis import attention as module
from randommask.analysis.attention import (
    MEASURES,
    attention_measures,
    attention_sums,
    row_lengths,
    uniform_level,
)
from randommask.models.presets import bert_config
from randommask.models.starts import start_weights
from reference import attention as twin

K = 3


def windows(lengths=(20, 31, 9, 14, 20)):
    letters = torch.randint(4, (len(lengths), 60), generator=torch.Generator().manual_seed(0))
    return [
        base_codes("".join("ACGT"[code] for code in row[:length]))
        for row, length in zip(letters.tolist(), lengths, strict=True)
    ]


def bert(seed=0):
    model = MaskedBert(bert_config("tiny", k=K, positions=64))
    start_weights(model, "structured", k=K, seed=seed)
    model.set_attn_implementation("eager")
    return model.eval()


@pytest.mark.parametrize("reach", [0, 2, 99])
def test_measures_are_those_of_the_slow_twin(reach):
    lengths, heads, longest = [5, 8, 2], 3, 8
    generator = torch.Generator().manual_seed(1)
    scores = 3 * torch.randn((3, heads, longest, longest), generator=generator)
    present = torch.arange(longest) < torch.tensor(lengths)[:, None]
    weights = scores.masked_fill(~present[:, None, None, :], -torch.inf).softmax(-1)
    found = attention_sums(weights, present, reach=reach)
    assert found.queries == 15
    expected = twin.measures(weights.double().tolist(), lengths, reach)
    assert torch.allclose(found.sums / found.queries, torch.tensor(expected, dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize("together", [1, 1 << 24])
def test_a_model_is_measured_over_all_its_rows(monkeypatch, together):
    monkeypatch.setattr(module, "_AT_ONCE", together)
    tokenizer, model, rows = KmerTokenizer(k=K), bert(), windows()
    found = attention_measures(model, rows, tokenizer)
    assert set(found) == set(MEASURES)
    sums, queries = torch.zeros(2, 2, 5, dtype=torch.float64), 0
    for row in rows:
        ids = torch.tensor(tokenizer(["".join("ATCG"[code] for code in row)])["input_ids"])
        with torch.no_grad():
            layers = model.bert(ids, output_attentions=True).attentions
        tokens = ids.shape[1]
        queries += tokens
        for layer, weights in enumerate(layers):
            mean = twin.measures(weights.double().tolist(), [tokens], K - 1)
            sums[layer] += tokens * torch.tensor(mean, dtype=torch.float64)
    for number, name in enumerate(MEASURES):
        assert torch.allclose(found[name], sums[..., number] / queries, rtol=1e-4, atol=1e-6)


def test_o_uniform_attention_stands_at_its_level():
    tokenizer, model, rows = KmerTokenizer(k=K), bert(), windows()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.query.weight.zero_()
            layer.attention.self.query.bias.zero_()
    level = uniform_level(row_lengths(rows, tokenizer), reach=K - 1)
    for name, values in attention_measures(model, rows, tokenizer).items():
        assert torch.allclose(values, torch.full((2, 2), level[name], dtype=torch.float64), rtol=1e-5), name
    assert level["entropy"] == 1.0
    assert level["cls"] == level["sep"] == level["top1"] == pytest.approx(5 / sum(row_lengths(rows, tokenizer)))


def test_all_keys_of_a_row_shorter_than_the_reach_are_near():
    assert uniform_level([3], reach=5)["near"] == pytest.approx(1.0)


def test_one_key_has_no_entropy_and_all_the_mass():
    weights = torch.zeros(1, 1, 4, 4)
    weights[..., 0] = 1
    found = attention_sums(weights, torch.ones(1, 4, dtype=torch.bool), reach=1)
    assert (found.sums / found.queries).tolist() == [[0.0, 1.0, 1.0, 0.0, 0.5]]


def test_eager_attention_computes_what_the_model_was_trained_with():
    tokenizer, model, rows = KmerTokenizer(k=K), bert(), windows()
    ids, mask, _ = tokenizer.token_rows(base_codes("ACGTTGCAACGTACG")[None], torch.tensor([15]).numpy())
    eager, fast = None, None
    with torch.no_grad():
        eager = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        model.set_attn_implementation("sdpa")
        fast = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
    assert torch.allclose(eager, fast, atol=1e-5)
    with pytest.raises(ValueError, match="'sdpa', which keeps no weights"):
        attention_measures(model, rows, tokenizer)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="no window"):
        attention_measures(bert(), [], KmerTokenizer(k=K))
    with pytest.raises(ValueError, match="A row has 1 tokens"):
        attention_sums(torch.ones(1, 1, 1, 1), torch.ones(1, 1, dtype=torch.bool), reach=1)
