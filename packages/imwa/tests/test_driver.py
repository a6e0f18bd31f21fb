"""The order of events, what a caller may and may not do, and everything that is refused."""

import math
import random

import numpy
import pytest
import torch

from imwa import IMWA
from imwa.averaging import module_tensors


def small(*, momentum=0.9, seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 2)
    )
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)


def train(model, optimizer, generator):
    optimizer.zero_grad()
    model(torch.randn(8, 3, generator=generator)).square().mean().backward()
    optimizer.step()


def copied(model):
    return {name: value.detach().clone() for name, value in module_tensors(model).items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_replicas_come_in_order_with_their_global_steps():
    model, optimizer = small()
    seen = []
    for replica in IMWA(model, optimizer, replicas=2, episodes=3, steps=10):
        assert len(replica.steps) == len(range(replica.steps.start, replica.steps.stop))
        seen.append((replica.episode, replica.index, list(replica.steps)))
        assert len(replica.steps) == 0
        assert list(replica.steps) == []
    assert seen == [
        (e, m, list(steps)) for e, steps in enumerate([range(3), range(3, 6), range(6, 10)]) for m in range(2)
    ]


def test_every_replica_starts_from_the_same_state_and_its_own_generators():
    model, optimizer = small()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    starts, draws = {}, {}
    random.seed(5)  # an earlier test that broke off may have left a replica's own state behind
    for replica in IMWA(model, optimizer, replicas=3, episodes=2, steps=4, carry={"scheduler": scheduler}):
        momenta = [state["momentum_buffer"].clone() for state in optimizer.state.values()]
        starts.setdefault(replica.episode, []).append(
            (copied(model), momenta, scheduler.last_epoch, optimizer.param_groups[0]["lr"])
        )
        draws.setdefault(replica.episode, []).append((random.random(), numpy.random.rand(), torch.rand(1).item()))  # noqa: NPY002 (the global generator is meant)
        for _ in replica.steps:
            train(model, optimizer, replica.generator)
            scheduler.step()
    for episode in (0, 1):
        first = starts[episode][0]
        for weights, momenta, epoch, rate in starts[episode][1:]:
            assert same(first[0], weights)
            assert all(torch.equal(a, b) for a, b in zip(first[1], momenta, strict=True))
            assert (epoch, rate) == first[2:]
        for kind in zip(*draws[episode], strict=True):
            assert len(set(kind)) == 3
    assert starts[1][0][2:] == (2, 0.05)


def test_leaving_the_steps_early_raises_at_the_next_replica():
    model, optimizer = small()

    def run():
        for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=8):
            for step in replica.steps:
                train(model, optimizer, replica.generator)
                if step == 1:
                    break

    with pytest.raises(ValueError, match="Replica 0 of episode 0 was left before its step 2; its steps are 0 to 3"):
        run()


def test_leaving_the_very_last_steps_early_raises_when_the_loop_ends():
    model, optimizer = small()

    def run():
        for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=8):
            for step in replica.steps:
                if (replica.episode, replica.index, step) == (1, 1, 6):
                    break

    with pytest.raises(ValueError, match="Replica 1 of episode 1 was left before its step 7"):
        run()


def test_a_break_after_the_last_number_is_complete_since_a_number_handed_out_counts_as_done():
    model, optimizer = small()
    taken = 0
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=8):
        for step in replica.steps:
            taken += 1
            if step == replica.steps.stop - 1:
                break
    assert taken == 16


def test_forgetting_the_steps_raises():
    model, optimizer = small()
    with pytest.raises(ValueError, match="Replica 0 of episode 0 was left before its step 0"):
        list(IMWA(model, optimizer, replicas=2, episodes=1, steps=2))


def test_a_nan_names_tensor_replica_and_episode_and_the_average_can_be_restored():
    model, optimizer = small()
    kept = {}
    iterative = IMWA(
        model, optimizer, replicas=2, episodes=3, steps=6, after_average=lambda e, m: kept.update({e: copied(m)})
    )

    def run():
        for replica in iterative:
            for _ in replica.steps:
                train(model, optimizer, replica.generator)
            if (replica.episode, replica.index) == (1, 1):
                model[3].weight.data[0, 0] = math.nan

    with pytest.raises(ValueError, match=r"'3.weight' of replica 1 of episode 1 holds NaN"):
        run()
    iterative.restore_average()
    assert same(copied(model), kept[0])


