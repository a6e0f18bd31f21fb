"""States that do not belong together are refused with a list."""

import pytest
import torch

from imwa import average_state_dicts
from imwa.compatibility import list_differences

BASE = {"head.weight": torch.ones(4, 3), "head.bias": torch.ones(4)}


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"head.weight": torch.ones(4, 3)}, "'head.bias' is in state 0 and not in state 1"),
        ({**BASE, "extra": torch.ones(1)}, "'extra' is in state 1 and not in state 0"),
        (
            {**BASE, "head.weight": torch.ones(1, 3)},
            r"'head.weight' is float32 of shape \(4, 3\) in state 0 and float32 of shape \(1, 3\)",
        ),
        ({**BASE, "head.bias": torch.ones(4).half()}, r"'head.bias' is float32 of shape \(4,\) in state 0 and float16"),
        ({**BASE, "head.bias": 1.0}, "'head.bias' is float32 .* and the float 1.0 in state 1"),
    ],
)
def test_each_difference_is_named(other, sentence):
    with pytest.raises(ValueError, match=f"2 states do not belong together: .*{sentence}"):
        average_state_dicts([BASE, other])


def test_the_list_is_whole_and_the_refusal_short():
    other = {f"n{i}": torch.ones(1) for i in range(20)}
    assert len(list_differences([BASE, other])) == 22
    with pytest.raises(ValueError, match="and 10 more"):
        average_state_dicts([BASE, other])


def test_what_belongs_together_has_no_differences():
    assert list_differences([BASE, {name: value * 2 for name, value in BASE.items()}]) == []
