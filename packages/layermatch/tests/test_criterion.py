import copy
import io

import pytest
import torch
from torch import nn

from host_reads import HostReads
from layermatch import METHODS, LayerMatch, Weighted
from layermatch.methods import build_method
from layermatch.weighting import WeightingRule
from reference.criterion import criterion_twin

READINGS = [None, "classifier"]
SIZES = {"classes": 4, "images": 9, "steps": 10}


def setting(dtype=torch.float64, *, labelled=6, unlabelled=9, width=5, classes=4, seed=0, **options):
    """A criterion whose centres have moved away from the classifier, and a batch."""
    generator = torch.Generator().manual_seed(seed)
    classifier = nn.Linear(width, classes, dtype=dtype)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
    criterion = LayerMatch(classifier, **({"threshold": 0.6, "momentum": 0.7} | options))
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=dtype), alpha=0.3)
    criterion.update()

    def features(rows):
        return torch.randn(rows, width, generator=generator, dtype=dtype).requires_grad_()

    labels = torch.randint(classes, (labelled,), generator=generator)
    return classifier, criterion, (features(labelled), labels), features(unlabelled), features(unlabelled)


def centres_as_lists(criterion, classifier):
    state = criterion.state_dict()
    if not state:
        return classifier.weight.tolist(), classifier.bias.tolist()
    return state["centres.classifier_weight"].tolist(), state["centres.classifier_bias"].tolist()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("unlabelled_weight", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("grad_relu", [True, False])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("labelled", "unlabelled", "width", "classes"), [(1, 1, 1, 2), (6, 9, 5, 4)])
def test_losses_and_gradients_equal_the_twin(
    labelled, unlabelled, width, classes, reading, grad_relu, threshold, unlabelled_weight, dtype, tolerance
):
    classifier, criterion, batch, weak, strong = setting(
        dtype,
        labelled=labelled,
        unlabelled=unlabelled,
        width=width,
        classes=classes,
        avg_clustering=reading,
        grad_relu=grad_relu,
        threshold=threshold,
        unlabelled_weight=unlabelled_weight,
    )
    twin = criterion_twin(
        labelled=(batch[0].tolist(), batch[1].tolist()),
        weak=weak.tolist(),
        strong=strong.tolist(),
        classifier=(classifier.weight.tolist(), classifier.bias.tolist()),
        centres=centres_as_lists(criterion, classifier),
        threshold=threshold,
        unlabelled_weight=unlabelled_weight,
        grad_relu=grad_relu,
    )
    out = criterion(labelled=batch, weak=weak, strong=strong)
    out.loss.backward()
    assert out.pseudo_labels.tolist() == twin.pseudo_labels
    assert out.weights.tolist() == twin.weights
    assert out.mask.tolist() == [weight == 1.0 for weight in twin.weights]
    pairs = [
        (out.labelled_loss, twin.labelled_loss),
        (out.unlabelled_loss, twin.unlabelled_loss),
        (out.loss, twin.labelled_loss + unlabelled_weight * twin.unlabelled_loss),
        (strong.grad, twin.strong_gradient),
        (batch[0].grad, twin.labelled_gradient),
        (classifier.weight.grad, twin.weight_gradient),
        (classifier.bias.grad, twin.bias_gradient),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=dtype), rtol=tolerance, atol=tolerance)
    assert weak.grad is None


@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("reading", READINGS)
def test_o1_no_unlabelled_gradient_at_the_classifier(reading, threshold):
    classifier, criterion, batch, weak, strong = setting(avg_clustering=reading, threshold=threshold)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    gradients = torch.autograd.grad(
        out.unlabelled_loss, list(classifier.parameters()), allow_unused=True, retain_graph=True
    )
    assert all(gradient is None or not gradient.any() for gradient in gradients)
    full = torch.autograd.grad(out.loss, list(classifier.parameters()), retain_graph=True)
    labelled = torch.autograd.grad(out.labelled_loss, list(classifier.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(full, labelled, strict=True))
    assert torch.autograd.grad(nn.functional.cross_entropy(classifier(batch[0]), batch[1]), classifier.weight)[0].equal(
        full[0]
    )


@pytest.mark.parametrize("reading", READINGS)
def test_o1_with_grad_relu_off_the_gradient_is_there(reading):
    classifier, criterion, batch, weak, strong = setting(avg_clustering=reading, grad_relu=False, threshold=0.0)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    gradients = torch.autograd.grad(out.unlabelled_loss, list(classifier.parameters()))
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients)