def test_a_nan_elsewhere_names_the_part():
    model, optimizer = small()
    ema = torch.nn.Linear(2, 2)

    def run(spoil):
        for replica in IMWA(model, optimizer, replicas=2, episodes=1, steps=1, average={"ema": ema}):
            for _ in replica.steps:
                train(model, optimizer, replica.generator)
            spoil()

    with pytest.raises(ValueError, match=r"'weight' of replica 0 of episode 0 \(average/ema\) holds NaN"):
        run(lambda: ema.weight.data.fill_(math.nan))
    ema.weight.data.zero_()
    with pytest.raises(ValueError, match=r"'0/momentum_buffer' of replica 0 of episode 0 \(optimizer\) holds NaN"):
        run(lambda: optimizer.state[model[0].weight]["momentum_buffer"].fill_(math.nan))


def finish(iterative, model, optimizer, *, stop=None):
    for replica in iterative:
        for step in replica.steps:
            train(model, optimizer, replica.generator)
            if stop == (replica.episode, replica.index, step):
                return


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
@pytest.mark.parametrize("stop", [(0, 0, 0), (0, 2, 1), (1, 0, 3), (1, 1, 2), (2, 2, 5)])
def test_restored_after_a_break_the_run_trains_the_episode_again_to_the_same_bits(policy, stop):
    def fresh():
        model, optimizer = small()
        kept = {-1: copied(model)}
        iterative = IMWA(
            model,
            optimizer,
            replicas=3,
            episodes=3,
            steps=6,
            optimizer_state=policy,
            after_average=lambda e, m: kept.update({e: copied(m)}),
        )
        return iterative, model, optimizer, kept

    straight, model, optimizer, _ = fresh()
    finish(straight, model, optimizer)
    expected, generator = copied(model), torch.get_rng_state()
    broken, model, optimizer, kept = fresh()
    finish(broken, model, optimizer, stop=stop)
    broken.restore_average()
    assert same(copied(model), kept[stop[0] - 1])
    assert broken.finished_episodes == stop[0]
    finish(broken, model, optimizer)
    assert same(copied(model), expected)
    assert torch.equal(torch.get_rng_state(), generator)


def test_broken_out_of_both_loops_a_new_loop_goes_on_with_the_next_step():
    model, optimizer = small()
    finish(IMWA(model, optimizer, replicas=2, episodes=2, steps=6), model, optimizer)
    expected = copied(model)
    model, optimizer = small()
    iterative = IMWA(model, optimizer, replicas=2, episodes=2, steps=6)
    finish(iterative, model, optimizer, stop=(1, 0, 4))
    finish(iterative, model, optimizer)
    assert same(copied(model), expected)


def test_restore_before_the_loop_and_after_its_end():
    model, optimizer = small()
    start = copied(model)
    iterative = IMWA(model, optimizer, replicas=2, episodes=2, steps=4)
    iterative.restore_average()
    assert same(copied(model), start)
    finish(iterative, model, optimizer)
    end = copied(model)
    with torch.no_grad():
        model[0].weight.zero_()
    iterative.restore_average()
    assert same(copied(model), end)
    assert list(iterative) == []


def test_what_after_average_does_reaches_no_replica():
    def run(after_average):
        model, optimizer = small()
        finish(IMWA(model, optimizer, replicas=2, episodes=3, steps=6, after_average=after_average), model, optimizer)
        return copied(model), torch.get_rng_state()

    calls = []

    def meddle(episode, model):
        calls.append((episode, copied(model)))
        model.eval()
        torch.rand(5)
        random.random()
        if episode < 2:
            model[1].running_mean.zero_()
            model[3].weight.data.fill_(7.0)

    meddled, plain = run(meddle), run(None)
    assert same(meddled[0], plain[0])
    assert torch.equal(meddled[1], plain[1])
    assert [episode for episode, _ in calls] == [0, 1, 2]
    assert same(calls[-1][1], plain[0])


def test_a_state_saved_in_after_average_goes_on_with_the_next_episode():
    model, optimizer = small()
    states = []
    iterative = IMWA(
        model,
        optimizer,
        replicas=2,
        episodes=3,
        steps=6,
        after_average=lambda e, m: states.append(iterative.state_dict()),
    )
    finish(iterative, model, optimizer)
    expected, generator = copied(model), torch.get_rng_state()
    for state in states:
        model, optimizer = small(seed=5)
        again = IMWA(model, optimizer, replicas=2, episodes=3, steps=6)
        again.load_state_dict(state)
        finish(again, model, optimizer)
        assert same(copied(model), expected)
        assert torch.equal(torch.get_rng_state(), generator)


def test_a_state_saved_before_the_loop_starts_it():
    model, optimizer = small()
    iterative = IMWA(model, optimizer, replicas=2, episodes=3, steps=6)
    state = iterative.state_dict()
    finish(iterative, model, optimizer)
    expected = copied(model)
    model, optimizer = small(seed=5)
    again = IMWA(model, optimizer, replicas=2, episodes=3, steps=6)
    again.load_state_dict(state)
    finish(again, model, optimizer)
    assert same(copied(model), expected)


