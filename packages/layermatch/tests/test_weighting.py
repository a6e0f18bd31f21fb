"""What all rules share, and the two without averages."""

import doctest
import io
from importlib import import_module

import pytest
import torch

from host_reads import HostReads
from layermatch import FixedThreshold, FlexMatchWeighting, PseudoLabelWeighting, Weighted, WeightingRule
from reference.weighting import fixed_threshold, lee_ramp, usb_ramp
from weighting_workers import IMAGES, RULES, batch, called, probabilities, same_state, state_of

STATEFUL = [name for name in RULES if name not in ("fixed", "pseudolabel")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (17, 3), (200, 10)])
def test_fixed_threshold_equals_the_twin(samples, classes, threshold, dtype):
    q = probabilities(samples, classes, dtype, sharpness=3.0)
    weights, mask, extra = FixedThreshold(threshold)(q)
    assert weights.tolist() == fixed_threshold(q.tolist(), threshold)
    assert mask.tolist() == [weight == 1.0 for weight in weights.tolist()]
    assert weights.dtype == dtype
    assert mask.dtype == torch.bool
    assert extra is None


def test_o7_fixed_threshold_is_monotone_in_confidence():
    q = probabilities(500, 10)
    weights = FixedThreshold(0.6)(q).weights[q.amax(1).argsort()]
    assert weights.min() == 0
    assert weights.max() == 1
    assert (weights.diff() >= 0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.0999])
def test_o7_any_threshold_below_one_over_k_takes_everything(threshold):
    uniform = torch.full((3, 10), 0.1)
    q = torch.cat([probabilities(50, 10, torch.float32), uniform, torch.eye(10)])
    assert FixedThreshold(threshold)(q).weights.eq(1).all()


def test_o7_one_hot_and_uniform_rows_give_no_nan_and_the_threshold_itself_counts():
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.95, 0.05], [0.9499, 0.0501]])
    weights, mask, _ = FixedThreshold(0.95)(q)
    assert weights.tolist() == [1, 0, 1, 0]
    assert mask.tolist() == [True, False, True, False]
    assert not weights.requires_grad


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize(
    "build",
    [
        FixedThreshold,
        lambda threshold: PseudoLabelWeighting(1.0, threshold=threshold),
        lambda threshold: FlexMatchWeighting(2, 3, threshold=threshold),
    ],
)
def test_a_threshold_outside_0_to_1_is_refused(build, threshold):
    with pytest.raises(ValueError, match=f"threshold is {threshold}"):
        build(threshold)


def after(steps, **options):
    rule = PseudoLabelWeighting(**options)
    for _ in range(steps):
        rule.update()
    return rule


@pytest.mark.parametrize("step", [0, 1, 7, 39, 40, 41, 100])
def test_pseudolabel_equals_the_twin_in_usbs_form(step):
    q = probabilities(30, 4)
    weights, mask, extra = after(step, ramp_end=0.4 * 100)(q)
    expected = [usb_ramp(step, 100) * k for k in fixed_threshold(q.tolist(), 0.95)]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert mask.tolist() == [k == 1.0 for k in fixed_threshold(q.tolist(), 0.95)]
    assert extra is None


@pytest.mark.parametrize("step", [0, 9, 10, 11, 35, 60, 61])
def test_pseudolabel_equals_the_twin_in_lees_form(step):
    rule = after(step, ramp_begin=10, ramp_end=60, ramp_height=3.0, threshold=0.0)
    expected = torch.full((5,), lee_ramp(step, 10, 60), dtype=torch.float64)
    torch.testing.assert_close(rule(probabilities(5, 4)).weights, expected, rtol=1e-12, atol=0)


def test_o7_pseudolabels_factor_is_0_at_the_start_and_1_from_its_end_on():
    steps = 50
    rule = PseudoLabelWeighting(0.4 * steps)
    factors = []
    for _ in range(steps):
        factors.append(float(rule.factor()))
        rule.update()
    assert factors[0] == 0.0
    assert (torch.tensor(factors[:21]).diff() > 0).all()
    assert factors[20:] == [1.0] * 30


