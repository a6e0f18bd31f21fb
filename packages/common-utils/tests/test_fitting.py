import pytest
import torch
from torch import nn

from scarce_common_utils.fitting import refuse_unfitting, unfitting


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_the_same_tensors_fit():
    refuse_unfitting(model().state_dict(), model().state_dict(), whose="the file")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            lambda state: state.update({"0.weight": torch.zeros(4, 3)}),
            r"0\.weight is float32\[4, 3\] where float32\[2, 3\] is needed",
        ),
        (
            lambda state: state.update({"0.bias": state["0.bias"].double()}),
            r"0\.bias is float64\[2\] where float32\[2\] is needed",
        ),
        (lambda state: state.pop("1.running_var"), r"1\.running_var is missing"),
        (lambda state: state.update({"2.weight": torch.zeros(1)}), r"2\.weight is not needed"),
    ],
)
def test_each_difference_is_named(change, wanted):
    state = model().state_dict()
    change(state)
    with pytest.raises(ValueError, match=f"the file is of another model: {wanted}\\."):
        refuse_unfitting(model().state_dict(), state, whose="the file")


def test_many_differences_are_counted():
    state = {name: value.double() for name, value in model().state_dict().items()}
    state["more"] = torch.zeros(1)
    state["1.num_batches_tracked"] = torch.zeros(())
    assert len(unfitting(model().state_dict(), state)) == 8
    with pytest.raises(ValueError, match="; and 3 more"):
        refuse_unfitting(model().state_dict(), state, whose="the file")


def test_of_shared_tensors_one_name_is_enough():
    tied = model()
    tied.add_module("again", tied[0])
    needed = tied.state_dict()
    stored = {name: value.clone() for name, value in needed.items() if not name.startswith("again.")}
    assert unfitting(needed, stored) == []
    del stored["0.weight"]
    assert unfitting(needed, stored) == ["0.weight is missing", "again.weight is missing"]
