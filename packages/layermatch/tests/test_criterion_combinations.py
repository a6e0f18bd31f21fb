"""Every weighting rule with every reading: what the paper page asks of all of them (section 1.6)."""

import copy
import io

import pytest
import torch
from torch import nn

from combinations import (
    CLASSES,
    IMAGES,
    READINGS,
    RULES,
    UNLABELLED,
    WIDTH,
    batch,
    build,
    moved,
    name_of,
    same,
    state_of,
    view_of,
)
from host_reads import HostReads
from layermatch import LayerMatch
from layermatch.grad_relu import MODES

everywhere = pytest.mark.parametrize("reading", READINGS)
every_rule = pytest.mark.parametrize("rule", RULES)
# Every rule with every reading, and each of both with every mode.
in_turn = pytest.mark.parametrize(
    ("rule", "reading", "mode"),
    [
        (rule, reading, MODES[(first + second) % len(MODES)])
        for first, rule in enumerate(RULES)
        for second, reading in enumerate(READINGS)
    ],
)


def centre_rows(criterion, classifier, reading):
    """Weight and bias that the strong logits are taken from, where they are taken from rows."""
    state = criterion.state_dict()
    prefix = {"classifier": "centres.", "classifier-strong": "centres.strong."}.get(reading)
    if prefix is None:
        return classifier.weight.detach(), classifier.bias.detach()
    return state[f"{prefix}classifier_weight"], state[f"{prefix}classifier_bias"]


@everywhere
@every_rule
def test_o1_no_unlabelled_gradient_at_the_classifier(rule, reading):
    classifier, criterion = moved(rule, reading)
    call = batch(0)
    out = criterion(**call)
    parameters = list(classifier.parameters())
    gradients = torch.autograd.grad(out.unlabelled_loss, parameters, allow_unused=True, retain_graph=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)
    full = torch.autograd.grad(out.loss, parameters, retain_graph=True)
    alone = nn.functional.cross_entropy(classifier(call["labelled"][0]), call["labelled"][1])
    assert all(torch.equal(a, b) for a, b in zip(full, torch.autograd.grad(alone, parameters), strict=True))
    (features,) = torch.autograd.grad(out.unlabelled_loss, view_of(rule, call))
    assert features.abs().max() > 1e-4


@everywhere
@every_rule
def test_o1_with_grad_relu_off_the_gradient_is_there(rule, reading):
    classifier, criterion = moved(rule, reading, grad_relu=False)
    out = criterion(**batch(0))
    gradients = torch.autograd.grad(out.unlabelled_loss, list(classifier.parameters()))
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients)


def test_o1_the_fairness_term_alone_stops_at_the_classifier_too():
    for grad_relu in (True, False):
        classifier, criterion = moved("freematch", None, grad_relu=grad_relu)
        call = batch(0)
        seen = {}
        criterion.weighting.register_forward_hook(lambda _, __, answer, seen=seen: seen.update(extra=answer.extra))
        criterion(**call)
        gradients = torch.autograd.grad(
            seen["extra"], list(classifier.parameters()), allow_unused=True, retain_graph=True
        )
        assert all((gradient is None) == grad_relu for gradient in gradients)
        assert torch.autograd.grad(seen["extra"], call["strong"])[0].abs().max() > 1e-5


def by_hand(criterion, call, rule, *, strong_logits, probabilities):
    """L_u from logits, by a copy of the rule as it stands before the call."""
    weighted = copy.deepcopy(criterion.weighting)(
        probabilities, strong_logits=strong_logits, indices=call["indices"], finite=None
    )
    losses = nn.functional.cross_entropy(strong_logits, probabilities.argmax(-1), reduction="none")
    return (weighted.weights * losses).mean() + (0.0 if weighted.extra is None else weighted.extra)


def weak_probabilities(criterion, classifier, call, reading):
    with torch.no_grad():
        if reading == "teacher":
            return call["teacher_weak"].softmax(-1)
        if reading == "classifier":
            weight, bias = centre_rows(criterion, classifier, reading)
            return nn.functional.linear(call["weak"], weight, bias).softmax(-1)
        live = classifier(call["weak"]).softmax(-1)
        if reading != "temporal":
            return live
        state, m = criterion.state_dict(), criterion.centres.momentum
        before = state["centres.temporal_averages"][call["indices"]]
        visits = state["centres.temporal_visits"][call["indices"]] + 1
        return (m * before + (1 - m) * live) / (1 - m ** visits.double())[:, None]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reading", [reading for reading in READINGS if reading != "prototypes"])
