import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randommask import KmerTokenizer
from randommask.models.presets import bert_config
from randommask.training.chunking import collate_pieces, even_pieces, pooled
from randommask.training.encoders import scratch_classifier, specials_of
from randommask.training.finetuning import Encoded, logits_of


@given(st.integers(0, 3000), st.integers(1, 600))
def test_every_token_stands_in_one_piece_and_pieces_are_even(tokens, most):
    pieces = even_pieces(tokens, most=most)
    assert [place for start, stop in pieces for place in range(start, stop)] == list(range(tokens))
    lengths = [stop - start for start, stop in pieces]
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
    assert len(pieces) == max(1, -(-tokens // most))


def test_pooled_is_the_mean_of_a_rows_pieces():
    logits = torch.tensor([[1.0, 2.0], [3.0, 6.0], [10.0, 0.0]])
    assert pooled(logits, torch.tensor([0, 0, 1]), count=2).tolist() == [[2.0, 4.0], [10.0, 0.0]]


def test_a_batch_of_pieces():
    rows = [
        {"pieces": [numpy.array([2, 7, 3]), numpy.array([2, 8, 9, 3])], "labels": torch.tensor(1)},
        {"pieces": [numpy.array([2, 3])], "labels": torch.tensor(0)},
    ]
    batch = collate_pieces(rows, pad=0)
    assert batch["input_ids"].tolist() == [[2, 7, 3, 0], [2, 8, 9, 3], [2, 3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1] * 4, [1, 1, 0, 0]]
    assert batch["rows"].tolist() == [0, 0, 1]
    assert batch["labels"].tolist() == [1, 0]


def test_a_long_row_is_the_mean_over_its_pieces_of_the_plain_model():
    model, tokenizer = scratch_classifier("tiny", k=3, start="usual", labels=["a", "b"], dropout=0.0, seed=0)
    model.eval()
    model.config.max_position_embeddings = tokenizer.model_max_length = 12  # 10 k-mers between the specials
    sequences = ["ACGTTGCAACGATTACAGATGGCAT", "ACGTTGCAAC"]  # 23 and 8 k-mers
    rows = Encoded(sequences, torch.tensor([0, 1]), tokenizer, config=model.config)
    assert (rows.cut, [len(pieces) for pieces in rows.pieces], rows.specials.most) == (1, [3, 1], 10)
    ids = tokenizer(sequences, add_special_tokens=False)["input_ids"]
    expected = []
    for row, cuts in zip(ids, ([(0, 7), (7, 15), (15, 23)], [(0, 8)]), strict=True):
        single = [model(torch.tensor([[2, *row[a:b], 3]])).logits[0] for a, b in cuts]
        expected.append(torch.stack(single).mean(0))
    torch.testing.assert_close(logits_of(model, rows), torch.stack(expected).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("overlap", [True, False])
def test_specials_of_our_tokenizer(overlap):
    tokenizer = KmerTokenizer(k=6, overlap=overlap, model_max_length=200)
    assert specials_of(tokenizer, bert_config("tiny", positions=100)) == ((2,), (3,), 0, 98)
