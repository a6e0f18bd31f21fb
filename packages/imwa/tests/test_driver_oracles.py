"""Oracles of the paper page about whole runs, against plain runs and the slow twin; float64, one thread."""

import io
import itertools

import pytest
import torch

from imwa import IMWA
from imwa.averaging import module_tensors
from reference.toy import OPTIMIZERS, Set, data, net, plain_run, replica_stream, set_globals, twin

STEPS = 24


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def imwa_run(
    optimizer="momentum", *, policy="average", replicas=3, episodes=3, steps=STEPS, seed=0, caller=123, **more
):
    """The package's run over the toy set; returns the set and the driver."""
    own, table = Set(net(), optimizer, steps=steps), data()
    torch.manual_seed(caller)
    iterative = IMWA(
        own.model,
        own.optimizer,
        replicas=replicas,
        episodes=episodes,
        steps=steps,
        seed=seed,
        optimizer_state=policy,
        carry={"scheduler": own.scheduler},
        average={"ema": own.ema},
        **more,
    )
    for replica in iterative:
        for _ in replica.steps:
            own.step(replica.generator, table)
    return own, iterative


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        assert same, f"{name}: {value} against {other[name]}"


def distance(one, other):
    return max((value - other[name]).abs().max().item() for name, value in one.items() if torch.is_tensor(value))


@pytest.mark.parametrize("policy", ["average", "local"])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_o1_one_replica_is_the_plain_run(optimizer, policy):
    expected = plain_run(optimizer)
    generator_after = torch.get_rng_state()
    for episodes in (1, 2, 3, 5, 7, 24):
        own, _ = imwa_run(optimizer, policy=policy, replicas=1, episodes=episodes)
        assert_same(own.everything(), expected.everything())
        assert torch.equal(torch.get_rng_state(), generator_after)


def test_o1_reset_is_not_the_plain_run_unless_stateless():
    assert distance(imwa_run(policy="reset", replicas=1)[0].everything(), plain_run().everything()) > 1e-3
    own, _ = imwa_run("sgd", policy="reset", replicas=1, episodes=5)
    assert_same(own.everything(), plain_run("sgd").everything())


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_o2_one_episode_is_the_mean_of_plain_runs(optimizer):
    own, _ = imwa_run(optimizer, episodes=1)
    runs = [plain_run(optimizer, index=index) for index in range(3)]
    for name, value in own.everything().items():
        if torch.is_tensor(value) and value.is_floating_point():
            first, second, third = (run.everything()[name] for run in runs)
            expected = (
                first if torch.equal(first, second) and torch.equal(first, third) else ((first + second) + third) / 3
            )
            assert torch.equal(value, expected), name


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize(("replicas", "episodes"), [(3, 3), (2, 5), (3, 24)])
def test_against_the_slow_twin(optimizer, policy, replicas, episodes):
    expected = twin(optimizer, policy=policy, replicas=replicas, episodes=episodes)
    generator_after = torch.get_rng_state()
    own, _ = imwa_run(optimizer, policy=policy, replicas=replicas, episodes=episodes)
    assert_same(own.everything(), expected.everything())
    assert torch.equal(torch.get_rng_state(), generator_after)


def _fresh(optimizer, policy):
    """Other weights, other generators, the same settings: what a new process would hold before loading."""
    own = Set(net(), optimizer)
    with torch.no_grad():
        for parameter in own.model.parameters():
            parameter.zero_()
    torch.manual_seed(99)
    extra = {"carry": {"scheduler": own.scheduler}, "average": {"ema": own.ema}}
    return own, IMWA(own.model, own.optimizer, replicas=3, episodes=5, steps=STEPS, optimizer_state=policy, **extra)