@every_rule
def test_o2_features_and_classifier_get_what_the_mode_says(rule, reading, mode):
    classifier, criterion = moved(rule, reading, grad_relu=mode)
    call = batch(0)
    view = view_of(rule, call)
    weight, bias = centre_rows(criterion, classifier, reading)
    leaf = nn.functional.linear(view.detach(), weight, bias).requires_grad_()
    probabilities = weak_probabilities(criterion, classifier, call, reading)
    loss = by_hand(criterion, call, rule, strong_logits=leaf, probabilities=probabilities)
    (delta,) = torch.autograd.grad(loss, leaf)
    with torch.no_grad():
        ones = torch.ones(len(view), 1, dtype=torch.float64)
        rows = delta.T @ torch.cat([view, ones], dim=1)
        features, labels = call["labelled"]
        error = classifier(features).softmax(-1) - nn.functional.one_hot(labels, CLASSES)
        reference = (error / len(labels)).T @ torch.cat([features, torch.ones(len(labels), 1).double()], dim=1)
        agrees = ((rows * reference).sum(-1) > 0).double()[:, None]
        expected = {"cut": 0.0 * rows, "off": rows, "reverse": rows, "agreement": agrees * rows}[mode]
    out = criterion(**call)
    torch.testing.assert_close(out.unlabelled_loss, loss, rtol=1e-12, atol=1e-14)
    found = torch.autograd.grad(
        out.unlabelled_loss, [view, *classifier.parameters()], allow_unused=True, materialize_grads=True
    )
    wanted = 0.0 * delta @ weight if mode == "reverse" else delta @ weight
    torch.testing.assert_close(found[0], wanted, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(torch.cat([found[1], found[2][:, None]], 1), expected, rtol=1e-11, atol=1e-14)
    if mode == "agreement":
        assert 0 < agrees.sum() < CLASSES or rule == "pseudolabel"


@in_turn
def test_o2_no_graph_reaches_the_weak_features_but_pseudolabels(rule, reading, mode):
    _, criterion = moved(rule, reading, grad_relu=mode)
    call = batch(0)
    out = criterion(**call)
    (gradient,) = torch.autograd.grad(out.loss, call["weak"], allow_unused=True)
    assert (gradient is not None) == (rule == "pseudolabel" and mode != "reverse")
    assert not out.weights.requires_grad
    assert not out.mask.requires_grad


@everywhere
@every_rule
def test_o2_the_forward_has_the_same_bits_in_every_mode(rule, reading):
    outs = [
        moved(rule, reading, dtype=torch.float32, grad_relu=mode)[1](**batch(0, dtype=torch.float32)) for mode in MODES
    ]
    assert all(out.loss.equal(outs[0].loss) and out.weights.equal(outs[0].weights) for out in outs)


@everywhere
@every_rule
def test_o3_the_criterion_draws_no_random_number(rule, reading):
    _, criterion = moved(rule, reading)
    state = torch.get_rng_state()
    criterion(**batch(0)).loss.backward()
    criterion.update()
    assert torch.equal(torch.get_rng_state(), state)


def looked_at(rule, reading):
    """What a call looks at: pseudolabel at one view alone, a teacher's labels never at the weak one."""
    where = {"labelled", "teacher_weak" if reading == "teacher" else "weak"}
    return where | ({"weak"} if rule == "pseudolabel" else {"strong"})


@pytest.mark.parametrize(
    ("rule", "reading", "where", "poison"),
    [
        (rule, reading, where, poison)
        for rule in RULES
        for reading in READINGS
        for where, poison in (
            ("labelled", float("nan")),
            ("weak", float("nan")),
            ("weak", float("inf")),
            ("strong", float("inf")),
            ("teacher_weak", float("nan")),
        )
        if where in looked_at(rule, reading)
    ],
)
def test_o4_a_batch_that_is_not_finite_touches_no_state(rule, reading, poison, where):
    _, criterion = moved(rule, reading)
    call = batch(0, leaf=False)
    (call["labelled"][0] if where == "labelled" else call[where])[0] = poison
    before = state_of(criterion)
    out = criterion(**call)
    criterion.update(step_taken=torch.tensor(False))
    assert same(state_of(criterion), before)
    assert where in ("weak", "teacher_weak") or not out.loss.isfinite()
    criterion(**batch(1))
    criterion.update(step_taken=torch.tensor(True))
    assert all(value.isfinite().all() for value in criterion.state_dict().values())


@everywhere
@every_rule
def test_o5_saved_and_loaded_it_goes_on_with_the_same_bits(rule, reading):
    def go_on(classifier, criterion):
        losses = []
        for step in range(3):
            out = criterion(**batch(step, leaf=False))
            losses.append(out.loss.item())
            with torch.no_grad():
                classifier.weight.mul_(1.1)
            criterion.update()
        return losses

    classifier, criterion = moved(rule, reading)
    assert list(criterion.parameters()) == []
    file = io.BytesIO()
    torch.save((classifier.state_dict(), criterion.state_dict()), file)
    expected = go_on(classifier, criterion)
    file.seek(0)
    saved, state = torch.load(file, weights_only=True)
    fresh = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    fresh.load_state_dict(saved)
    again = build(fresh, rule, reading)
    again.load_state_dict(state)
    assert go_on(fresh, again) == expected


@pytest.mark.parametrize("other", [reading for reading in READINGS if reading not in ("prototypes, not ready", None)])
@everywhere
def test_o5_a_state_of_another_reading_is_refused(reading, other):
    stateless = (None, "teacher")
    if name_of(reading) == other or (reading in stateless and other in stateless):
        return
    saved = moved("fixed", reading)[1].state_dict()
    with pytest.raises(ValueError, match=r"for its centres.*avg_clustering"):
        build(nn.Linear(WIDTH, CLASSES, dtype=torch.float64), "fixed", other).load_state_dict(saved)


@pytest.mark.parametrize("other", RULES)
@every_rule
def test_o5_a_state_of_another_rule_is_refused(rule, other):
    if rule == other:
        return
    saved = moved(rule, None)[1].state_dict()
    with pytest.raises(ValueError, match=r"for its weighting.*weighting rule"):
        build(nn.Linear(WIDTH, CLASSES, dtype=torch.float64), other, None).load_state_dict(saved)


@pytest.mark.parametrize("sizes", [{"classes": 7}, {"width": 7}, {"images": 7}])
@pytest.mark.parametrize(
    ("rule", "reading"), [("flexmatch", "classifier"), ("freematch", "prototypes"), ("softmatch", "temporal")]
)
def test_o5_a_state_of_other_sizes_is_refused(rule, reading, sizes):
    def sized(classes=CLASSES, width=WIDTH, images=IMAGES):
        from layermatch.methods import layermatch

        return layermatch(nn.Linear(width, classes), weighting=rule, images=images, avg_clustering=reading)

    if ("width" in sizes and reading == "temporal") or ("images" in sizes and rule == "freematch"):
        return
    with pytest.raises(ValueError, match=r"has shape \(.*\), and this one's \(") as caught:
        sized().load_state_dict(sized(**sizes).state_dict())
    assert "number of" in str(caught.value)


@in_turn
def test_a_step_reads_nothing_on_the_host(rule, reading, mode):
    _, criterion = moved(rule, reading, dtype=torch.float32, grad_relu=mode)
    flag, call = torch.tensor(True), batch(0, dtype=torch.float32)
    with HostReads() as reads:
        criterion(**call).loss.backward()
        criterion.update(step_taken=flag)
        criterion.update()
    assert reads.found == []


@in_turn
def test_half_precision_gives_losses_near_the_float32_ones(rule, reading, mode):
    dtype = torch.float16 if mode == "off" else torch.bfloat16
    _, criterion = moved(rule, reading, dtype=torch.float32, grad_relu=mode)
    _, halved = moved(rule, reading, dtype=torch.float32, grad_relu=mode)
    call, half = batch(0, dtype=torch.float32), batch(0, dtype=dtype)
    expected = criterion(**call)
    with torch.autocast("cpu", dtype):
        out = halved(**half)
    out.loss.backward()
    halved.update()
    assert out.loss.dtype == out.weights.dtype == torch.float32
    torch.testing.assert_close(out.labelled_loss, expected.labelled_loss, rtol=0.03, atol=0.03)
    same_labels = (out.pseudo_labels == expected.pseudo_labels) & (out.mask == expected.mask)
    assert same_labels.float().mean() > 0.7
    floating = [value.dtype for value in halved.state_dict().values() if value.is_floating_point()]
    assert set(floating) <= {torch.float32}
    assert all(value.isfinite().all() for value in halved.state_dict().values())


@everywhere
def test_what_a_reading_needs_and_is_not_given_is_named(reading):
    _, criterion = moved("fixed", reading)
    needs = {"temporal": {"indices"}, "teacher": {"teacher"}}.get(reading, set())
    assert criterion.needs == {"unlabelled", "strong"} | needs
    call = batch(0)
    if reading == "temporal":
        with pytest.raises(ValueError, match=r"indices is missing, and avg_clustering='temporal' needs.*Int64\[9\]"):
            criterion(**(call | {"indices": None}))
        with pytest.raises(ValueError, match=r"indices is of shape \(8,\), and avg_clustering='temporal'"):
            criterion(**(call | {"indices": call["indices"][:8]}))
    elif reading == "teacher":
        with pytest.raises(ValueError, match=r"teacher_weak is missing, and avg_clustering='teacher'.*Float\[9 K\]"):
            criterion(**(call | {"teacher_weak": None}))
    else:
        criterion(**(call | {"teacher_weak": None, "indices": None}))
    with pytest.raises(ValueError, match=r"strong is missing.*Float\[U D\]"):
        criterion(**(call | {"strong": None}))


@every_rule
def test_what_a_rule_needs_and_is_not_given_is_named(rule):
    _, criterion = moved(rule, None)
    wanted = {
        "unlabelled",
        *(["strong"] if rule != "pseudolabel" else []),
        *(["indices"] if rule == "flexmatch" else []),
    }
    assert criterion.needs == wanted
    assert criterion.needs_unlabelled
    call = batch(0) | {"indices": None}
    if rule == "flexmatch":
        with pytest.raises(ValueError, match=r"indices is missing, and FlexMatchWeighting needs"):
            criterion(**call)
        _, both = moved(rule, "temporal")
        with pytest.raises(ValueError, match=r"FlexMatchWeighting and avg_clustering='temporal' needs"):
            both(**call)
    elif rule == "pseudolabel":
        criterion(**(call | {"strong": None}))
    else:
        criterion(**call)


def test_a_threshold_beside_a_rule_and_what_is_no_rule_are_refused():
    classifier = nn.Linear(WIDTH, CLASSES)
    with pytest.raises(
        ValueError, match=r"threshold is 0.9, and weighting=FreeMatchWeighting has a threshold of its own"
    ):
        LayerMatch(classifier, threshold=0.9, weighting=RULES["freematch"]())
    with pytest.raises(ValueError, match=r"weighting is 'freematch', a str.*FreeMatchWeighting"):
        LayerMatch(classifier, weighting="freematch")
    with pytest.raises(ValueError, match=r"grad_relu is 'gate'.*'cut', 'agreement', 'off', 'reverse'"):
        LayerMatch(classifier, grad_relu="gate")
    with pytest.raises(ValueError, match=r"grad_relu='agreement'.*the classifier is a Sequential"):
        LayerMatch(nn.Sequential(classifier), grad_relu="agreement", avg_clustering=None)


def test_a_rules_state_lies_where_and_is_as_wide_as_the_classifier():
    for dtype, wide in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        criterion = build(nn.Linear(WIDTH, CLASSES, dtype=dtype), "freematch", "temporal")
        assert {value.dtype for value in criterion.state_dict().values() if value.is_floating_point()} == {wide}
    criterion = build(nn.Linear(WIDTH, CLASSES, device="meta"), "flexmatch", "prototypes")
    assert {value.device.type for value in criterion.state_dict().values()} == {"meta"}


def test_unlabelled_samples_of_one_class_and_a_single_sample_work():
    for rule in RULES:
        for reading in READINGS:
            _, criterion = moved(rule, reading)
            call = batch(0)
            one = {name: call[name][:1] for name in ("weak", "strong", "indices", "teacher_weak")}
            assert criterion(labelled=call["labelled"], **one).loss.isfinite()
    assert UNLABELLED > 1
