"""What is not finite is found by its place, and a mask is let through."""

import pytest
import torch

from scarce_common_utils.errors import UserError
from scarce_common_utils.finite import named, not_finite, refuse_not_finite

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_one_number_of_one_tensor_is_found(value, dtype):
    state = {
        "model": {"weight": torch.arange(6.0).to(dtype), "steps": torch.tensor(3)},
        "more": [torch.ones(2), "text", None],
    }
    assert not_finite(state) == []
    state["model"]["weight"][4] = value
    assert not_finite(state) == ["model.weight"]
    state["more"][0][1] = value
    assert not_finite(state) == ["model.weight", "more.0"]


def test_plain_floats_count_and_whole_numbers_do_not():
    assert not_finite({"rate": NAN, "decay": -INF, "steps": 3, "flag": True, "fine": 1e308}) == ["rate", "decay"]


def test_masks_pass_and_what_is_none_does_not():
    mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -INF)
    assert not_finite({"mask": mask, "all": torch.full((2,), -INF), "empty": torch.zeros(0)}) == []
    assert not_finite({"other sign": -mask}) == ["other sign"]
    assert not_finite({"with a number": mask + torch.eye(3)}) == ["with a number"]
    mask[0, 1] = NAN
    assert not_finite({"with a NaN": mask}) == ["with a NaN"]


def test_the_sentence_names_the_first_and_counts_the_others():
    refuse_not_finite({"a": torch.ones(1)}, when="after step 3")
    with pytest.raises(UserError, match=r"^'a' holds NaN or infinity after step 3\. .*--resume goes on from it"):
        refuse_not_finite({"a": torch.tensor([NAN])}, when="after step 3")
    assert named(["a", "b"]) == "'a' and 1 more tensor"
    assert named(["a", "b", "c"]) == "'a' and 2 more tensors"
