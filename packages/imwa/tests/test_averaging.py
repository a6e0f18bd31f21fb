"""The mean of states: floats, counters, ties, what is refused, and the oracles O6, O9, O17 and O19 of the paper page."""

import itertools
import math

import pytest
import torch

from imwa import average_models, average_state_dicts
from imwa.averaging import KnownTensors, module_tensors
from imwa.replica_sum import ReplicaSum
from reference.mean import slow_mean


def random_states(count, shape, dtype=torch.float64, *, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [{"w": torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)} for _ in range(count)]


def summed(states):
    total = ReplicaSum()
    for state in states:
        total.add(state)
    return total.mean()


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (0, 4), (3000, 401)])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_against_the_slow_twin(mean, dtype, shape, count):
    if math.prod(shape) > 100 and (count, dtype) not in {(3, torch.float64), (3, torch.bfloat16), (8, torch.float32)}:
        shape = (300, 41)
    states = random_states(count, shape, dtype)
    kept = [state["w"].clone() for state in states]
    result = mean(states)["w"]
    assert result.dtype == dtype
    assert result.shape == shape
    expected = slow_mean(kept)
    bound = {torch.float64: 0.0, torch.float32: 3e-7, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    size = sum(value.double().abs() for value in kept) / count
    assert ((result.double() - expected).abs() <= bound * size).all()
    assert all(torch.equal(state["w"], value) for state, value in zip(states, kept, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_both_ways_give_the_same_bits(dtype):
    states = random_states(5, (2000, 300), dtype)
    states = [{**state, "same": torch.full((3,), 0.1), "n": torch.tensor(4)} for state in states]
    one, other = average_state_dicts(states), summed(states)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
def test_one_state_keeps_every_bit(mean):
    values = torch.tensor([-0.0, 0.0, 1e-45, 3.4e38, -math.inf, math.inf, 0.1])
    result = mean([{"w": values}])["w"]
    assert torch.equal(result.view(torch.int32), values.view(torch.int32))
    assert result.data_ptr() != values.data_ptr()


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
@pytest.mark.parametrize("count", range(1, 17))
def test_o6_the_mean_is_linear_and_keeps_constants(mean, count):
    ones, others = random_states(count, (40,)), random_states(count, (40,), seed=1)
    mixed = [{"w": 2.5 * one["w"] - 0.75 * other["w"]} for one, other in zip(ones, others, strict=True)]
    expected = 2.5 * mean(ones)["w"] - 0.75 * mean(others)["w"]
    assert (mean(mixed)["w"] - expected).abs().max() < 1e-14
    constant = ones[0]["w"]
    assert torch.equal(mean([{"w": constant.clone()} for _ in range(count)])["w"], constant)
    near = [{"w": constant.clone()} for _ in range(count - 1)] + [
        {"w": constant + torch.eye(40, dtype=torch.float64)[0]}
    ]
    assert (mean(near)["w"][1:] - constant[1:]).abs().max() < 1e-14


def test_the_last_may_differ_where_all_before_were_equal():
    """The sum of equal values is only made up when one differs: ((x + x) + x) + y, the same bits as without that."""
    x, y = random_states(2, (50,))
    assert torch.equal(summed([x, x, x, y])["w"], (((x["w"] + x["w"]) + x["w"]) + y["w"]) / 4)


def test_o9_permutations_move_the_mean_by_rounding_alone():
    for count, permutations in ((2, 2), (3, 6), (8, 100)):
        states = random_states(count, (500,))
        base = average_state_dicts(states)["w"]
        bound = 2 * (count - 1) * 2.0**-53 * sum(state["w"].abs() for state in states) / count
        draw = torch.Generator().manual_seed(count)
        for _ in range(permutations):
            order = torch.randperm(count, generator=draw).tolist()
            moved = average_state_dicts([states[index] for index in order])["w"]
            assert ((moved - base).abs() <= bound).all()
            assert count > 2 or torch.equal(moved, base)


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
def test_o17_bfloat16_is_the_float64_mean_rounded_once(mean):
    states = random_states(8, (100_000,), torch.bfloat16, seed=3)
    exact = (torch.stack([state["w"].double() for state in states]).sum(0) / 8).to(torch.bfloat16)
    off = (mean(states)["w"] != exact).sum().item()
    assert off <= 1
    naive = states[0]["w"].clone()
    for state in states[1:]:
        naive += state["w"]
    assert ((naive / 8) != exact).float().mean() > 0.1  # what the rule is there against


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
def test_counters_are_equal_or_the_largest_and_stay_integers(mean):
    states = [
        {"n": torch.tensor(3), "one": torch.tensor([7], dtype=torch.int16), "k": 2},
        {"n": torch.tensor(6), "one": torch.tensor([5], dtype=torch.int16), "k": 9},
    ]
    result = mean(states)
    assert (result["n"].item(), result["n"].dtype) == (6, torch.int64)
    assert (result["one"].item(), result["one"].dtype, result["one"].shape) == (7, torch.int16, (1,))
    assert result["k"] == 9


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4])),
        ("relu", "gelu"),
        (True, False),
    ],
)
def test_what_has_no_mean_must_be_equal(mean, one, other):
    assert mean([{"ids": one}, {"ids": one}])["ids"] is not None
    with pytest.raises(ValueError, match="'ids' differs between"):
        mean([{"ids": one}, {"ids": other}])


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_nan_is_refused_by_name(mean, dtype, which):
    states = [{"fine": torch.ones(2), "layer.weight": torch.ones(3, 4, dtype=dtype) * (m + 1)} for m in range(3)]
    states[which]["layer.weight"][2, 1] = math.nan
    with pytest.raises(ValueError, match=rf"'layer.weight' of state {which} holds NaN"):
        mean(states)