def test_a_state_of_other_settings_or_another_model_is_refused():
    model, optimizer = small()
    state = IMWA(model, optimizer, replicas=2, episodes=3, steps=6).state_dict()
    with pytest.raises(ValueError, match="episodes is 4 here and 3 there; seed is 1 here and 0 there"):
        IMWA(model, optimizer, replicas=2, episodes=4, steps=6, seed=1).load_state_dict(state)
    other = torch.nn.Linear(3, 4)
    with pytest.raises(ValueError, match="'weight' is in model state 0 and not in model state 1"):
        IMWA(other, torch.optim.SGD(other.parameters(), lr=0.1), replicas=2, episodes=3, steps=6).load_state_dict(state)


def test_a_state_whose_start_is_another_models_is_refused_before_a_replica_needs_it():
    model, optimizer = small()
    iterative = IMWA(model, optimizer, replicas=2, episodes=3, steps=6)
    finish(iterative, model, optimizer)
    state = iterative.state_dict()
    tensors = state["start"]["model"]["tensors"]
    name = next(iter(tensors))
    tensors[name] = tensors[name].double()
    before = copied(model)
    with pytest.raises(ValueError, match=f"start state.*{name}.*float64"):
        iterative.load_state_dict(state)
    assert same(copied(model), before)


class Scale:
    """A GradScaler's state without a GPU."""

    def __init__(self):
        self.state = {
            "scale": 64.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 10,
            "_growth_tracker": 0,
        }

    def state_dict(self):
        return dict(self.state)

    def load_state_dict(self, state):
        self.state = dict(state)


def test_carried_objects_go_on_from_replica_0_and_a_scaler_from_the_smallest():
    model, optimizer = small()

    class Count:
        def __init__(self):
            self.seen = []

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]

    count, scale, begins = Count(), Scale(), []
    for replica in IMWA(model, optimizer, replicas=3, episodes=2, steps=4, carry={"count": count, "scale": scale}):
        begins.append((list(count.seen), scale.state["scale"], scale.state["_growth_tracker"]))
        for step in replica.steps:
            count.seen.append((replica.index, step))
        scale.state["scale"] = [32.0, 8.0, 16.0][replica.index]
        scale.state["_growth_tracker"] = [3, 4, 2][replica.index]
    assert begins == [([], 64.0, 0)] * 3 + [([(0, 0), (0, 1)], 8.0, 2)] * 3
    assert count.seen == [(0, step) for step in range(4)]


def test_a_real_grad_scaler_is_carried():
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    off = torch.amp.GradScaler("cpu", enabled=False)
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=8, carry={"scaler": scaler, "off": off}):
        for _ in replica.steps:
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(8, 3, generator=replica.generator)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert scaler.get_scale() == 64.0  # 8 steps, doubled every 2: as in one run


