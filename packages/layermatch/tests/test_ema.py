import copy
import io

import pytest
import torch
from torch import nn

from host_reads import HostReads
from layermatch import ModelAverage
from layermatch.training.ema import move
from reference.centres import averaged

BOTH = pytest.mark.parametrize("flat_layout", [False, True])


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))


def flat(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def everything(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def move_on(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
        module[1].running_mean.add_(1.0)
        module[1].num_batches_tracked.add_(1)


@BOTH
@pytest.mark.parametrize("flag", [None, torch.tensor(True)])
def test_parameters_are_the_weighted_sum_and_buffers_a_copy(flag, flat_layout):
    live = model()
    average = ModelAverage(live, momentum=0.9, flat=flat_layout)
    start, seen = flat(live).tolist(), []
    for _ in range(6):
        move_on(live)
        average.update(step_taken=flag)
        seen.append(flat(live).tolist())
    torch.testing.assert_close(
        flat(average.average), torch.tensor(averaged(start, seen, 0.9), dtype=torch.float64), rtol=0, atol=1e-12
    )
    for name, buffer in live.named_buffers():
        assert torch.equal(dict(average.average.named_buffers())[name], buffer)
    assert average.average[1].num_batches_tracked.item() == 6
    assert average.average[1].num_batches_tracked.dtype == torch.int64
    assert not any(parameter.requires_grad for parameter in average.average.parameters())
    assert not average.average.training


@BOTH
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_the_momentum(momentum, flat_layout):
    live = model()
    average = ModelAverage(live, momentum=momentum, flat=flat_layout)
    start = flat(live)
    move_on(live)
    average.update()
    assert torch.equal(flat(average.average), start if momentum else flat(live))


@BOTH
def test_a_skipped_step_moves_nothing_not_even_for_nan(flat_layout):
    live = model()
    average = ModelAverage(live, momentum=0.5, flat=flat_layout)
    before = everything(average)
    move_on(live)
    with torch.no_grad():
        live[0].weight.fill_(float("nan"))
        live[1].running_mean.fill_(float("nan"))
    average.update(step_taken=torch.tensor(False))
    assert same(everything(average), before)


@pytest.mark.parametrize("taken", [True, False])
def test_the_skip_on_a_device_is_by_where_and_reads_nothing(taken):
    held, now = ([torch.randn(2, 3), torch.randn(4)] for _ in range(2))
    counts = [torch.tensor(3), torch.tensor(5)], [torch.tensor(4), torch.tensor(6)]
    if not taken:
        now[0][0, 0] = float("nan")
    before = copy.deepcopy(held)
    with HostReads() as reads:
        move(held, now, share=0.25, taken=torch.tensor(taken))
        move(*counts, share=None, taken=torch.tensor(taken))
    assert reads.found == []
    expected = [torch.lerp(old, new, 0.25) if taken else old for old, new in zip(before, now, strict=True)]
    assert all(map(torch.equal, held, expected))
    assert [int(count) for count in counts[0]] == ([4, 6] if taken else [3, 5])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flat_and_not_flat_give_the_same_bits_and_training_goes_on(layout):
    pairs = []
    for flat_layout in (False, True):
        live = convolutional().to(memory_format=layout)
        optimizer = torch.optim.SGD(live.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
        average = ModelAverage(live, momentum=0.9, flat=flat_layout)
        torch.manual_seed(1)
        for _ in range(4):
            optimizer.zero_grad()
            live(torch.randn(8, 3, 3, 3)).square().sum().backward()
            optimizer.step()
            average.update()
        pairs.append((everything(live), everything(average)))
        assert live[0].weight.is_contiguous(memory_format=layout)
    assert same(pairs[0][0], pairs[1][0])
    assert same(pairs[0][1], pairs[1][1])
    assert not torch.equal(pairs[0][0]["0.weight"], pairs[0][1]["0.weight"])


def test_a_flat_model_saves_loads_and_copies_as_any_other():
    live = convolutional()
    average = ModelAverage(live, momentum=0.9, flat=True)
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    fresh = convolutional()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert same(everything(fresh), everything(live))
    duplicate = copy.deepcopy(live)
    with torch.no_grad():
        duplicate[0].weight.zero_()
    assert live[0].weight.abs().sum() > 0
    move_on(fresh)
    live.load_state_dict(fresh.state_dict())
    average.load_state_dict(fresh.state_dict())
    average.update()  # still tied to the model: loading copied in place
    assert same(everything(average), everything(fresh))


def test_a_flat_model_that_was_moved_afterwards_is_refused():
    live = convolutional()
    average = ModelAverage(live, momentum=0.9, flat=True)
    live.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="moved to another device, dtype or memory format"):
        average.update()
    live = convolutional()
    average = ModelAverage(live, momentum=0.9, flat=True)
    average.average.double()
    with pytest.raises(RuntimeError, match="its average, was moved"):
        average.update()


def test_tensors_that_share_memory_are_named_and_tied_ones_work():
    live = convolutional()
    live[1].register_buffer("again", live[1].weight.data)
    with pytest.raises(ValueError, match=r"1.weight and 1.again share memory"):
        ModelAverage(live, momentum=0.9, flat=True)
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight
    average = ModelAverage(tied, momentum=0.0, flat=True)
    with torch.no_grad():
        tied[0].weight.add_(1.0)
    average.update()
    assert average.average[0].weight is average.average[1].weight
    assert torch.equal(average.average[1].weight, tied[1].weight)


@BOTH
def test_half_precision_is_averaged_in_float32(flat_layout):
    live = nn.Linear(2, 2).to(torch.bfloat16)
    with torch.no_grad():
        live.weight.fill_(1.0)
    average = ModelAverage(live, momentum=0.999, flat=flat_layout)
    assert average.average.weight.dtype == torch.float32
    with torch.no_grad():
        live.weight.fill_(2.0)
    for _ in range(100):
        average.update()
    expected = torch.full((2, 2), 2.0 - 0.999**100)
    torch.testing.assert_close(average.average.weight.detach(), expected, rtol=1e-5, atol=0)


def test_wrapped_models_are_averaged_as_what_they_wrap(tmp_path):
    live = convolutional()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for flat_layout in (False, True):
            wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(live))
            average = ModelAverage(wrapped, momentum=0.0, flat=flat_layout)
            assert average.state_dict().keys() == live.state_dict().keys()
            optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
            wrapped(torch.randn(8, 3, 3, 3)).square().sum().backward()
            optimizer.step()
            average.update(step_taken=torch.tensor(True))
            assert same(everything(average), everything(wrapped.module))
            assert not torch.equal(wrapped.module[0].weight, live[0].weight)
    finally:
        torch.distributed.destroy_process_group()
    average = ModelAverage(torch.compile(live), momentum=0.5)
    assert average.state_dict().keys() == live.state_dict().keys()


def test_whole_numbers_among_the_parameters_are_copied():
    live = nn.ParameterDict({"code": nn.Parameter(torch.tensor([1, 2]), requires_grad=False)})
    average = ModelAverage(live, momentum=0.9)
    live["code"].data.copy_(torch.tensor([5, 6]))
    average.update()
    assert average.average["code"].tolist() == [5, 6]


def test_state_comes_back():
    live = model()
    first = ModelAverage(live, momentum=0.5)
    move_on(live)
    first.update()
    second = ModelAverage(model(), momentum=0.5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(flat(first.average), flat(second.average))


def test_a_momentum_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"momentum is 1.5"):
        ModelAverage(model(), momentum=1.5)
