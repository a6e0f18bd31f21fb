"""Gain, spread, barrier and the warning of a collapse against slow twins; that looking changes nothing; resume."""

import copy
import io
import math
import random

import numpy
import pytest
import torch

from imwa import IMWA, Diagnostics, average_models, recompute_batch_norm
from imwa.barrier import POINTS, barrier_height, segment_losses
from imwa.collapse import EpisodeReport, collapse_sentence, has_collapsed
from reference.diagnostics import slow_barrier, slow_gain, slow_losses, slow_spread
from reference.toy import Set, data, net

STEPS, EPISODES = 12, 3
FEATURES, LABELS = data()


def loss_of(model):
    model.eval()
    return torch.nn.functional.cross_entropy(model(FEATURES), LABELS).item()


def accuracy(model):
    """A careless metric: it leaves modes as they fall, and draws from every global generator."""
    numpy.random.rand()  # noqa: NPY002 (the global generator is meant)
    torch.rand(1), random.random()
    model.eval()
    return (model(FEATURES).argmax(1) == LABELS).double().mean().item() * 100


def training_mode(model):
    """Even more careless: it moves the running statistics."""
    model.train()
    model(FEATURES[:50])
    return accuracy(model)


def measure_norms(model):
    recompute_batch_norm(model, [FEATURES[start : start + 50] for start in range(0, 200, 50)])


def run(diagnostics=None, *, replicas=3, stop=None, resume=None, ends=None, **settings):
    """The toy run; `stop` is the (episode, replica, step) at which its state is written."""
    own = Set(net(), "momentum", steps=STEPS)
    torch.manual_seed(123)
    random.seed(1)
    numpy.random.seed(1)  # noqa: NPY002
    more = {"replicas": replicas, "episodes": EPISODES, "steps": STEPS, "carry": {"scheduler": own.scheduler}}
    after = None if diagnostics is None else diagnostics.after_average
    iterative = IMWA(own.model, own.optimizer, average={"ema": own.ema}, after_average=after, **more, **settings)
    if resume is not None:
        resume.seek(0)
        state = torch.load(resume, weights_only=True)
        iterative.load_state_dict(state["iterative"])
        diagnostics.load_state_dict(state["diagnostics"])
    for replica in iterative if diagnostics is None else diagnostics.watch(iterative):
        for step in replica.steps:
            own.step(replica.generator, (FEATURES, LABELS))
            if stop == (replica.episode, replica.index, step):
                file = io.BytesIO()
                torch.save({"iterative": iterative.state_dict(), "diagnostics": diagnostics.state_dict()}, file)
                return file
        if ends is not None:
            ends.append((replica.episode, copy.deepcopy(own.model)))
    return own


def everything(**settings):
    settings = {"points": (0.0, 0.5, 1.0), **settings}
    return Diagnostics(
        accuracy, drop=200.0, recompute=measure_norms, loss=loss_of, barrier_in=range(EPISODES), **settings
    )


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_gain_spread_and_barrier_are_those_of_the_slow_twin(replicas):
    ends, points = [], (0.0, 0.25, 0.5, 0.8, 1.0)
    diagnostics = everything(points=points)
    run(diagnostics, replicas=replicas, ends=ends)
    assert [report.episode for report in diagnostics.reports] == [0, 1, 2]
    for report in diagnostics.reports:
        models = [model for episode, model in ends if episode == report.episode]
        average = average_models(models)
        assert report.gain == pytest.approx(slow_gain(accuracy, average, models), abs=1e-9)
        assert report.replicas == pytest.approx(sum(map(accuracy, models)) / replicas, abs=1e-9)
        assert report.spread == pytest.approx(slow_spread(models), abs=1e-12)
        anew = copy.deepcopy(average)
        measure_norms(anew)
        assert report.recomputed == pytest.approx(accuracy(anew), abs=1e-9)
        mine = [segment for segment in diagnostics.segments if segment[0] == report.episode]
        assert [place[1:3] for place in mine] == [(m, m + 1) for m in range(replicas - 1)]
        heights = []
        for _, m, n, segment in mine:
            losses = slow_losses(models[m], models[n], loss_of, points)
            assert segment.points == points
            assert segment.losses == pytest.approx(losses, abs=1e-12)
            heights.append(slow_barrier(points, losses))
        assert (report.barrier is None) == (replicas == 1)
        assert replicas == 1 or report.barrier == pytest.approx(max(heights), abs=1e-12)
    assert replicas > 1 or [(report.gain, report.spread) for report in diagnostics.reports] == [(0.0, 0.0)] * 3