def schedulers(optimizer):
    kinds = torch.optim.lr_scheduler
    return {
        "multistep": kinds.MultiStepLR(optimizer, [2, 5], gamma=0.1),
        "onecycle": kinds.OneCycleLR(optimizer, max_lr=0.5, total_steps=8),
        "sequential": kinds.SequentialLR(
            optimizer, [kinds.LinearLR(optimizer), kinds.ExponentialLR(optimizer, 0.9)], [3]
        ),
        "lambda": kinds.LambdaLR(optimizer, lambda step: 1 / (step + 1)),
        "restarts": kinds.CosineAnnealingWarmRestarts(optimizer, 3),
        "cyclic": kinds.CyclicLR(optimizer, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
    }


@pytest.mark.parametrize("name", ["multistep", "onecycle", "sequential", "lambda", "restarts", "cyclic"])
def test_every_scheduler_follows_the_global_step_and_survives_a_file(name, tmp_path):
    def run(replicas, stop=None, state=None):
        model, optimizer = small()
        scheduler = schedulers(optimizer)[name]
        iterative = IMWA(model, optimizer, replicas=replicas, episodes=3, steps=8, carry={"scheduler": scheduler})
        rates = []
        if state is not None:
            iterative.load_state_dict(state)
        for replica in iterative:
            for step in replica.steps:
                rates.append((replica.index, step, optimizer.param_groups[0]["lr"]))
                train(model, optimizer, replica.generator)
                scheduler.step()
                if (replica.index, step) == stop:
                    torch.save(iterative.state_dict(), tmp_path / "state.pt")
        return rates

    plain = {step: rate for _, step, rate in run(1)}
    rates = run(2, stop=(1, 3))
    assert all(rate == plain[step] for _, step, rate in rates)
    resumed = run(2, state=torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed == rates[rates.index((1, 4, plain[4])) :]


def test_averaged_objects_may_be_modules_or_plain():
    model, optimizer = small()
    swa = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    ends = []
    for replica in IMWA(model, optimizer, replicas=2, episodes=1, steps=3, average={"swa": swa}):
        for _ in replica.steps:
            train(model, optimizer, replica.generator)
            swa.update_parameters(model)
        ends.append(copied(swa))
    assert swa.n_averaged.item() == 3
    assert torch.equal(swa.module[0].weight, (ends[0]["module.0.weight"] + ends[1]["module.0.weight"]) / 2)


def test_buffers_that_are_not_saved_and_extra_state_are_rewound():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.register_buffer("history", torch.zeros(1), persistent=False)
            self.note = 0

        def get_extra_state(self):
            return self.note

        def set_extra_state(self, state):
            self.note = state

    model, seen = Odd(), []
    for replica in IMWA(model, torch.optim.SGD(model.parameters(), lr=0.1), replicas=2, episodes=2, steps=2):
        seen.append((model.history.item(), model.note))
        for _ in replica.steps:
            model.history += replica.index + 1
            model.note += 1
    assert seen == [(0.0, 0), (0.0, 0), (1.5, 1), (1.5, 1)]


def test_half_precision_models_are_averaged_in_float32():
    ends = []
    model = torch.nn.Linear(64, 64).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for replica in IMWA(model, optimizer, replicas=3, episodes=1, steps=1):
        for _ in replica.steps:
            with torch.no_grad():
                model.weight.copy_(torch.randn(64, 64, generator=replica.generator))
        ends.append(model.weight.detach().clone())
    exact = (ends[0].float() + ends[1].float() + ends[2].float()) / 3
    assert torch.equal(model.weight, exact.bfloat16())


def test_another_replica_s_gradients_are_gone_and_one_replica_s_stay():
    for replicas in (1, 2):
        model, optimizer = small()
        kept = []
        for replica in IMWA(model, optimizer, replicas=replicas, episodes=2, steps=4):
            kept.append(model[0].weight.grad is not None)
            for _ in replica.steps:
                train(model, optimizer, replica.generator)
        assert kept == ([False, True] if replicas == 1 else [False] * 4)


def test_more_episodes_than_steps_warn_and_equal_as_many_as_steps():
    ends = []
    for episodes in (4, 9):
        model, optimizer = small()
        if episodes > 4:
            with pytest.warns(UserWarning, match="episodes is 9, but the run has 4 steps"):
                iterative = IMWA(model, optimizer, replicas=2, episodes=episodes, steps=4)
        else:
            iterative = IMWA(model, optimizer, replicas=2, episodes=episodes, steps=4)
        finish(iterative, model, optimizer)
        ends.append(copied(model))
    assert same(*ends)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"episodes": -1}, "episodes is -1"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"optimizer_state": "avrage"}, "optimizer_state is 'avrage', .*did you mean 'average'"),
        ({"optimizer_state": None}, "optimizer_state is None, and may be 'average', 'local', 'reset'"),
        ({"carry": {"rate": 0.1}}, r"carry\['rate'\] is a float without state_dict"),
        ({"average": {"ema": [1]}}, r"average\['ema'\] is a list without state_dict"),
    ],
)
def test_settings_are_refused_by_value(settings, sentence):
    model, optimizer = small()
    with pytest.raises(ValueError, match=sentence):
        IMWA(model, optimizer, **{"steps": 4, "episodes": 2, **settings})


def test_a_seed_that_is_no_integer_is_refused():
    model, optimizer = small()
    with pytest.raises(TypeError, match=r"not 0\.5"):
        IMWA(model, optimizer, steps=4, episodes=2, seed=0.5)


def test_an_object_given_twice_is_refused():
    model, optimizer = small()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ValueError, match=r"average\['b'\] is also carry\['a'\]"):
        IMWA(model, optimizer, episodes=2, steps=4, carry={"a": scheduler}, average={"b": scheduler})
    with pytest.raises(ValueError, match=r"average\['m'\] is also the model"):
        IMWA(model, optimizer, episodes=2, steps=4, average={"m": model})


def test_optimizer_parameters_outside_every_module_are_refused():
    model, _ = small()
    criterion = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": criterion.parameters()}], lr=0.1)
    with pytest.raises(ValueError, match=r"group 1 holds a parameter of shape \(2, 2\) that is not in the model"):
        next(iter(IMWA(model, optimizer, episodes=2, steps=4)))
    next(iter(IMWA(model, optimizer, episodes=2, steps=4, average={"criterion": criterion})))


def test_parameters_without_values_are_refused():
    model = torch.nn.LazyLinear(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="Parameter 'weight' has no values yet"):
        next(iter(IMWA(model, optimizer, episodes=2, steps=4)))