def test_pseudolabels_threshold_itself_counts():
    rule = PseudoLabelWeighting(0.0, threshold=0.75)
    assert rule(torch.tensor([[0.75, 0.25], [0.74, 0.26]])).mask.tolist() == [True, False]


def test_pseudolabels_step_counts_steps_that_were_taken():
    rule = PseudoLabelWeighting(10.0)
    rule.update()
    rule.update(step_taken=torch.tensor(True))
    rule.update(step_taken=torch.tensor(False))
    assert rule.pseudolabel_step.item() == 2
    rule(probabilities(3, 4))
    assert rule.pseudolabel_step.item() == 2


def test_pseudolabel_without_a_ramp_counts_in_full_from_the_start():
    assert float(PseudoLabelWeighting(0.0).factor()) == 1.0
    assert [float(after(step, ramp_begin=2.0, ramp_end=2.0).factor()) for step in range(4)] == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ramp_end": -1.0}, "ramp_end is -1.0 and ramp_begin 0.0"),
        ({"ramp_end": float("inf")}, "ramp_end is inf"),
        ({"ramp_end": 5.0, "ramp_begin": 6.0}, "ramp_end is 5.0 and ramp_begin 6.0"),
        ({"ramp_end": 5.0, "ramp_begin": -1.0}, "ramp_begin is -1.0"),
        ({"ramp_end": 5.0, "ramp_height": -2.0}, "ramp_height is -2.0"),
    ],
)
def test_pseudolabel_refuses_ramps_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        PseudoLabelWeighting(**options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RULES)
def test_o7_weights_have_no_graph_and_the_dtype_of_the_probabilities(name, dtype):
    rule = RULES[name]()
    for step in range(3):
        answer, gradient = called(rule, *batch(step, dtype=dtype))
        assert isinstance(answer, Weighted)
        assert not answer.weights.requires_grad
        assert answer.weights.dtype == dtype
        assert answer.weights.shape == answer.mask.shape == (12,)
        assert answer.mask.dtype == torch.bool
        assert (answer.extra is not None) == ("freematch" in name)
        if gradient is not None:
            assert answer.extra.dtype == dtype
            assert answer.extra.shape == ()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("rows", ["one-hot", "uniform", "one class", "one sample"])
@pytest.mark.parametrize(
    ("name", "momentum"),
    [
        (name, momentum)
        for name, build in RULES.items()
        for momentum in (None, *((0.0, 1.0) if hasattr(build(), "momentum") else ()))
    ],
)
def test_o7_no_nan_for_one_hot_or_uniform_rows_two_classes_or_a_class_never_predicted(name, momentum, rows):
    for classes in (2, 4):
        eye = torch.eye(classes)
        q = {
            "one-hot": eye.repeat(4, 1),
            "uniform": torch.full((5, classes), 1.0 / classes),
            "one class": eye[:1].repeat(6, 1),
            "one sample": eye[:1],
        }[rows]
        rule = RULES[name](classes)
        if momentum is not None:
            rule.momentum = momentum
        stay_finite(rule, q)


def stay_finite(rule, q):
    for _ in range(3):
        answer, gradient = called(rule, q, q * 3.0, torch.arange(len(q)))
        assert answer.weights.isfinite().all()
        assert (answer.weights >= 0).all()
        assert (answer.weights <= 1).all()
        if gradient is not None:
            assert answer.extra.isfinite()
            assert gradient.isfinite().all()
        assert all(value.isfinite().all() for value in rule.state_dict().values())