@pytest.mark.parametrize("metric", [accuracy, training_mode])
def test_looking_changes_no_bit_of_the_training(metric):
    plain = run()
    generators = (torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist())  # noqa: NPY002
    diagnostics = everything()
    diagnostics.metric = metric
    watched = run(diagnostics)
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1:] == (random.getstate(), numpy.random.get_state()[1].tolist())  # noqa: NPY002
    one, other = plain.everything(), watched.everything()
    assert one.keys() == other.keys()
    assert all(torch.equal(v, other[n]) if torch.is_tensor(v) else v == other[n] for n, v in one.items())
    assert [module.training for module in plain.model.modules()] == [m.training for m in watched.model.modules()]


def test_stopped_at_any_step_and_resumed_the_reports_are_those_of_the_unbroken_run():
    straight = everything()
    whole = run(straight).everything()
    for stop in [(0, 0, 3), (0, 2, 3), (1, 1, 4), (1, 1, 7), (2, 2, 11)]:
        file = run(everything(), stop=stop)
        resumed = everything()
        torch.manual_seed(7)
        again = run(resumed, resume=file).everything()
        assert resumed.reports == straight.reports, stop
        assert resumed.segments == straight.segments, stop
        assert all(torch.equal(v, again[n]) if torch.is_tensor(v) else v == again[n] for n, v in whole.items()), stop


def test_an_episode_that_is_trained_again_is_looked_at_again():
    straight = everything()
    run(straight)
    diagnostics = everything()
    own = Set(net(), "momentum", steps=STEPS)
    torch.manual_seed(123)
    random.seed(1)
    numpy.random.seed(1)  # noqa: NPY002
    carried = {"carry": {"scheduler": own.scheduler}, "average": {"ema": own.ema}}
    settings = {"replicas": 3, "episodes": EPISODES, "steps": STEPS, "after_average": diagnostics.after_average}
    iterative = IMWA(own.model, own.optimizer, **settings, **carried)
    for broken in (True, False):
        for replica in diagnostics.watch(iterative):
            for _ in replica.steps:
                own.step(replica.generator, (FEATURES, LABELS))
            if broken and (replica.episode, replica.index) == (1, 2):
                break
        if broken:
            iterative.restore_average()
    assert diagnostics.reports == straight.reports
    assert diagnostics.segments == straight.segments


def walk(ends, *, dtype=torch.float64, model=None, start=1.0, episodes=1, **settings):
    """Replica m ends with all its weights at start + ends[m], which is written where its one step would be."""
    model = model or torch.nn.Linear(3, 2).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(start)
    diagnostics = Diagnostics(lambda model: -abs(float(model.weight[0, 0])), **{"drop": 100.0, **settings})
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.0)
    more = {"replicas": len(ends), "episodes": episodes, "steps": episodes, "on_nan": "leave out"}
    for replica in diagnostics.watch(IMWA(model, optimizer, after_average=diagnostics.after_average, **more)):
        for _ in replica.steps:
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.requires_grad:
                        weight.fill_(start + ends[replica.index])
    return diagnostics


def test_spread_of_known_ends():
    """Ends 3 and 5: mean 4, deviation 1 in every entry, so 1/4 whatever their number."""
    assert walk([2.0, 4.0]).reports[0].spread == pytest.approx(0.25, abs=1e-15)
    assert walk([2.0, 4.0]).reports[0].gain == pytest.approx(0.0)
    for dtype, error in ((torch.float32, 1e-7), (torch.bfloat16, 1e-3)):
        assert walk([2.0, 4.0], dtype=dtype).reports[0].spread == pytest.approx(0.25, abs=error)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equal_replicas_have_no_spread_at_all(count):
    assert walk([0.1] * count, dtype=torch.float32).reports[0].spread == 0.0


@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3])
def test_a_small_spread_after_a_long_way_is_seen(apart):
    """In float32 the replicas go a way of 1 and part by far less."""
    draw = torch.Generator().manual_seed(0)
    model, ends = torch.nn.Linear(100, 80), []
    base = torch.randn(80, 100, generator=draw)
    diagnostics = Diagnostics(loss_of, drop=1.0)
    diagnostics.metric = lambda model: 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    iterative = IMWA(model, optimizer, replicas=3, episodes=1, steps=1, after_average=diagnostics.after_average)
    for replica in diagnostics.watch(iterative):
        for _ in replica.steps:
            with torch.no_grad():
                model.weight += base + apart * torch.randn(80, 100, generator=draw)
        ends.append(copy.deepcopy(model))
    expected = slow_spread(ends)
    assert expected < apart
    assert diagnostics.reports[0].spread == pytest.approx(expected, rel=1e-2)