def _leaves(tree, path=""):
    plain = isinstance(tree, list | tuple) and all(isinstance(item, int | float | str | tuple) for item in tree)
    if isinstance(tree, dict | list | tuple) and not plain:
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in pairs for name, leaf in _leaves(value, f"{path}/{key}").items()}
    return {path: tree}


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_o3_resume_after_any_step(optimizer, policy):
    """Stopped after any of the 3 x 24 steps and loaded into fresh objects: the next step ends in the same whole state,
    and every eighteenth of them is carried to the end of the run."""
    table, files = data(), []
    own = Set(net(), optimizer)
    torch.manual_seed(123)
    extra = {"carry": {"scheduler": own.scheduler}, "average": {"ema": own.ema}}
    iterative = IMWA(own.model, own.optimizer, replicas=3, episodes=5, steps=STEPS, optimizer_state=policy, **extra)
    for replica in iterative:
        for _ in replica.steps:
            own.step(replica.generator, table)
            files.append(io.BytesIO())
            torch.save(iterative.state_dict(), files[-1])
    expected, generator_after = own.everything(), torch.get_rng_state()
    assert len(files) == 3 * STEPS
    states = [torch.load(io.BytesIO(file.getvalue()), weights_only=True) for file in files]
    for number, state in enumerate(states):
        fresh, again = _fresh(optimizer, policy)
        again.load_state_dict(state)
        taken = 0
        for replica in again:
            for _ in replica.steps:
                fresh.step(replica.generator, table)
                taken += 1
                if taken == 1:
                    assert_same(_leaves(again.state_dict()), _leaves(states[number + 1]))
                if taken == 1 and number % 18:
                    break
            if taken and number % 18:
                break
        else:
            assert taken == 3 * STEPS - 1 - number
            assert_same(fresh.everything(), expected)
            assert torch.equal(torch.get_rng_state(), generator_after)


def test_o10_identical_replicas_are_the_plain_run():
    expected = {optimizer: plain_run(optimizer).everything() for optimizer in ("sgd", "adamw")}
    for replicas in (2, 3, 4, 5):
        for optimizer, tolerance in (("sgd", 1e-13), ("adamw", 1e-9)):
            own, table, start = Set(net(), optimizer), data(), None
            torch.manual_seed(123)
            for replica in IMWA(
                own.model,
                own.optimizer,
                replicas=replicas,
                episodes=4,
                steps=STEPS,
                carry={"s": own.scheduler},
                average={"ema": own.ema},
            ):
                if replica.index == 0:
                    start = (replica.generator.get_state(), torch.get_rng_state())
                replica.generator.set_state(start[0])
                torch.set_rng_state(start[1])
                for _ in replica.steps:
                    own.step(replica.generator, table)
            worst = distance(own.everything(), expected[optimizer])
            assert worst <= (0 if replicas in (2, 4) else tolerance)


def test_o11_ema_inside_and_averaged_has_its_closed_form():
    decay, episodes, length = 0.9, 3, 8
    own, table, history, starts = Set(net(), "momentum"), data(), {}, []
    ema_ends = []
    torch.manual_seed(123)
    iterative = IMWA(
        own.model,
        own.optimizer,
        replicas=3,
        episodes=episodes,
        steps=STEPS,
        carry={"scheduler": own.scheduler},
        average={"ema": own.ema},
        after_average=lambda episode, model: ema_ends.append({n: v.clone() for n, v in own.ema.shadow.items()}),
    )
    for replica in iterative:
        if replica.index == 0:
            starts.append({name: value.clone() for name, value in own.ema.shadow.items()})
        for step in replica.steps:
            own.step(replica.generator, table)
            for name, value in own.model.named_parameters():
                history.setdefault((replica.episode, step, name), []).append(value.detach().clone())
    for episode, name in itertools.product(range(episodes), own.ema.shadow):
        value = decay**length * starts[episode][name]
        for k in range(length):
            mean = sum(history[episode, episode * length + k, name]) / 3
            value = value + (1 - decay) * decay ** (length - 1 - k) * mean
        assert (value - ema_ends[episode][name]).abs().max() < 1e-13


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
def test_o12_learning_rates_follow_the_global_step(policy):
    expected = plain_run().rates
    own, table, seen = Set(net(), "momentum"), data(), []
    for replica in IMWA(
        own.model,
        own.optimizer,
        replicas=3,
        episodes=5,
        steps=STEPS,
        optimizer_state=policy,
        carry={"s": own.scheduler},
        average={"e": own.ema},
    ):
        for _ in replica.steps:
            own.step(replica.generator, table)
            seen += [own.rates[-1]] if replica.index == 2 else []
    assert seen == expected