@pytest.mark.parametrize("reading", READINGS)
def test_o1_a_tied_weight_still_gets_its_gradient_where_else_it_sits(reading):
    classifier, criterion, batch, weak, _ = setting(avg_clustering=reading, threshold=0.0)
    inputs = torch.randn(9, 4, dtype=torch.float64)
    strong = inputs @ classifier.weight  # the classifier's own weight as an embedding, (K, D)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    (gradient,) = torch.autograd.grad(out.unlabelled_loss, classifier.weight, retain_graph=True)
    (upstream,) = torch.autograd.grad(out.unlabelled_loss, strong)
    torch.testing.assert_close(gradient, inputs.T @ upstream, rtol=1e-12, atol=1e-14)
    assert gradient.abs().max() > 1e-3


def test_o2_features_see_the_plain_gradient():
    classifier, criterion, batch, weak, strong = setting(torch.float32, avg_clustering=None)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    (found,) = torch.autograd.grad(out.unlabelled_loss, strong)
    losses = nn.functional.cross_entropy(classifier(strong), out.pseudo_labels, reduction="none")
    (expected,) = torch.autograd.grad((out.weights * losses).mean(), strong)
    assert torch.equal(found, expected)
    assert out.unlabelled_loss.equal((out.weights * losses).mean())


