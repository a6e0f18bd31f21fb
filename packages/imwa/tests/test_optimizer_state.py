"""The three policies and the traps of the paper page, each reproduced."""

import copy

import pytest
import torch

from imwa import IMWA
from imwa.optimizer_state import (
    KnownState,
    flat_state,
    load_groups,
    load_state,
    state_from_flat,
    take_groups,
    take_state,
)


def trained(optimizer_class, *, steps=3, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).to(dtype)
    optimizer = optimizer_class(model.parameters(), **settings)
    train(model, optimizer, steps)
    return model, optimizer


def train(model, optimizer, steps):
    for number in range(steps):
        optimizer.zero_grad()
        draw = torch.Generator().manual_seed(number)
        weight = next(model.parameters())
        model(torch.randn(4, 3, generator=draw).to(weight.dtype)).square().mean().backward()
        optimizer.step()


CLASSES = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (torch.optim.Adam, {"lr": 0.1, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": torch.tensor(0.1), "capturable": False, "foreach": False}),
    (torch.optim.RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.9}),
    (torch.optim.Adagrad, {"lr": 0.1}),
    (torch.optim.Adadelta, {}),
    (torch.optim.NAdam, {"lr": 0.1}),
    (torch.optim.RAdam, {"lr": 0.1}),
    (torch.optim.Rprop, {"lr": 0.1}),
    (torch.optim.ASGD, {"lr": 0.1}),
    (torch.optim.Adafactor, {"lr": 0.1}),
]


@pytest.mark.parametrize(("kind", "settings"), CLASSES)
def test_taken_state_brings_every_optimizer_back(kind, settings):
    model, optimizer = trained(kind, **settings)
    weights, state, groups = copy.deepcopy(model.state_dict()), take_state(optimizer), take_groups(optimizer)
    train(model, optimizer, 3)
    expected = copy.deepcopy(model.state_dict())
    train(model, optimizer, 2)
    model.load_state_dict(weights)
    load_state(optimizer, state)
    load_groups(optimizer, groups)
    train(model, optimizer, 3)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.parametrize(("kind", "settings"), CLASSES)
@pytest.mark.parametrize("policy", ["average", "local"])
def test_one_replica_is_the_plain_run_for_every_optimizer(kind, settings, policy):
    plain, _ = trained(kind, steps=6, **copy.deepcopy(settings))
    model, optimizer = trained(kind, steps=0, **copy.deepcopy(settings))
    for replica in IMWA(model, optimizer, replicas=1, episodes=4, steps=6, optimizer_state=policy):
        for step in replica.steps:
            optimizer.zero_grad()
            draw = torch.Generator().manual_seed(step)
            model(torch.randn(4, 3, generator=draw)).square().mean().backward()
            optimizer.step()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(("kind", "settings"), CLASSES)
def test_every_optimizer_s_state_averages(kind, settings):
    model, optimizer = trained(kind, steps=0, **copy.deepcopy(settings))
    for replica in IMWA(model, optimizer, replicas=3, episodes=2, steps=6):
        for _ in replica.steps:
            optimizer.zero_grad()
            model(torch.randn(4, 3, generator=replica.generator)).square().mean().backward()
            optimizer.step()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_amsgrad_maximum_stays_at_or_above_the_second_moment():
    model, optimizer = trained(torch.optim.Adam, steps=0, lr=0.1, amsgrad=True)
    for replica in IMWA(model, optimizer, replicas=3, episodes=1, steps=6):
        for step in replica.steps:
            optimizer.zero_grad()
            (model(torch.randn(4, 3, generator=replica.generator)) * (6 - step)).square().mean().backward()
            optimizer.step()
    for state in optimizer.state.values():
        assert (state["max_exp_avg_sq"] >= state["exp_avg_sq"]).all()


