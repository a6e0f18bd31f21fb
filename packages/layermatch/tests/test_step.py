"""The whole step: what it reads, what it leaves alone, and that both methods see the same images."""

import pytest
import torch

from host_reads import HostReads
from layermatch import ModelAverage, small_wide_resnet, split_classifier
from layermatch.data.batches import Batches
from layermatch.methods import build_method
from layermatch.training.guard import NonFinite, fill_momentum
from layermatch.training.state import METRICS, TrainingState
from layermatch.training.step import ViewSettings, batch_views, measured, train_step, trained_parameters
from layermatch.views.normalise import constants_on, measure


def images(count=60, channels=1, side=8):
    return torch.randint(
        0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def run(method="layermatch", *, threshold=0.0, learning_rate=0.1, seed=0):
    torch.manual_seed(seed)
    split = split_classifier(small_wide_resnet(4, channels=1, side=8))
    criterion = build_method(method, split.classifier, settings={"threshold": threshold, "momentum": 0.9})
    optimizer = torch.optim.SGD(trained_parameters(split), lr=learning_rate, momentum=0.9, nesterov=True, fused=True)
    fill_momentum(optimizer)
    device = torch.device("cpu")
    state = TrainingState(
        model=split,
        criterion=criterion,
        optimizer=optimizer,
        average=ModelAverage(split, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        nonfinite=NonFinite(device),
        sums=torch.zeros(len(METRICS)),
    )
    data = images()
    batches = Batches(
        data,
        torch.arange(60) % 4,
        labelled_indices=torch.arange(8),
        seed=0,
        batch_size=4,
        unlabelled_ratio=3,
        with_unlabelled=criterion.needs_unlabelled,
    )
    views = ViewSettings(seed=0, shift=1, mirror=False, constants=constants_on(measure(data), device), channels=1)
    return state, batches, views


def step(state, batches, views, **options):
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    train_step(state, batches(state.step), views=views, learning_rate=0.1, autocast=autocast, **options)


def snapshot(state):
    parts = (state.model, state.criterion, state.average)
    tensors = [tensor.clone() for part in parts for tensor in part.state_dict().values()]
    return tensors + [entry["momentum_buffer"].clone() for entry in state.optimizer.state.values()]


@pytest.mark.parametrize("method", ["fixmatch", "layermatch", "supervised"])
def test_a_whole_step_reads_nothing_on_the_host(method):
    state, batches, views = run(method)
    step(state, batches, views)  # orders and lazily made state
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    with HostReads() as reads:
        train_step(state, batches(state.step), views=views, learning_rate=0.1, autocast=autocast)
    assert reads.found == []


def test_a_step_moves_everything_once_and_the_averages_after_the_weights():
    state, batches, views = run()
    step(state, batches, views)
    weight, centres = (
        state.model.classifier.weight.detach().clone(),
        state.criterion.state_dict()["centres.classifier_weight"],
    )
    average = state.average.average.classifier.weight
    before, held, kept = snapshot(state), centres.clone(), average.clone()
    step(state, batches, views)
    assert state.step == 2
    names = [*state.model.state_dict(), *state.criterion.state_dict()]
    for name, old, new in zip(names, before, snapshot(state), strict=False):
        assert not torch.equal(old, new), name
    now = state.model.classifier.weight.detach()
    assert not torch.equal(now, weight)
    assert torch.equal(centres, held.lerp(now, 1.0 - 0.9))
    assert torch.equal(average, kept.lerp(now, 1.0 - 0.9))


def test_a_poisoned_step_changes_nothing_but_the_memory_of_it():
    state, batches, views = run()
    step(state, batches, views)
    before = snapshot(state)
    statistics = {name for name, _ in state.model.named_buffers()}
    mean, factor = views.constants
    poisoned = ViewSettings(seed=0, shift=1, mirror=False, constants=(mean, factor * float("nan")), channels=1)
    step(state, batches, poisoned)
    names = list(state.model.state_dict()) + [""] * 1000
    for name, old, new in zip(names, before, snapshot(state), strict=False):
        assert name in statistics or torch.equal(old, new), name
    assert int(state.nonfinite.first_bad) == 1


def test_every_method_sees_the_same_labelled_views():
    first, second = run("layermatch"), run("supervised")
    a = batch_views(first[1](5), 5, settings=first[2])
    b = batch_views(second[1](5), 5, settings=second[2])
    assert len(b) == 4
    assert torch.equal(a[:4], b)
    assert not torch.equal(a[4:16], a[16:])


def test_what_is_measured():
    state, batches, _ = run(threshold=0.5)
    batch = batches(0)
    features = torch.randn(28, 32, generator=torch.Generator().manual_seed(0)).split([4, 12, 12])
    out = state.criterion(labelled=(features[0], batch.labels), weak=features[1] * 0.7, strong=features[2])
    truth = batch.truth.clone()
    truth[:5] = -1
    numbers = dict(zip(METRICS, measured(out, batch._replace(truth=truth)).tolist(), strict=True))
    known = [i for i in range(12) if i >= 5]
    right = [i for i in known if out.pseudo_labels[i] == truth[i]]
    used = [i for i in range(12) if out.mask[i]]
    assert 0 < len(used) < 12
    assert numbers["loss"] == pytest.approx(out.loss.item())
    assert numbers["mask_rate"] == pytest.approx(len(used) / 12)
    assert numbers["pseudo_known"] == len(known)
    assert numbers["pseudo_right"] == len(right)
    assert numbers["used_known"] == len(set(known) & set(used))
    assert numbers["used_right"] == len(set(right) & set(used))