@pytest.mark.parametrize("name", RULES)
def test_o5_a_rules_state_saved_and_loaded_goes_on_with_the_same_bits(name):
    def go(rule, steps):
        found = []
        for step in steps:
            answer, gradient = called(rule, *batch(step, dtype=torch.float32))
            rule.update(step_taken=torch.tensor(step % 3 != 0))
            found += [answer.weights, answer.mask.float()]
            found += [] if gradient is None else [answer.extra.detach().reshape(1), gradient]
        return found

    whole = RULES[name]()
    expected = go(whole, range(10))
    first = RULES[name]()
    go(first, range(5))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = RULES[name]()
    second.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(state_of(second), state_of(first))
    assert all(
        torch.equal(a, b) for a, b in zip(go(second, range(5, 10)), expected[-len(expected) // 2 :], strict=True)
    )
    assert same_state(state_of(second), state_of(whole))


@pytest.mark.parametrize("name", RULES)
def test_o5_all_of_a_rules_state_is_in_buffers_that_bear_its_name(name):
    rule = RULES[name]()
    assert list(rule.parameters()) == []
    assert list(rule.state_dict()) == [key for key, _ in rule.named_buffers()]
    assert all(key.startswith(name.split(",")[0] + "_") for key in rule.state_dict())
    assert (name == "fixed") == (not rule.state_dict())


KINDS = ["fixed", "pseudolabel", "flexmatch", "freematch", "softmatch", "softmatch, unaligned"]


@pytest.mark.parametrize("own", KINDS)
@pytest.mark.parametrize("saved", KINDS)
def test_o5_a_state_of_another_rule_is_refused_by_name(saved, own):
    rule, state = RULES[own](), RULES[saved]().state_dict()
    if own == saved:
        rule.load_state_dict(state)
        return
    theirs = r"nothing" if saved == "fixed" else rf"\['{saved.split(',')[0]}_"
    with pytest.raises(ValueError, match=rf"saved weighting rule holds {theirs}.*this {type(rule).__name__}"):
        rule.load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "key", "theirs", "own"),
    [
        ("flexmatch", "flexmatch_counts", (6,), (5,)),
        ("freematch", "freematch_probabilities", (5,), (4,)),
        ("softmatch", "softmatch_probabilities", (5,), (4,)),
    ],
)
def test_o5_a_state_of_other_classes_is_refused_by_name(name, key, theirs, own):
    message = rf"{key} has shape \({theirs[0]},\), and this \w+'s \({own[0]},\)"
    with pytest.raises(ValueError, match=message):
        RULES[name]().load_state_dict(RULES[name](5).state_dict())


def test_o5_a_state_of_other_images_is_refused_by_name():
    with pytest.raises(ValueError, match=r"flexmatch_labels has shape \(41,\), and this FlexMatchWeighting's \(40,\)"):
        RULES["flexmatch"]().load_state_dict(RULES["flexmatch"](4, 41).state_dict())


@pytest.mark.parametrize("name", RULES)
def test_a_rule_reads_nothing_on_the_host_and_draws_nothing(name):
    rule, (q, strong, indices) = RULES[name](), batch(0, dtype=torch.float32)
    flag = torch.tensor(True)
    before = torch.random.get_rng_state()
    with HostReads() as reads:
        for finite in (None, flag):
            called(rule, q, strong, indices, finite=finite)
        rule.update()
        rule.update(step_taken=flag)
    assert reads.found == []
    assert torch.equal(torch.random.get_rng_state(), before)


def spoilt(kind):
    q, strong, indices = batch(7)
    if kind == "one NaN":
        q[5, 2] = float("nan")
    elif kind == "all NaN":
        q[:] = float("nan")
    elif kind == "infinite":
        q[5, 2] = float("inf")
    return q, strong, indices, {"finite": torch.tensor(kind != "known")}