@pytest.mark.parametrize("mean", [average_state_dicts, summed])
def test_infinities_and_the_smallest_float_pass_where_all_agree(mean):
    mask = torch.tensor([-math.inf, torch.finfo(torch.float32).min, 0.0])
    assert torch.equal(mean([{"mask": mask.clone()} for _ in range(3)])["mask"], mask)


def test_a_refused_state_leaves_the_sum_as_it_was():
    one, two, three = random_states(3, (6,))
    total = ReplicaSum()
    total.add(one)
    for bad in ({"w": torch.full((6,), math.nan, dtype=torch.float64)}, {"w": torch.ones(7)}, {"v": torch.ones(6)}, {}):
        with pytest.raises(ValueError, match=r"'[wv]'"):
            total.add(bad)
    total.add(two)
    total.add(three)
    assert torch.equal(total.mean()["w"], average_state_dicts([one, two, three])["w"])


def test_a_sum_goes_on_from_its_state_dict():
    states = random_states(4, (6,), torch.float16)
    for cut in range(5):
        first, second = ReplicaSum(), ReplicaSum()
        for state in states[:cut]:
            first.add(state)
        second.load_state_dict(first.state_dict())
        for state in states[cut:]:
            second.add(state)
        assert torch.equal(second.mean()["w"], summed(states)["w"])


def test_partial_sums_average_over_those_that_have_it():
    total = ReplicaSum(partial=True)
    for state in ({"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0), "b": torch.tensor(5.0)}, {"a": torch.tensor(6.0)}):
        total.add(state)
    assert {name: value.item() for name, value in total.mean().items()} == {"a": 3.0, "b": 5.0}
    assert total.missing() == ["b"]


def test_o19_names_that_share_a_tensor_share_one_in_the_result():
    states = []
    for value in (1.0, 4.0):
        weight = torch.full((2, 2), value)
        states.append({"embed": weight, "head": weight, "view": weight.t(), "other": weight.clone()})
    result = average_state_dicts(states)
    assert result["embed"] is result["head"]
    assert result["embed"] is not result["other"]
    assert torch.equal(result["other"], torch.full((2, 2), 2.5))
    loose = [states[0], {**states[1], "head": torch.full((2, 2), 8.0)}]
    assert average_state_dicts(loose)["head"][0, 0].item() == 4.5
    assert average_state_dicts(loose)["embed"][0, 0].item() == 2.5


def test_non_contiguous_and_overlapping_views():
    base = torch.arange(12.0).reshape(3, 4)
    states = [{"t": base.t(), "s": base[:, ::2]}, {"t": 3 * base.t(), "s": 3 * base[:, ::2]}]
    result = average_state_dicts(states)
    assert torch.equal(result["t"], 2 * base.t())
    assert torch.equal(result["s"], 2 * base[:, ::2])


def test_models_are_averaged_into_a_new_one():
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
        model.register_buffer("unsaved", torch.tensor([float(seed)]), persistent=False)
        model(torch.randn(8, 3))
        models.append(model)
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    result = average_models(models)
    expected = average_state_dicts([model.state_dict() for model in models])
    assert all(torch.equal(result.state_dict()[name], value) for name, value in expected.items())
    assert result.get_buffer("unsaved").item() == 1.0
    assert all(
        torch.equal(m.state_dict()[k], v) for m, state in zip(models, before, strict=True) for k, v in state.items()
    )
    assert all(p.requires_grad for p in result.parameters())


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="0 states"):
        average_state_dicts([])
    with pytest.raises(ValueError, match="0 models"):
        average_models([])


def test_every_order_of_devices_dtypes_and_kinds_keeps_the_first_s_order_of_names():
    names = ["z", "a", "m"]
    for order in itertools.permutations(names):
        states = [{name: torch.tensor([1.0 * index]) for name in order} for index in range(2)]
        assert list(average_state_dicts(states)) == list(order)


def test_tensors_have_the_names_and_the_order_of_named_modules():
    shared = torch.nn.Linear(2, 2)
    inner = torch.nn.Sequential(torch.nn.BatchNorm1d(2), shared, torch.nn.Sequential(shared, torch.nn.BatchNorm1d(2)))
    model = torch.nn.ModuleDict({"one": inner, "again": inner, "last": torch.nn.Linear(2, 1)})
    model.one.register_module("absent", None)
    named = [name for name, _ in model.named_parameters()] + [name for name, _ in model.named_buffers()]
    assert list(module_tensors(model)) == named
    assert all(value is model.get_parameter(name) for name, value in list(module_tensors(model).items())[:6])


def test_known_tensors_follow_every_change_of_the_module():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, affine=False), torch.nn.Linear(2, 1))
    known = KnownTensors(model)

    def exchange_a_parameter():
        model[0].weight = torch.nn.Parameter(torch.zeros(2, 2))

    def exchange_a_buffer():
        model[1].running_mean = torch.ones(2)

    def exchange_a_module():
        model[2] = torch.nn.Linear(2, 3)

    def one_comes():
        model.register_buffer("more", torch.zeros(1))

    def one_goes():
        del model[0].bias

    def one_comes_for_one_that_was_none():
        del model[1].weight
        model[1].register_parameter("other", torch.nn.Parameter(torch.zeros(1)))

    def tie():
        model[2].weight = model[0].weight

    changes = (exchange_a_parameter, exchange_a_buffer, exchange_a_module, one_comes, one_goes)
    for change in (lambda: None, *changes, one_comes_for_one_that_was_none, tie):
        change()
        for _ in range(2):
            found, expected = known(), module_tensors(model)
            assert list(found) == list(expected)
            assert all(found[name] is value for name, value in expected.items())
