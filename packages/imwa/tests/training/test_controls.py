"""Parts of the controls: stages, warm-up, moving average, ensemble, a start from a file; each against a plain loop."""

import copy
import itertools

import pytest
import torch
from safetensors.torch import save_file

from imwa.models.resnet_cifar import small_resnet
from imwa.training.ema import MovingAverage
from imwa.training.ensemble import Ensemble
from imwa.training.initial import start_from
from imwa.training.schedule import learning_rate
from imwa.training.stages import Stage, cost_of, stages_of
from scarce_common_utils.errors import UserError


@pytest.mark.parametrize("steps", [1, 7, 450])
def test_stages_cover_the_run_without_a_gap_and_none_is_empty(steps):
    for shared, until in itertools.product((0.0, 0.1, 0.3), (0.4, 0.9, 1.0)):
        found = stages_of(steps, replicas=3, episodes=30, shared_start=shared, average_until=until)
        assert [step for stage in found for step in range(stage.start, stage.stop)] == list(range(steps))
        assert all(stage.stop > stage.start and stage.episodes <= stage.stop - stage.start for stage in found)
        assert cost_of(found) == sum(stage.replicas * (stage.stop - stage.start) for stage in found)
    assert stages_of(450, replicas=3, episodes=1, shared_start=0.1) == [Stage(0, 45, 1, 1), Stage(45, 450, 3, 1)]
    assert cost_of(stages_of(450, replicas=3, episodes=1, shared_start=0.1)) == 45 + 3 * 405
    assert stages_of(450, replicas=3, episodes=5, average_until=0.2) == [Stage(0, 90, 3, 5), Stage(90, 450, 1, 1)]
    assert stages_of(450, replicas=3, episodes=5) == [Stage(0, 450, 3, 5)]


def test_the_learning_rate_rises_over_the_warm_up_and_then_follows_its_course():
    for name in ("cosine", "constant"):
        plain = [learning_rate(name, step, steps=40, rate=0.3) for step in range(40)]
        warm = [learning_rate(name, step, steps=40, rate=0.3, warm_up=4) for step in range(40)]
        assert warm[:4] == pytest.approx([(step + 1) / 4 * plain[step] for step in range(4)])
        assert warm[4:] == plain[4:]
    assert {learning_rate("constant", step, steps=40, rate=0.3) for step in range(40)} == {0.3}


def test_the_moving_average_against_a_loop_over_its_tensors():
    torch.manual_seed(0)
    model = small_resnet(3).double()
    ema = MovingAverage(model, decay=0.7)
    expected = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 8, 8, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        ema.update()
        for name, value in model.state_dict().items():
            whole = not value.is_floating_point()
            expected[name] = value.clone() if whole else 0.7 * expected[name] + 0.3 * value
    for name, value in ema.model.state_dict().items():
        assert (value - expected[name]).abs().max() < 1e-13, name
    assert ema.model.norm.num_batches_tracked == 4
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert (ema.model.conv.weight - model.conv.weight).abs().max() > 1e-4


def test_the_ensemble_is_the_mean_of_the_replicas_softmax():
    logits = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 4
    ensemble = Ensemble()
    assert ensemble.accuracy(labels) is None
    for one in logits:
        ensemble.add(one)
    predicted = torch.stack([one.exp() / one.exp().sum(1, keepdim=True) for one in logits]).mean(0).argmax(1)
    assert ensemble.accuracy(labels) == pytest.approx(100 * sum(predicted == labels).item() / 50)
    before = ensemble.total.clone()
    ensemble.add(torch.full((50, 4), torch.nan))  # a replica that diverged
    assert torch.equal(ensemble.total, before)


def test_ensembles_of_processes_join_in_their_order():
    parts = [Ensemble(), Ensemble(), Ensemble()]
    logits = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
    for part, own in zip(parts, ([0, 1], [], [2, 3]), strict=True):
        for m in own:
            part.add(logits[m])
    joined = Ensemble()
    joined.join([part.total for part in parts])
    assert torch.allclose(joined.total, logits.double().softmax(-1).sum(0))


def test_a_start_from_a_file_takes_everything_but_the_classifier(tmp_path):
    torch.manual_seed(0)
    source, model = small_resnet(7), small_resnet(3)
    source(torch.randn(16, 1, 8, 8))
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    drawn = copy.deepcopy(model.classifier.state_dict())
    start_from(model, tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        own = name.startswith("classifier.")
        assert torch.equal(value, drawn[name.removeprefix("classifier.")] if own else source.state_dict()[name]), name
    assert model.norm.num_batches_tracked == 1


def test_a_file_of_another_model_is_refused_by_name_and_nothing_is_written(tmp_path):
    save_file(small_resnet(3, channels=3).state_dict(), tmp_path / "colour.safetensors")
    model = small_resnet(3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        UserError, match=r"'conv.weight' is \(12, 3, 3, 3\) in the file and \(12, 1, 3, 3\) in the model"
    ):
        start_from(model, tmp_path / "colour.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"'conv.weight' is not in the file"):
        start_from(model, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"torn.safetensors cannot be read"):
        start_from(model, tmp_path / "torn.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