def test_reset_keeps_the_scheduled_rate_where_a_fresh_state_would_restore_the_first():
    """Trap: a fresh optimizer state holds the initial lr, and the recursive cosine goes on from it to the end."""
    model, optimizer = trained(torch.optim.SGD, steps=0, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    rates = []
    for replica in IMWA(
        model, optimizer, replicas=2, episodes=5, steps=10, optimizer_state="reset", carry={"s": scheduler}
    ):
        for _ in replica.steps:
            rates += [optimizer.param_groups[0]["lr"]] if replica.index else []
            train(model, optimizer, 1)
            scheduler.step()
    reference = torch.optim.SGD(torch.nn.Linear(3, 2).parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=10)
    expected = []
    for _ in range(10):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()
    assert rates == expected
    assert rates[6] == pytest.approx(0.0345, abs=1e-4)  # a fresh state would give 0.0691


def test_reset_momentum_is_absent_and_not_zero():
    """Trap: with dampening 0.5 a zeroed momentum makes the first step move 0.5 and not 1.0."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    model = torch.nn.ParameterList([weight])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, dampening=0.5)
    moved = []
    for replica in IMWA(model, optimizer, replicas=2, episodes=3, steps=3, optimizer_state="reset"):
        for _ in replica.steps:
            before = weight.item()
            weight.grad = torch.ones(1, dtype=torch.float64)
            optimizer.step()
            moved.append(before - weight.item())
    assert moved == [1.0] * 6


@pytest.mark.parametrize("policy", ["average", "local"])
def test_a_float32_momentum_of_a_bfloat16_parameter_stays_float32(policy):
    """Trap: Optimizer.load_state_dict casts float state to the parameter's dtype."""
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    model = torch.nn.ParameterList([parameter])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.state[parameter]["momentum_buffer"] = torch.full((4,), 1 / 3)
    seen = []
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=2, optimizer_state=policy):
        for _ in replica.steps:
            optimizer.state[parameter]["momentum_buffer"] += 1e-4 * (replica.index + 1)
            seen.append(optimizer.state[parameter]["momentum_buffer"].dtype)
    assert set(seen) == {torch.float32}
    momentum = optimizer.state[parameter]["momentum_buffer"]
    assert momentum.dtype == torch.float32
    assert momentum[0].item() == pytest.approx(1 / 3 + (3e-4 if policy == "average" else 2e-4), abs=1e-7)


def test_state_that_only_some_replicas_have_is_averaged_over_those_and_logged(caplog):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 1), "rare": torch.nn.Linear(2, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    momenta = []
    with caplog.at_level("INFO", logger="imwa"):
        for replica in IMWA(model, optimizer, replicas=3, episodes=1, steps=2):
            for _ in replica.steps:
                optimizer.zero_grad()
                output = model["used"](torch.randn(4, 2, generator=replica.generator))
                if replica.index:
                    output = output + model["rare"](torch.randn(4, 2, generator=replica.generator))
                output.square().mean().backward()
                optimizer.step()
            momenta += [optimizer.state[model["rare"].weight]["momentum_buffer"].clone()] if replica.index else []
    assert torch.equal(optimizer.state[model["rare"].weight]["momentum_buffer"], (momenta[0] + momenta[1]) / 2)
    assert "2/momentum_buffer" in caplog.text


@pytest.mark.parametrize("policy", ["average", "reset"])
def test_step_counters_that_differ_keep_the_largest(policy):
    """A GradScaler may skip a replica's step; Adam counts in a float tensor, and 2.67 steps are none."""
    model, optimizer = trained(torch.optim.Adam, steps=0, lr=0.1)
    for replica in IMWA(model, optimizer, replicas=3, episodes=1, steps=3, optimizer_state=policy):
        for step in replica.steps:
            if (replica.index, step) != (1, 2):
                train(model, optimizer, 1)
    assert {state["step"].item() for state in optimizer.state.values()} == {3.0}


def test_several_groups_keep_their_own_settings_and_order():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    groups = [{"params": model[1].parameters(), "lr": 0.5}, {"params": model[0].parameters(), "weight_decay": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=4):
        for step in replica.steps:
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = (number + 1) * 0.01 * (step + 1)
            optimizer.zero_grad()
            model(torch.randn(4, 3, generator=replica.generator)).square().mean().backward()
            optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.04, 0.08]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.1]
    assert optimizer.param_groups[0]["params"][0] is model[1].weight


def test_a_group_added_within_an_episode_is_refused():
    model, optimizer = trained(torch.optim.SGD, steps=0, lr=0.1)
    more = torch.nn.Parameter(torch.zeros(1))

    def run():
        for replica in IMWA(model, optimizer, replicas=2, episodes=1, steps=2):
            for _ in replica.steps:
                train(model, optimizer, 1)
            if replica.index == 0:
                optimizer.add_param_group({"params": [more]})

    with pytest.raises(ValueError, match="has 2 param_groups, and the episode started with 1"):
        run()


