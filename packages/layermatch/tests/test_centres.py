import pytest
import torch
from torch import nn

from layermatch import LayerMatch
from reference.centres import averaged, stepped


def linear(dtype=torch.float32, width=4, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(width, classes, dtype=dtype)


def move(classifier):
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.randn_like(parameter))


def flat(*tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def centres_of(criterion):
    return flat(*criterion.state_dict().values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_o4_centres_are_the_exact_weighted_sum_of_all_weights_seen(dtype, tolerance, momentum):
    classifier = linear(dtype)
    criterion = LayerMatch(classifier, momentum=momentum)
    start, seen = flat(*classifier.parameters()).tolist(), []
    for _ in range(20):
        move(classifier)
        criterion.update()
        seen.append(flat(*classifier.parameters()).tolist())
    expected = torch.tensor(averaged(start, seen, momentum), dtype=torch.float64)
    error = (centres_of(criterion).double() - expected).abs().max() / expected.abs().max()
    assert error < tolerance


def test_o4_one_update_is_the_lerp_form():
    classifier = linear(torch.float64)
    criterion = LayerMatch(classifier, momentum=0.9)
    start = centres_of(criterion).tolist()
    move(classifier)
    criterion.update()
    live = flat(*classifier.parameters()).tolist()
    expected = [stepped(a, b, 0.9) for a, b in zip(start, live, strict=True)]
    assert centres_of(criterion).tolist() == pytest.approx(expected, abs=1e-15)


def test_o4_the_start_is_the_classifier_bitwise_and_shares_no_memory():
    classifier = linear()
    criterion = LayerMatch(classifier)
    before = flat(*classifier.parameters())
    assert torch.equal(centres_of(criterion), before)
    move(classifier)
    assert torch.equal(centres_of(criterion), before)
    assert not torch.equal(flat(*classifier.parameters()), before)


def test_o4_forward_never_moves_the_centres():
    classifier = linear()
    criterion = LayerMatch(classifier, threshold=0.0)
    before = centres_of(criterion).clone()
    move(classifier)
    out = criterion(
        labelled=(torch.randn(3, 4), torch.tensor([0, 1, 2])), weak=torch.randn(5, 4), strong=torch.randn(5, 4)
    )
    out.loss.backward()
    assert torch.equal(centres_of(criterion), before)


def test_o4_momentum_0_follows_and_momentum_1_stays():
    for momentum in (0.0, 1.0):
        classifier = linear()
        criterion = LayerMatch(classifier, momentum=momentum)
        start = centres_of(criterion).clone()
        move(classifier)
        criterion.update()
        assert torch.equal(centres_of(criterion), start if momentum else flat(*classifier.parameters()))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 0.5])
def test_o4_a_skipped_step_moves_nothing(poison):
    classifier = linear()
    criterion = LayerMatch(classifier, momentum=0.5)
    before = centres_of(criterion).clone()
    with torch.no_grad():
        classifier.weight.fill_(poison)
        classifier.bias.fill_(poison)
    criterion.update(step_taken=torch.tensor(False))
    assert torch.equal(centres_of(criterion), before)


def test_o4_a_taken_step_with_the_flag_equals_one_without_it():
    first, second = linear(), linear()
    plain, flagged = LayerMatch(first, momentum=0.9), LayerMatch(second, momentum=0.9)
    for step in range(4):
        torch.manual_seed(step)
        move(first)
        torch.manual_seed(step)
        move(second)
        plain.update()
        flagged.update(step_taken=torch.tensor(True))
    assert torch.equal(centres_of(plain), centres_of(flagged))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_centres_are_float32_unless_the_classifier_is_float64(dtype, kept):
    criterion = LayerMatch(linear(dtype))
    assert {tensor.dtype for tensor in criterion.state_dict().values()} == {kept}


@pytest.mark.parametrize("change", [lambda c: c.half(), lambda c: c.bfloat16(), lambda c: c.to(torch.bfloat16)])
def test_centres_keep_their_bits_when_the_criterion_is_told_to_be_half(change):
    criterion = LayerMatch(linear())
    before = centres_of(criterion).clone()
    assert torch.equal(centres_of(change(criterion)), before)


def test_centres_do_not_stall_beside_a_bfloat16_classifier():
    classifier = nn.Linear(1, 1, dtype=torch.bfloat16)
    with torch.no_grad():
        classifier.weight.fill_(0.0)
        classifier.bias.fill_(0.0)
    criterion = LayerMatch(classifier, momentum=0.999)
    with torch.no_grad():
        classifier.weight.fill_(1.0)
    for _ in range(3000):
        criterion.update()
    assert criterion.state_dict()["centres.classifier_weight"].item() == pytest.approx(1 - 0.999**3000, abs=1e-4)


def test_a_classifier_without_bias_has_centres_without_bias():
    classifier = nn.Linear(4, 3, bias=False)
    criterion = LayerMatch(classifier, momentum=0.0)
    move(classifier)
    criterion.update()
    assert list(criterion.state_dict()) == ["centres.classifier_weight"]
    assert torch.equal(centres_of(criterion), flat(classifier.weight))


@pytest.mark.parametrize("name", ["prototype", "averages", "clasifier"])
def test_an_unknown_reading_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"avg_clustering is '{name}'.*None, 'classifier'"):
        LayerMatch(linear(), avg_clustering=name)


@pytest.mark.parametrize("reading", [None, "classifier"])
@pytest.mark.parametrize("momentum", [-0.1, 1.5, float("nan")])
def test_a_momentum_outside_0_to_1_is_refused(momentum, reading):
    with pytest.raises(ValueError, match=f"momentum is {momentum}"):
        LayerMatch(linear(), momentum=momentum, avg_clustering=reading)


def test_a_head_that_is_not_linear_has_no_rows_to_average():
    with pytest.raises(ValueError, match="the classifier is a Sequential"):
        LayerMatch(nn.Sequential(nn.Linear(4, 3)))
    LayerMatch(nn.Sequential(nn.Linear(4, 3)), avg_clustering=None)
