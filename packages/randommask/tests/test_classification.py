import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randommask.training.classification import confusion_matrix, matthews, score
from reference import classification as twin


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_matthews_equals_the_twin(pairs):
    true, found = (torch.tensor(values) for values in zip(*pairs, strict=True))
    confusion = confusion_matrix(found, true, classes=4)
    assert confusion.tolist() == [[sum(p == (i, j) for p in pairs) for j in range(4)] for i in range(4)]
    assert matthews(confusion) == pytest.approx(twin.matthews(true.tolist(), found.tolist()), abs=1e-12)


def test_a_constant_prediction_is_zero_and_a_perfect_one_is_one():
    labels = torch.tensor([0, 1, 2, 1])
    logits = torch.nn.functional.one_hot(labels, 3).float() * 5
    found = score(logits, labels)
    assert found.mcc == 1.0
    assert found.loss == pytest.approx(math.log(1 + 2 * math.exp(-5)), rel=1e-6)
    assert score(torch.tensor([[1.0, 0.0, 0.0]] * 4), labels).mcc == 0.0


def test_it_is_not_the_mean_over_batches():
    true = torch.tensor([0, 0, 1, 1, 0, 1])
    found = torch.tensor([0, 1, 1, 1, 0, 0])
    whole = matthews(confusion_matrix(found, true, classes=2))
    halves = [matthews(confusion_matrix(found[s], true[s], classes=2)) for s in (slice(0, 3), slice(3, 6))]
    assert whole != pytest.approx(sum(halves) / 2)
