"""The whole step: what it reads, what it leaves alone, and that both methods see the same images."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from host_reads import HostReads
from layermatch import METHODS, ModelAverage, split_classifier
from layermatch.data.batches import Batches
from layermatch.methods import build_method
from layermatch.training.guard import NonFinite, fill_momentum
from layermatch.training.separate import SeparateForwards
from layermatch.training.state import METRICS, TrainingState
from layermatch.training.step import ALONE, ViewSettings, batch_views, measured, train_step, trained_parameters
from layermatch.views.normalise import constants_on, measure
from layermatch.views.strong import strong_views


def images(count=60, channels=1, side=8):
    return torch.randint(
        0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


# Every method, and every part of layermatch that the step has to feed.
ARMS = {name: (name, {}) for name in METHODS} | {
    "layermatch with " + ", ".join(settings.values()): ("layermatch", settings)
    for settings in (
        {"weighting": "flexmatch"},
        {"weighting": "freematch"},
        {"weighting": "softmatch"},
        {"avg_clustering": "classifier-strong"},
        {"avg_clustering": "prototypes"},
        {"avg_clustering": "teacher"},
        {"avg_clustering": "temporal"},
        {"grad_relu": "agreement"},
        {"grad_relu": "reverse"},
    )
}


def smooth_network():
    """Without batch statistics: what one image gives depends on no other."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 4))


def batch_normal_network():
    """With batch statistics, and small: a step costs what surrounds the network."""
    layers = nn.Conv2d(1, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, 32), nn.ReLU(), nn.Linear(32, 4))