@pytest.mark.parametrize(("policy", "adam_step"), [("average", 24), ("local", 24), ("reset", 5)])
def test_o13_counters(policy, adam_step):
    own, _ = imwa_run("adamw", policy=policy, replicas=3, episodes=5)
    tracked = own.model[1].num_batches_tracked
    assert tracked.dtype == torch.int64
    assert tracked.item() == STEPS
    assert {int(state["step"]) for state in own.optimizer.state.values()} == {adam_step}


def test_o14_streams_go_on_and_are_each_replica_s_own():
    draws, globals_seen = {}, {}
    torch.manual_seed(123)
    model = torch.nn.Linear(1, 1)
    for replica in IMWA(model, torch.optim.SGD(model.parameters(), lr=0.1), replicas=4, episodes=5, steps=24, seed=9):
        for _ in replica.steps:
            draws.setdefault(replica.index, []).append(torch.rand(3, generator=replica.generator))
            globals_seen.setdefault(replica.index, []).append(torch.rand(2))
    for index in range(4):
        stream = replica_stream(9, index)
        assert torch.equal(torch.stack(draws[index]), torch.stack([torch.rand(3, generator=stream) for _ in range(24)]))
        torch.manual_seed(123)
        torch.nn.Linear(1, 1)
        if index:
            set_globals(9, index)
        assert torch.equal(torch.stack(globals_seen[index]), torch.stack([torch.rand(2) for _ in range(24)]))
    firsts = {tuple(values[0].tolist()) for values in draws.values()}
    assert len(firsts) == 4


@pytest.mark.parametrize("episodes", [1, 3, 7, 24, 30])
@pytest.mark.filterwarnings("ignore:episodes is 30")
def test_o18_cost_is_m_times_t_steps_and_min_e_t_averages(episodes):
    averages, taken = [], []
    model = torch.nn.Linear(1, 1)
    iterative = IMWA(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        replicas=3,
        episodes=episodes,
        steps=STEPS,
        after_average=lambda episode, _: averages.append(episode),
    )
    for replica in iterative:
        taken += [(replica.index, step) for step in replica.steps]
    assert sorted(taken) == [(index, step) for index in range(3) for step in range(STEPS)]
    assert averages == list(range(min(episodes, STEPS)))


def test_o19_ties_identity_and_frozen_parameters():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(5, 5, bias=False)
            self.second = torch.nn.Linear(5, 5, bias=False)
            self.second.weight = self.first.weight
            self.frozen = torch.nn.Linear(5, 5)
            self.frozen.requires_grad_(False)
            self.unused = torch.nn.Linear(5, 5)

        def forward(self, x):
            return self.frozen(self.second(torch.tanh(self.first(x))))

    torch.manual_seed(3)
    model = Tied().double()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    identity = [id(parameter) for parameter in model.parameters()]
    still = {name: value.clone() for name, value in model.state_dict().items() if "frozen" in name or "unused" in name}
    ends, average = [], []
    for replica in IMWA(
        model,
        optimizer,
        replicas=3,
        episodes=3,
        steps=9,
        after_average=lambda e, m: average.append(m.first.weight.detach().clone()),
    ):
        for _ in replica.steps:
            optimizer.zero_grad()
            model(torch.randn(4, 5, generator=replica.generator, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
        ends.append(model.first.weight.detach().clone())
    assert model.second.weight is model.first.weight
    assert "second.weight" not in module_tensors(model)  # averaged once, under its first name
    assert identity == [id(parameter) for parameter in model.parameters()]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in still.items())
    assert torch.equal(average[-1], ((ends[-3] + ends[-2]) + ends[-1]) / 3)
    assert not torch.equal(ends[-1], ends[-2])