@pytest.mark.parametrize("kind", ["one NaN", "all NaN", "infinite", "known"])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_batch_that_is_not_finite_leaves_the_state_and_the_next_goes_on(name, kind):
    rule, other = RULES[name]().double(), RULES[name]().double()
    for step in range(3):
        called(rule, *batch(step))
        called(other, *batch(step))
    before = state_of(rule)
    q, strong, indices, keywords = spoilt(kind)
    called(rule, q, strong, indices, **keywords)
    assert same_state(state_of(rule), before)
    called(rule, *batch(3))
    called(other, *batch(3))
    assert same_state(state_of(rule), state_of(other))
    assert not same_state(state_of(rule), before)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_first_batch_that_is_not_finite_is_as_if_it_had_not_been(name):
    rule, other = RULES[name]().double(), RULES[name]().double()
    q, strong, indices, keywords = spoilt("one NaN")
    called(rule, q, strong, indices, **keywords)
    assert same_state(state_of(rule), state_of(other))
    called(rule, *batch(3))
    called(other, *batch(3))
    assert same_state(state_of(rule), state_of(other))


@pytest.mark.parametrize("name", RULES)
def test_half_precision_leaves_a_rules_state_and_double_widens_it(name):
    rule = RULES[name]()
    called(rule, *batch(0, dtype=torch.float32))
    before = state_of(rule)
    for change in (rule.half, lambda: rule.to(torch.bfloat16)):
        change()
        assert same_state(state_of(rule), before)
    rule.double()
    assert {value.dtype for value in rule.state_dict().values()} <= {torch.float64, torch.int64, torch.bool}
    rule.to("meta")
    assert {value.device.type for value in rule.state_dict().values()} <= {"meta"}


@pytest.mark.parametrize("name", [name for name in RULES if name != "fixed"])
def test_a_state_left_on_another_device_is_named(name):
    with pytest.raises(ValueError, match=r"_\w+ is on meta and the probabilities on cpu.*criterion.to\('cpu'\)"):
        called(RULES[name]().to("meta"), *batch(0))


@pytest.mark.parametrize("name", STATEFUL)
def test_probabilities_of_other_classes_or_none_are_refused(name):
    rule = RULES[name]()
    with pytest.raises(ValueError, match=r"shape \(12, 5\), and this \w+ was built for 4 classes"):
        called(rule, *batch(0, classes=5))
    with pytest.raises(ValueError, match=r"shape \(0, 4\), and this \w+ was built for 4 classes.*at least 1"):
        called(rule, torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("name", STATEFUL)
def test_classes_and_momenta_that_cannot_be_are_refused(name):
    rule = RULES[name]()
    build = type(rule)
    for wrong in (1, 0, 2.0, True):
        with pytest.raises(ValueError, match=f"classes is {wrong!r}"):
            build(wrong, IMAGES) if "flexmatch" in name else build(wrong)
    if "flexmatch" not in name:
        for wrong in (-0.1, 1.5, float("nan")):
            with pytest.raises(ValueError, match=f"momentum is {wrong}"):
                build(4, momentum=wrong)


def test_a_rule_without_a_forward_of_its_own_says_so():
    class Mine(WeightingRule):
        pass

    with pytest.raises(TypeError, match="Mine does not say how it weights"):
        Mine()(probabilities(3, 4))


def test_only_flexmatch_needs_indices():
    assert {name for name, build in RULES.items() if build().needs_indices} == {"flexmatch", "flexmatch, no warm-up"}


@pytest.mark.parametrize("name", ["flexmatch", "freematch", "softmatch"])
def test_examples_in_a_rules_docstring_run(name):
    found = doctest.testmod(import_module(f"layermatch.weighting.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_one_graph_for_the_compiler(name):
    rule, compiled = RULES[name](), RULES[name]()
    q, strong, indices = batch(0, dtype=torch.float32)
    expected = rule(q, strong_logits=strong, indices=indices)
    found = torch.compile(compiled, backend="eager", fullgraph=True)(q, strong_logits=strong, indices=indices)
    assert torch.equal(found.weights, expected.weights)
    assert same_state(state_of(compiled), state_of(rule))