@pytest.mark.parametrize("grad_relu", [True, False])
@pytest.mark.parametrize("reading", READINGS)
def test_o2_the_feature_gradient_is_delta_times_the_centres(reading, grad_relu):
    classifier, criterion, batch, weak, strong = setting(avg_clustering=reading, grad_relu=grad_relu, threshold=0.6)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    assert 0 < out.weights.sum() < len(strong)
    (found,) = torch.autograd.grad(out.unlabelled_loss, strong)
    weight, bias = (torch.tensor(part, dtype=torch.float64) for part in centres_as_lists(criterion, classifier))
    p = torch.softmax(strong.detach() @ weight.T + bias, -1)
    delta = out.weights[:, None] * (p - nn.functional.one_hot(out.pseudo_labels, 4)) / len(strong)
    torch.testing.assert_close(found, delta @ weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reading", READINGS)
def test_o2_no_graph_reaches_the_weak_features(reading):
    _, criterion, batch, weak, strong = setting(avg_clustering=reading, grad_relu=False)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    assert torch.autograd.grad(out.loss, weak, allow_unused=True) == (None,)
    assert not out.weights.requires_grad
    assert not out.mask.requires_grad


@pytest.mark.parametrize("reading", READINGS)
def test_o7_a_rule_sees_probabilities_without_a_graph_in_float32_or_better(reading):
    class Soft(WeightingRule):
        def forward(self, probabilities, *, strong_logits=None, indices=None, finite=None):
            self.seen = probabilities
            return Weighted(probabilities.amax(-1), probabilities.amax(-1) > 0.5)

    for dtype, wanted in [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ]:
        _, criterion, batch, weak, strong = setting(dtype, avg_clustering=reading)
        criterion.weighting = Soft()
        out = criterion(labelled=batch, weak=weak, strong=strong)
        assert not out.weights.requires_grad
        assert criterion.weighting.seen.dtype == wanted
        assert torch.autograd.grad(out.loss, weak, allow_unused=True) == (None,)


def test_o2_straight_through_has_the_averages_forward_bits():
    classifier, cut, batch, weak, strong = setting(torch.float32, grad_relu=True)
    _, through, *_ = setting(torch.float32, grad_relu=False)
    first, second = (criterion(labelled=batch, weak=weak, strong=strong) for criterion in (cut, through))
    assert first.loss.equal(second.loss)
    with torch.no_grad():  # a live classifier so far away that W + (E - W) is not E
        classifier.weight.mul_(1000.0)
        classifier.bias.add_(1000.0)
    plain, straight = (cut.centres.logits(strong, classifier, cut=cutting) for cutting in (True, False))
    assert torch.equal(plain, straight)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


def batches(step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1000 + step)
    x, weak, strong = (torch.randn(rows, 6, generator=generator, dtype=dtype) for rows in (8, 24, 24))
    return x, torch.randint(4, (8,), generator=generator), weak, strong


@pytest.mark.parametrize("reading", READINGS)
def test_o5_state_holds_centres_alone_and_no_parameter(reading):
    classifier, criterion, *_ = setting(avg_clustering=reading)
    expected = [] if reading is None else ["centres.classifier_weight", "centres.classifier_bias"]
    assert list(criterion.state_dict()) == expected
    assert list(criterion.parameters()) == []
    assert classifier not in list(criterion.modules())


def test_o5_saved_and_loaded_goes_on_with_the_same_bits():
    def steps(model, criterion, optimizer, numbers):
        losses = []
        for step in numbers:
            x, y, weak, strong = batches(step)
            features = model[:2](torch.cat([x, weak, strong])).split([8, 24, 24])
            out = criterion(labelled=(features[0], y), weak=features[1], strong=features[2])
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            criterion.update()
            losses.append(out.loss.item())
        return losses

    def fresh(seed):
        model = network(seed)
        return model, LayerMatch(model[2], threshold=0.5, momentum=0.9), torch.optim.SGD(model.parameters(), lr=0.3)

    whole = steps(*fresh(0), range(8))
    first = fresh(0)
    assert steps(*first, range(4)) == whole[:4]
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    second = fresh(1)
    for part, state in zip(second, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert steps(*second, range(4, 8)) == whole[4:]


def test_o5_a_state_of_other_classes_width_or_reading_is_refused_by_name():
    _, criterion, *_ = setting()
    _, more_classes, *_ = setting(classes=5)
    _, wider, *_ = setting(width=6)
    _, off, *_ = setting(avg_clustering=None)
    with pytest.raises(ValueError, match=r"centres.classifier_weight has shape \(5, 5\), and this one's \(4, 5\)"):
        criterion.load_state_dict(more_classes.state_dict())
    with pytest.raises(ValueError, match=r"\(4, 6\), and this one's \(4, 5\)"):
        criterion.load_state_dict(wider.state_dict())
    with pytest.raises(ValueError, match=r"holds nothing for its centres.*avg_clustering"):
        criterion.load_state_dict(off.state_dict())
    with pytest.raises(ValueError, match=r"classifier_bias.*this one nothing.*avg_clustering"):
        off.load_state_dict(criterion.state_dict())
    foreign = criterion.state_dict() | {"weighting.counts": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"weighting.counts.*weighting rule"):
        criterion.load_state_dict(foreign)


def test_o5_a_state_is_checked_too_where_the_criterion_is_part_of_a_module():
    holder, other = nn.Module(), nn.Module()
    holder.criterion, other.criterion = setting()[1], setting(classes=5)[1]
    holder.load_state_dict(holder.state_dict())
    with pytest.raises(ValueError, match=r"criterion.centres.classifier_weight has shape \(5, 5\)"):
        holder.load_state_dict(other.state_dict())


def test_o5_to_moves_the_state_and_not_the_classifier():
    classifier, criterion, *_ = setting()
    criterion.to("meta")
    assert {tensor.device.type for tensor in criterion.state_dict().values()} == {"meta"}
    assert classifier.weight.device.type == "cpu"


def test_o5_a_copy_alone_keeps_the_classifier_and_has_its_own_centres():
    classifier, criterion, *_ = setting()
    duplicate = copy.deepcopy(criterion)
    assert duplicate.classifier is classifier
    before = criterion.state_dict()["centres.classifier_weight"].clone()
    duplicate.update()
    assert torch.equal(criterion.state_dict()["centres.classifier_weight"], before)
    assert not torch.equal(duplicate.state_dict()["centres.classifier_weight"], before)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("model_first", [True, False])
def test_o5_copied_in_one_call_with_the_model_it_follows_the_copy(model_first, method):
    model = network()
    criterion = build_method(method, model[2], settings=SIZES)
    if model_first:
        new_model, new_criterion = copy.deepcopy((model, criterion))
    else:
        new_criterion, new_model = copy.deepcopy((criterion, model))
    assert new_criterion.classifier is new_model[2]
    assert new_criterion.classifier is not model[2]
    again_model, again = copy.deepcopy((new_model, new_criterion))
    assert again.classifier is again_model[2]
    assert criterion.classifier is model[2]


def test_o5_pickled_in_one_file_with_the_model_it_follows_too():
    model = network()
    criterion = LayerMatch(model[2])
    file = io.BytesIO()
    torch.save((model, copy.deepcopy(criterion)), file)
    file.seek(0)
    new_model, new_criterion = torch.load(file, weights_only=False)
    assert new_criterion.classifier is new_model[2]


def test_the_counter_of_host_reads_counts():
    x = torch.arange(3.0)
    with HostReads() as reads:
        x.sum().item()
        x[x > 1]
        bool(x[0] > 1)
        x.nonzero()
    assert reads.found == ["_local_scalar_dense", "index", "_local_scalar_dense", "nonzero"]


@pytest.mark.parametrize("grad_relu", [True, False])
@pytest.mark.parametrize("reading", READINGS)
def test_a_step_reads_nothing_on_the_host(reading, grad_relu):
    _, criterion, batch, weak, strong = setting(torch.float32, avg_clustering=reading, grad_relu=grad_relu)
    flag = torch.tensor(True)
    with HostReads() as reads:
        criterion(labelled=batch, weak=weak, strong=strong).loss.backward()
        criterion.update()
        criterion.update(step_taken=flag)
    assert reads.found == []


@pytest.mark.parametrize("grad_relu", [True, False])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_give_float32_losses_near_the_float32_ones(dtype, reading, grad_relu):
    _, criterion, batch, weak, strong = setting(torch.float32, avg_clustering=reading, grad_relu=grad_relu)
    expected = criterion(labelled=batch, weak=weak, strong=strong)
    expected.loss.backward()
    strong_gradient = strong.grad.clone()
    half_batch, half_weak, half_strong = (
        (batch[0].detach().to(dtype).requires_grad_(), batch[1]),
        weak.detach().to(dtype),
        strong.detach().to(dtype).requires_grad_(),
    )
    with torch.autocast("cpu", dtype):
        out = criterion(labelled=half_batch, weak=half_weak, strong=half_strong)
    out.loss.backward()
    assert out.loss.dtype == out.weights.dtype == torch.float32
    assert half_strong.grad.dtype == dtype
    torch.testing.assert_close(out.loss, expected.loss, rtol=0.03, atol=0.03)
    torch.testing.assert_close(half_strong.grad.float(), strong_gradient, rtol=0.1, atol=0.02)
    assert {tensor.dtype for tensor in criterion.state_dict().values()} <= {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_is_half_itself_works_and_its_centres_stay_wide(dtype):
    classifier, criterion, batch, weak, strong = setting(dtype)
    out = criterion(labelled=batch, weak=weak, strong=strong)
    out.loss.backward()
    criterion.update()
    assert out.labelled_loss.dtype == out.unlabelled_loss.dtype == out.weights.dtype == torch.float32
    assert out.loss.isfinite()
    assert classifier.weight.grad.dtype == dtype
    assert {tensor.dtype for tensor in criterion.state_dict().values()} == {torch.float32}


def test_two_classes_and_a_class_never_predicted_work():
    _, criterion, batch, weak, strong = setting(classes=2)
    assert criterion(labelled=batch, weak=weak, strong=strong).loss.isfinite()
    classifier, criterion, batch, weak, strong = setting(avg_clustering=None, threshold=0.0)
    with torch.no_grad():
        classifier.bias[3] = -1e4
    out = criterion(labelled=(batch[0], torch.zeros_like(batch[1])), weak=weak, strong=strong)
    assert 3 not in out.pseudo_labels.tolist()
    assert out.loss.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.2}, "threshold is 1.2"),
        ({"threshold": -0.5}, "threshold is -0.5"),
        ({"unlabelled_weight": -1.0}, "unlabelled_weight is -1.0"),
        ({"unlabelled_weight": float("nan")}, "unlabelled_weight is nan"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LayerMatch(nn.Linear(4, 3), **options)


def test_shapes_that_do_not_fit_are_refused_with_both():
    _, criterion, batch, weak, strong = setting()
    with pytest.raises(ValueError, match=r"weak has shape \(8, 5\) and strong \(9, 5\)"):
        criterion(labelled=batch, weak=weak[:8], strong=strong)
    with pytest.raises(ValueError, match=r"weak has shape \(0, 5\)"):
        criterion(labelled=batch, weak=weak[:0], strong=strong[:0])
    with pytest.raises(ValueError, match=r"features of shape \(6, 5\) and labels of shape \(5,\)"):
        criterion(labelled=(batch[0], batch[1][:5]), weak=weak, strong=strong)
    with pytest.raises(ValueError, match=r"\(9, 4\), 4 wide, and the classifier takes 5"):
        criterion(labelled=batch, weak=weak[:, :4], strong=strong[:, :4])


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("wrong", [4, -1, -100])
def test_a_label_out_of_range_is_refused_on_the_cpu(wrong, method):
    classifier, _, batch, weak, strong = setting()
    labels = batch[1].clone()
    labels[2] = wrong
    with pytest.raises(ValueError, match=rf"A label is {wrong}, and the classifier has 4 classes.*0 to 3"):
        build_method(method, classifier, settings=SIZES)(
            labelled=(batch[0], labels), weak=weak, strong=strong, indices=torch.arange(9)
        )


def test_centres_left_on_another_device_are_named():
    _, criterion, batch, weak, strong = setting()
    with pytest.raises(ValueError, match=r"centres are on meta and the features on cpu.*criterion.to\('cpu'\)"):
        criterion.to("meta")(labelled=batch, weak=weak, strong=strong)
