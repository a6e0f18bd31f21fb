import pytest
import torch
from torch import nn

from layermatch import ModelAverage
from reference.centres import averaged


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def flat(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def move(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
        module[1].running_mean.add_(1.0)
        module[1].num_batches_tracked.add_(1)


@pytest.mark.parametrize("flag", [None, torch.tensor(True)])
def test_parameters_are_the_weighted_sum_and_buffers_a_copy(flag):
    live = model()
    average = ModelAverage(live, momentum=0.9)
    start, seen = flat(live).tolist(), []
    for _ in range(6):
        move(live)
        average.update(step_taken=flag)
        seen.append(flat(live).tolist())
    torch.testing.assert_close(
        flat(average.average), torch.tensor(averaged(start, seen, 0.9), dtype=torch.float64), rtol=0, atol=1e-12
    )
    for name, buffer in live.named_buffers():
        assert torch.equal(dict(average.average.named_buffers())[name], buffer)
    assert not any(parameter.requires_grad for parameter in average.average.parameters())
    assert not average.average.training


def test_a_skipped_step_moves_nothing_not_even_for_nan():
    live = model()
    average = ModelAverage(live, momentum=0.5)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    move(live)
    with torch.no_grad():
        live[0].weight.fill_(float("nan"))
        live[1].running_mean.fill_(float("nan"))
    average.update(step_taken=torch.tensor(False))
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


def test_state_comes_back():
    live = model()
    first = ModelAverage(live, momentum=0.5)
    move(live)
    first.update()
    second = ModelAverage(model(), momentum=0.5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(flat(first.average), flat(second.average))


def test_a_momentum_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"momentum is 1.5"):
        ModelAverage(model(), momentum=1.5)
