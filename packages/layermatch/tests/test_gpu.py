"""The core on a CUDA device: against the slow twin, in both half precisions, and without a wait for the device."""

import pytest
import torch
from torch import nn

from combinations import READINGS, RULES, batch, build, moved
from layermatch import METHODS, LayerMatch, build_method, grad_relu_logits
from reference.criterion import criterion_twin

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def setting(dtype, **options):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to("cuda", dtype)

    classifier = nn.Linear(5, 4, dtype=dtype, device="cuda")
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(draw(*parameter.shape))
    criterion = LayerMatch(classifier, **({"threshold": 0.6, "momentum": 0.7} | options))
    labels = torch.randint(4, (6,), generator=generator).cuda()
    return classifier, criterion, (draw(6, 5).requires_grad_(), labels), draw(9, 5), draw(9, 5).requires_grad_()


@pytest.mark.parametrize("grad_relu", [True, False])
@pytest.mark.parametrize("reading", [None, "classifier"])
def test_core_equals_the_twin_on_the_device(reading, grad_relu):
    classifier, criterion, batch, weak, strong = setting(torch.float64, avg_clustering=reading, grad_relu=grad_relu)
    live = (classifier.weight.tolist(), classifier.bias.tolist())
    twin = criterion_twin(
        labelled=(batch[0].tolist(), batch[1].tolist()),
        weak=weak.tolist(),
        strong=strong.tolist(),
        classifier=live,
        centres=live,
        threshold=0.6,
        unlabelled_weight=1.0,
        grad_relu=grad_relu,
    )
    out = criterion(labelled=batch, weak=weak, strong=strong)
    out.loss.backward()
    assert out.pseudo_labels.tolist() == twin.pseudo_labels
    assert out.weights.tolist() == twin.weights
    pairs = [
        (out.labelled_loss, twin.labelled_loss),
        (out.unlabelled_loss, twin.unlabelled_loss),
        (strong.grad, twin.strong_gradient),
        (classifier.weight.grad, twin.weight_gradient),
        (classifier.bias.grad, twin.bias_gradient),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(
            found.detach().cpu(), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12
        )


def test_grad_relu_bits_equal_the_plain_ones_on_the_device():
    torch.manual_seed(0)
    features, classifier = torch.randn(512, 128, device="cuda", requires_grad=True), nn.Linear(128, 100, device="cuda")
    plain, cut = classifier(features), grad_relu_logits(features, classifier)
    upstream = torch.randn_like(plain)
    assert torch.equal(plain, cut)
    assert torch.equal(*(torch.autograd.grad(logits, features, upstream)[0] for logits in (plain, cut)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_the_device(dtype):
    _, criterion, batch, weak, strong = setting(torch.float32)
    expected = criterion(labelled=batch, weak=weak, strong=strong).loss
    with torch.autocast("cuda", dtype):
        out = criterion(labelled=batch, weak=weak, strong=strong)
    out.loss.backward()
    criterion.update()
    assert out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, expected, rtol=0.03, atol=0.03)
    assert {tensor.dtype for tensor in criterion.state_dict().values()} == {torch.float32}


def on_device(call):
    moved_to = {name: value.cuda() for name, value in call.items() if name != "labelled"}
    features, labels = call["labelled"]
    leaves = {name: value.detach().requires_grad_() for name, value in moved_to.items() if name in ("weak", "strong")}
    return moved_to | leaves | {"labelled": (features.detach().cuda().requires_grad_(), labels.cuda())}


@pytest.mark.parametrize("grad_relu", [True, False, "agreement", "reverse"])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_and_reading_equals_the_cpu_on_the_device(rule, reading, grad_relu):
    classifier, criterion = moved(rule, reading, grad_relu=grad_relu)
    live = nn.Linear(5, 4, dtype=torch.float64, device="cuda")
    live.load_state_dict(classifier.state_dict())
    other = build(live, rule, reading, grad_relu=grad_relu)
    other.load_state_dict(criterion.state_dict())
    assert {value.device.type for value in other.state_dict().values()} <= {"cuda"}
    for step in range(2):
        call = batch(step)
        expected, found = criterion(**call), other(**on_device(call))
        expected.loss.backward()
        found.loss.backward()
        torch.testing.assert_close(found.loss.detach().cpu(), expected.loss.detach(), rtol=1e-10, atol=1e-12)
        criterion.update()
        other.update(step_taken=torch.ones((), dtype=torch.bool, device="cuda"))
    for one, two in zip(classifier.parameters(), live.parameters(), strict=True):
        torch.testing.assert_close(two.grad.cpu(), one.grad, rtol=1e-9, atol=1e-12)
    for name, value in criterion.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name].cpu(), value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grad_relu", [True, False, "agreement", "reverse"])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("rule", RULES)
def test_no_rule_and_no_reading_waits_for_the_device(rule, reading, grad_relu):
    live = nn.Linear(5, 4, device="cuda")
    criterion, call = build(live, rule, reading, grad_relu=grad_relu), on_device(batch(0, dtype=torch.float32))
    flag = torch.ones((), dtype=torch.bool, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            criterion(**call).loss.backward()
            criterion.update(step_taken=flag)
            criterion.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_never_waits_for_the_device(dtype, method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).cuda()
    criterion = build_method(
        method, model[2], settings={"threshold": 0.3, "classes": 4, "images": 60, "steps": 10, "momentum": 0.9}
    )
    indices = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:24].cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, labels = torch.randn(8 + 24 + 24, 6, device="cuda"), torch.randint(4, (8,), device="cuda")
    flag = torch.ones((), dtype=torch.bool, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                labelled, weak, strong = model[:2](x).split([8, 24, 24])
                out = criterion(labelled=(labelled, labels), weak=weak, strong=strong, indices=indices)
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            criterion.update(step_taken=flag)
            criterion.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.loss.isfinite()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_whole_training_step_with_views_never_waits_for_the_device(method):
    from layermatch import ModelAverage, small_wide_resnet, split_classifier
    from layermatch.data.batches import Batches
    from layermatch.training.guard import NonFinite, fill_momentum
    from layermatch.training.separate import SeparateForwards
    from layermatch.training.state import METRICS, TrainingState
    from layermatch.training.step import ViewSettings, train_step, trained_parameters
    from layermatch.views.normalise import constants_on, measure
    from layermatch.views.strong import strong_views

    torch.manual_seed(0)
    device = torch.device("cuda")
    split = split_classifier(small_wide_resnet(4, channels=3, side=32)).to(device)
    settings = {"threshold": 0.3, "momentum": 0.9, "steps": 20, "classes": 4, "images": 60}
    criterion = build_method(method, split.classifier, settings=settings)
    optimizer = torch.optim.SGD(trained_parameters(split), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    fill_momentum(optimizer)
    state = TrainingState(
        model=split,
        criterion=criterion,
        optimizer=optimizer,
        average=ModelAverage(split, momentum=0.9),
        scaler=torch.amp.GradScaler("cuda", enabled=False),
        nonfinite=NonFinite(device),
        sums=torch.zeros(len(METRICS) + 4, device=device),
        separate=SeparateForwards(split) if method == "pseudolabel" else None,
    )
    images = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8)
    batches = Batches(
        images.to(device),
        (torch.arange(60) % 4).to(device),
        labelled_indices=torch.arange(8),
        seed=0,
        batch_size=8,
        unlabelled_ratio=4,
        with_unlabelled=criterion.needs_unlabelled,
    )
    views = ViewSettings(
        seed=0,
        shift=4,
        mirror=True,
        constants=constants_on(measure(images), device),
        channels=3,
        strong=strong_views if "strong" in criterion.needs else None,
    )
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=False)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            train_step(state, batches(state.step), views=views, learning_rate=0.1, autocast=autocast)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.sums.isfinite().all()


def test_views_give_the_same_bits_on_the_device():
    from layermatch.views.strong import strong_views

    images = torch.randint(0, 256, (200, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = [
        strong_views(images.to(device), generator=torch.Generator().manual_seed(1), shift=4, mirror=True).cpu()
        for device in ("cpu", "cuda")
    ]
    difference = (found[0].int() - found[1].int()).abs()
    assert (difference > 0).double().mean() < 1e-3  # a fused multiply-add may cut a blend to the next integer