def test_the_spread_is_over_trained_weights_once_and_over_no_buffer():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.frozen = (torch.nn.Linear(2, 2, bias=False) for _ in range(3))
            self.b.weight = self.a.weight
            self.frozen.weight.requires_grad_(False)
            self.norm = torch.nn.BatchNorm1d(2)
            self.norm.running_var.fill_(1e6)
            self.norm.bias.requires_grad_(False)

        @property
        def weight(self):
            return self.a.weight

    model = Tied()
    assert walk([2.0, 4.0], model=model, dtype=torch.float32).reports[0].spread == pytest.approx(0.25, abs=1e-7)


def test_a_mean_of_zeros_has_no_relative_spread_but_that_of_equal_zeros():
    assert walk([-2.0, 0.0]).reports[0].spread == math.inf
    assert walk([-1.0, -1.0]).reports[0].spread == 0.0


def test_a_replica_that_was_left_out_counts_in_no_number():
    diagnostics = walk([2.0, math.nan, 4.0], loss=lambda model: float(model.weight[0, 0]) ** 2, barrier_in=[0])
    report = diagnostics.reports[0]
    assert report.left_out == 1
    assert report.replicas == -4.0
    assert report.spread == pytest.approx(0.25)
    assert [segment[1:3] for segment in diagnostics.segments] == [(0, 2)]


@pytest.mark.parametrize("convex", [True, False])
def test_barrier_of_a_convex_loss_is_0_and_of_a_double_well_its_hill(convex):
    def loss(model):
        x = float(model.weight[0, 0])
        return x**2 if convex else (x**2 - 1) ** 2

    diagnostics = walk([-2.0, 0.0], loss=loss, barrier_in=[0])  # from -1 to 1, over 0
    assert diagnostics.reports[0].barrier == pytest.approx(0.0 if convex else 1.0, abs=1e-12)
    assert diagnostics.reports[0].barrier_recomputed is None


def test_o16_a_convex_loss_has_no_barrier_between_any_two_weights():
    """Multinomial logistic regression, as in the oracle: 50 random pairs."""
    draw = torch.Generator().manual_seed(2)
    model = torch.nn.Linear(6, 4).double()
    shapes = {name: value.shape for name, value in model.named_parameters()}
    ends = [{name: torch.randn(shape, generator=draw).double() for name, shape in shapes.items()} for _ in range(100)]
    for first, second in zip(ends[::2], ends[1::2], strict=True):
        segment = segment_losses(model, first, second=second, loss=loss_of)
        assert barrier_height(segment.points, segment.losses) < 1e-12