def test_nested_state_asks_for_another_policy():
    def run(policy):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
        for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=4, optimizer_state=policy):
            for _ in replica.steps:
                inputs = torch.randn(4, 3, generator=replica.generator)

                def loss(inputs=inputs):
                    optimizer.zero_grad()
                    value = model(inputs).square().mean()
                    value.backward()
                    return value

                optimizer.step(loss)

    with pytest.raises(ValueError, match=r"(?s)'0/.*optimizer_state='local'"):
        run("average")
    run("local")


class Odd(torch.optim.Optimizer):
    """Keeps a None until its second step, a plain number, and state that belongs to no parameter."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})
        self.state["seen"]["count"] = 0

    def step(self, closure=None):
        self.state["seen"]["count"] += 1
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state.setdefault("last", None)
            if "size" in state:
                state["last"] = parameter.grad.clone()
            state["size"] = parameter.grad.abs().max().item()
            parameter.data -= 0.1 * parameter.grad


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("policy", ["average", "local", "reset"])
def test_state_that_is_none_a_number_or_of_no_parameter(policy, steps):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer, sizes, counts = Odd(model.parameters()), [], []
    iterative = IMWA(model, optimizer, replicas=2, episodes=1, steps=steps, optimizer_state=policy)
    for replica in iterative:
        counts.append(optimizer.state["seen"]["count"])
        for _ in replica.steps:
            optimizer.zero_grad()
            model(torch.randn(4, 3, generator=replica.generator)).square().mean().backward()
            optimizer.step()
        sizes.append(optimizer.state[model.weight]["size"])
        state = iterative.state_dict()
    assert counts == [0, 0]
    assert optimizer.state["seen"]["count"] == steps
    assert optimizer.state[model.weight]["size"] == (sizes[0] if policy == "local" else (sizes[0] + sizes[1]) / 2)
    assert (optimizer.state[model.weight]["last"] is None) == (steps == 1)
    again = torch.nn.Linear(3, 2)
    fresh = Odd(again.parameters())
    resumed = IMWA(again, fresh, replicas=2, episodes=1, steps=steps, optimizer_state=policy)
    resumed.load_state_dict(state)
    assert fresh.state["seen"]["count"] == steps
    assert fresh.state[again.weight]["size"] == sizes[1]


def test_flat_names_and_back():
    _, optimizer = trained(torch.optim.Adam, lr=0.1)
    flat = flat_state(optimizer)
    assert set(flat) == {f"{number}/{name}" for number in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")}
    assert state_from_flat(flat)["1"]["exp_avg"] is flat["1/exp_avg"]


def test_known_state_follows_every_change_of_the_optimizer():
    weights = [torch.nn.Parameter(torch.zeros(n + 1)) for n in range(3)]
    optimizer = torch.optim.SGD(weights[:2], lr=0.1, momentum=0.9)
    known = KnownState(optimizer)

    def step():
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()

    def exchange_a_tensor():
        optimizer.state[weights[0]]["momentum_buffer"] = torch.ones(1)

    def exchange_a_parameter_s_state():
        optimizer.state[weights[0]] = {"momentum_buffer": torch.ones(1)}

    def one_comes():
        optimizer.state[weights[0]]["more"] = torch.zeros(2)

    def one_goes():
        del optimizer.state[weights[1]]["momentum_buffer"]

    def a_number_comes_and_changes():
        optimizer.state[weights[1]]["count"] = optimizer.state[weights[1]].get("count", 0) + 1

    def a_group_comes():
        optimizer.add_param_group({"params": weights[2:]})
        step()

    def parameters_change_places():
        optimizer.param_groups[0]["params"].reverse()

    def all_is_loaded():
        optimizer.load_state_dict(optimizer.state_dict())

    changes = (step, exchange_a_tensor, exchange_a_parameter_s_state, one_comes, one_goes, a_number_comes_and_changes)
    more = (a_number_comes_and_changes, a_group_comes, parameters_change_places, all_is_loaded)
    for change in (lambda: None, *changes, *more):
        change()
        for _ in range(2):
            found, expected = known(), flat_state(optimizer)
            assert list(found) == list(expected)
            assert all(found[name] is value for name, value in expected.items())