def run(arm="layermatch", *, threshold=0.0, seed=0, network=None, processes=ALONE, **settings):
    torch.manual_seed(seed)
    split = split_classifier((network or batch_normal_network)())
    method, more = ARMS[arm]
    settings = {"momentum": 0.9, "steps": 20, "classes": 4, "images": 60} | more | settings
    if settings.get("avg_clustering") == "teacher":
        del settings["momentum"]
    if settings.get("weighting") not in ("freematch", "softmatch"):
        settings["threshold"] = threshold
    criterion = build_method(method, split.classifier, settings=settings)
    optimizer = torch.optim.SGD(trained_parameters(split), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    fill_momentum(optimizer)
    device = torch.device("cpu")
    needs = criterion.needs
    state = TrainingState(
        model=split,
        criterion=criterion,
        optimizer=optimizer,
        average=ModelAverage(split, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        nonfinite=NonFinite(device),
        sums=torch.zeros(len(METRICS) + 4),
        separate=SeparateForwards(split) if "unlabelled" in needs and "strong" not in needs else None,
        processes=processes,
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
    views = ViewSettings(
        seed=0,
        shift=1,
        mirror=False,
        constants=constants_on(measure(data), device),
        channels=1,
        strong=strong_views if "strong" in needs else None,
    )
    return state, batches, views


def step(state, batches, views, **options):
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    train_step(state, batches(state.step), views=views, learning_rate=0.1, autocast=autocast, **options)


def snapshot(state):
    parts = (state.model, state.criterion, state.average)
    tensors = [tensor.clone() for part in parts for tensor in part.state_dict().values()]
    return tensors + [entry["momentum_buffer"].clone() for entry in state.optimizer.state.values()]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("arm", ARMS)
def test_a_whole_step_reads_nothing_on_the_host(arm, micro_batches):
    state, batches, views = run(arm)
    step(state, batches, views)  # orders and lazily made state
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    options = {"views": views, "learning_rate": 0.1, "autocast": autocast, "micro_batches": micro_batches}
    with HostReads() as reads:
        train_step(state, batches(state.step), **options)
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


POISONS = {"nan": float("nan"), "inf": float("inf")}


@pytest.mark.parametrize(
    ("arm", "bad_step", "poison"),
    [
        *((arm, bad_step, "nan") for arm in ARMS for bad_step in (0, 5)),
        ("layermatch", 0, "inf"),
        ("layermatch", 5, "inf"),
    ],
)
def test_a_poisoned_step_changes_nothing_but_the_memory_of_it(arm, bad_step, poison):
    state, batches, views = run(arm)
    for _ in range(bad_step):
        step(state, batches, views)
    before, sums = snapshot(state), state.sums.clone()
    mean, factor = views.constants
    poisoned = dataclasses.replace(views, constants=(mean, factor * POISONS[poison]))
    step(state, batches, poisoned)
    names = [*state.model.state_dict(), *state.criterion.state_dict(), *state.average.state_dict()] + [
        "momentum"
    ] * 1000
    for name, old, new in zip(names, before, snapshot(state), strict=False):
        assert torch.equal(old, new), name
    assert torch.equal(sums, state.sums)
    assert int(state.nonfinite.first_bad) == bad_step
    assert int(state.nonfinite.left_out) == 1
    step(state, batches, views)
    assert int(state.nonfinite.left_out) == 1
    assert all(tensor.isfinite().all() for tensor in snapshot(state))
    assert state.step == bad_step + 2


def test_a_bad_gradient_behind_a_good_loss_is_noted_too():
    state, batches, views = run()
    step(state, batches, views)
    handle = state.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    step(state, batches, views)
    handle.remove()
    assert int(state.nonfinite.first_bad) == 1


SMOOTH = ["fixmatch", "supervised", "layermatch", "flexmatch"]


@pytest.mark.parametrize("arm", SMOOTH)
def test_a_step_in_micro_batches_is_the_same_step(arm):
    """On a network without batch statistics, for rules that learn nothing from one micro-batch to the next."""
    whole, parts = run(arm, network=smooth_network, threshold=0.3), run(arm, network=smooth_network, threshold=0.3)
    steps = 1 if arm == "flexmatch" else 4  # whose counts of a step are one micro-batch newer in the second one
    for _ in range(steps):
        step(*whole)
        step(*parts, micro_batches=2)
    for old, new in zip(snapshot(whole[0]), snapshot(parts[0]), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole[0].sums, parts[0].sums, rtol=1e-5, atol=1e-5)
    assert whole[0].step == parts[0].step == steps


def test_one_view_methods_leave_the_running_statistics_to_the_labelled_images():
    pseudo, alone = run("pseudolabel"), run("supervised")
    for _ in range(3):
        pseudo[0].criterion.unlabelled_weight = 0.0
        step(*pseudo)
        step(*alone)
    for (name, one), (_, other) in zip(pseudo[0].model.named_buffers(), alone[0].model.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


def test_the_teacher_is_the_averaged_model_in_eval_mode(monkeypatch):
    state, batches, views = run("layermatch with teacher")
    step(state, batches, views)
    seen = {}
    whole = state.criterion.forward
    monkeypatch.setattr(state.criterion, "forward", lambda **given: seen.update(given) or whole(**given))
    batch = batches(state.step)
    weak = batch_views(batch, state.step, settings=views)[4:16]
    expected = copy.deepcopy(state.average.average).eval()
    step(state, batches, views)
    with torch.no_grad():
        assert torch.equal(seen["teacher_weak"], expected.logits(weak))
    assert not seen["teacher_weak"].requires_grad
    assert not torch.equal(expected.classifier.weight, state.average.average.classifier.weight)


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
    values = measured(out, batch._replace(truth=truth), classes=4).tolist()
    numbers = dict(zip(METRICS, values, strict=False))
    known = [i for i in range(12) if i >= 5]
    right = [i for i in known if out.pseudo_labels[i] == truth[i]]
    used = [i for i in range(12) if out.mask[i]]
    assert 0 < len(used) < 12
    assert numbers["steps"] == 1
    assert numbers["loss"] == pytest.approx(out.loss.item())
    assert numbers["mask_rate"] == pytest.approx(len(used) / 12)
    assert numbers["pseudo_known"] == len(known)
    assert numbers["pseudo_right"] == len(right)
    assert numbers["used_known"] == len(set(known) & set(used))
    assert numbers["used_right"] == len(set(right) & set(used))
    by_class = [sum(1 for i in used if out.pseudo_labels[i] == number) for number in range(4)]
    assert values[len(METRICS) :] == by_class
    assert sum(by_class) == len(used)