def test_the_middle_of_a_segment_is_the_average_of_its_ends_and_the_model_is_put_back():
    one, other, model = net(), Set(net()).model, net()
    with torch.no_grad():
        for value in other.state_dict().values():
            value.add_(1)
    before = copy.deepcopy(model.state_dict())
    states = [dict(own.state_dict()) for own in (one, other)]
    seen = []

    def failing(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        if len(seen) == 5:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        segment_losses(model, states[0], second=states[1], loss=failing, points=(0, 0.25, 0.5, 0.75, 1))
    middle = average_models([one, other]).state_dict()
    for name, value in middle.items():
        assert torch.equal(seen[0][name], states[0][name])
        assert torch.equal(seen[4][name], states[1][name])
        if value.is_floating_point():
            assert (seen[2][name] - value).abs().max() < 1e-15
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_mixed_statistics_raise_a_barrier_that_measured_ones_do_not():
    """Two nets that compute the same with other scales before a BatchNorm: the segment is flat once it is measured anew."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(FEATURES), LABELS).backward()
        optimizer.step()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight *= 30
        other[0].bias *= 30
    for own in (model, other):
        measure_norms(own)
    segment = segment_losses(
        model, model.state_dict(), second=other.state_dict(), loss=loss_of, points=POINTS, recompute=measure_norms
    )
    assert barrier_height(segment.points, segment.losses) > 0.02
    assert barrier_height(segment.points, segment.recomputed) < 1e-6


def test_a_loss_that_is_not_finite_has_no_barrier_height():
    assert math.isnan(barrier_height([0.0, 0.5, 1.0], [1.0, math.inf, 1.0]))
    assert math.isnan(barrier_height([0.0, 0.5, 1.0], [1.0, math.nan, 1.0]))


def report_of(replicas, average, recomputed):
    return EpisodeReport(0, replicas, average, average - replicas, 0.1, recomputed, None, None, 0)


@pytest.mark.parametrize(
    ("numbers", "said", "not_said"),
    [
        ((96.6, 70.8, 92.2), ["70.8 against 96.6", "25.8 lost", "it has 92.2", "gives 83 %", "mostly stale"], "blame"),
        ((63.6, 51.3, 54.9), ["gives 29 %", "mostly different basins", "more episodes", "a tenth"], "mostly stale"),
        (
            (96.6, 10.4, 10.1),
            ["statistics are not to blame", "different basins", "pre-trained"],
            "recompute_batch_norm",
        ),
        ((90.0, 60.0, None), ["was not measured anew", "it is open", "recompute_batch_norm", "basins"], "%"),
        ((90.0, 60.0, 95.0), ["gives 100 %", "mostly stale statistics", "pooled"], "For the rest"),
    ],
)
def test_the_sentence_says_why_and_what_to_try(numbers, said, not_said):
    sentence = collapse_sentence(report_of(*numbers))
    assert all(words in sentence for words in said), sentence
    assert not_said not in sentence
    assert "\n" not in sentence


def test_what_is_far_below():
    assert has_collapsed(report_of(90.0, 79.9, None), drop=10.0)
    assert not has_collapsed(report_of(90.0, 80.1, None), drop=10.0)
    assert not has_collapsed(report_of(90.0, math.nan, None), drop=10.0)


def test_a_collapse_is_warned_of_once_a_run_and_measured_anew_then():
    """Replicas at -1 and 1 are good, their mean 0 is not."""
    measured = []
    told = []
    settings = {"drop": 0.5, "warn": told.append, "recompute": measured.append, "recompute_every": 100}
    model = torch.nn.Linear(1, 1)
    diagnostics = Diagnostics(lambda model: abs(float(model.weight[0, 0])), **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    more = {"replicas": 2, "episodes": 4, "steps": 4, "after_average": diagnostics.after_average}
    for replica in diagnostics.watch(IMWA(model, optimizer, **more)):
        for _ in replica.steps:
            with torch.no_grad():
                model.weight.fill_(1.0 - 2 * replica.index if replica.episode else 1.0)
    assert len(told) == 1
    assert told == [diagnostics.warning]
    assert "average of episode 1 is far below its replicas: 0 against 1 in the mean, 1 lost" in told[0]
    assert [report.recomputed for report in diagnostics.reports] == [None, 0.0, None, 0.0]  # the collapse, and the last
    again = Diagnostics(lambda model: 0.0, drop=0.5)
    again.load_state_dict(diagnostics.state_dict())
    assert again.warning == diagnostics.warning


def test_without_a_receiver_the_warning_is_logged(caplog):
    model = torch.nn.Linear(1, 1)
    diagnostics = Diagnostics(lambda model: abs(float(model.weight[0, 0])), drop=0.5)
    iterative = IMWA(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        replicas=2,
        episodes=1,
        steps=1,
        after_average=diagnostics.after_average,
    )
    for replica in diagnostics.watch(iterative):
        for _ in replica.steps:
            with torch.no_grad():
                model.weight.fill_(1.0 - 2 * replica.index)
    assert "is far below its replicas" in caplog.text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"barrier_in": [3, 1]}, r"barrier_in is \[1, 3\], but there is no loss"),
        ({"recompute_every": 0}, "recompute_every is 0 and drop 1.0"),
        ({"drop": -2.0}, "recompute_every is 1 and drop -2.0"),
        ({"points": (0.0, 0.5)}, r"points of a segment are \[0.0, 0.5\]"),
        ({"points": (0.0, 0.5, 0.5, 1.0)}, "rise from 0 to 1"),
    ],
)
def test_settings_are_refused_by_value(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Diagnostics(loss_of, **{"drop": 1.0, **settings})


@pytest.mark.parametrize(
    ("watched", "episodes", "sentence"),
    [
        (True, 2, r"saw no average of episode 0\. Give IMWA after_average=diagnostics\.after_average"),
        (True, 1, r"saw no average of episode 0\. Give IMWA after_average=diagnostics\.after_average"),
        (False, 2, r"saw no replica of episode 0\. Iterate: for replica in diagnostics\.watch"),
    ],
)
def test_a_half_that_is_forgotten_is_named(watched, episodes, sentence):
    own, diagnostics = Set(net(), steps=2), Diagnostics(accuracy, drop=1.0)
    settings = {"replicas": 2, "episodes": episodes, "steps": 2, "carry": {"scheduler": own.scheduler}}
    settings |= {} if watched else {"after_average": diagnostics.after_average}
    iterative = IMWA(own.model, own.optimizer, **settings)

    def loop():
        for replica in diagnostics.watch(iterative) if watched else iterative:
            for _ in replica.steps:
                own.step(replica.generator, (FEATURES, LABELS))

    with pytest.raises(ValueError, match=sentence):
        loop()
