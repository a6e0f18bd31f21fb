"""Oracles of the paper page in closed form: quadratics, large batches, momentum, Adam, noise; float64, one thread."""

import pytest
import torch

from imwa import IMWA, average_state_dicts
from reference.equations import heavy_ball, own_hessians, shared_hessian, stationary_variance
from reference.toy import OPTIMIZERS, SAMPLES, data, net

D, T, M = 5, 60, 3


def spd(generator, *, spread=1.0):
    factor = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return spread * (factor @ factor.T) / D + 0.1 * torch.eye(D, dtype=torch.float64)


@pytest.fixture
def problem():
    """Start, one Hessian, Hessians A_{m,t}, targets b_{m,t}, decaying rates."""
    draw = torch.Generator().manual_seed(2)
    start = torch.randn(D, generator=draw, dtype=torch.float64)
    targets = [[torch.randn(D, generator=draw, dtype=torch.float64) for _ in range(M)] for _ in range(T)]
    own = [[spd(draw) for _ in range(M)] for _ in range(T)]
    rates = [0.2 * (1 - t / T) + 0.01 for t in range(T)]
    return start, spd(draw), own, targets, rates


class Point(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.theta = torch.nn.Parameter(start.clone())


def quadratic_run(
    start, hessian_of, targets, rates, *, episodes, policy="average", momentum=0.0, nesterov=False, decay=0.0
):
    model = Point(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    for replica in IMWA(model, optimizer, replicas=M, episodes=episodes, steps=T, optimizer_state=policy):
        for step in replica.steps:
            optimizer.param_groups[0]["lr"] = rates[step]
            theta = model.theta.detach()
            model.theta.grad = hessian_of(step, replica.index) @ (theta - targets[step][replica.index])
            optimizer.step()
    return model.theta.detach().clone()


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("episodes", [1, 2, 3, 7, 60])
def test_o4_shared_hessian_is_independent_of_the_episodes(problem, episodes, decay):
    start, hessian, _, targets, rates = problem
    ours = quadratic_run(start, lambda t, m: hessian, targets, rates, episodes=episodes, decay=decay)
    decayed = hessian + decay * torch.eye(D, dtype=torch.float64)  # weight decay is one more quadratic
    moved = [[torch.linalg.solve(decayed, hessian @ b) for b in row] for row in targets]
    assert (ours - shared_hessian(start, decayed, rates, moved)).abs().max() < 1e-12


def test_o4_prime_own_hessians_depend_on_the_episodes(problem):
    start, _, own, targets, rates = problem
    ends = {}
    for episodes in (1, 7, 60):
        ends[episodes] = quadratic_run(start, lambda t, m: own[t][m], targets, rates, episodes=episodes)
        borders = [(e * T) // episodes for e in range(episodes + 1)]
        assert (ends[episodes] - own_hessians(start, own, rates, targets, borders)).abs().max() < 1e-12
    assert (ends[1] - ends[60]).abs().max() > 1e-3


@pytest.mark.parametrize("nesterov", [False, True])
def test_o4_double_prime_momentum_on_a_shared_hessian(problem, nesterov):
    start, hessian, _, targets, rates = problem
    rates = [rate / 4 for rate in rates]
    expected = heavy_ball(start, hessian, rates, targets, nesterov=nesterov)
    for episodes in (1, 2, 7, 60):
        for policy in ("average", "local", "reset"):
            ours = quadratic_run(
                start,
                lambda t, m: hessian,
                targets,
                rates,
                episodes=episodes,
                policy=policy,
                momentum=0.9,
                nesterov=nesterov,
            )
            apart = (ours - expected).abs().max()
            assert apart > 1e-3 if policy == "reset" and episodes > 1 else apart < 1e-12


def large_batch_pair(optimizer, policy, *, norm=False, steps=12):
    """IMWA with one step an episode, and one run on the concatenated batches of the replicas."""
    features, labels = data()
    draw = torch.Generator().manual_seed(8)
    batches = torch.randint(SAMPLES, (steps, M, 16), generator=draw)

    def train(model, opt, index):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(model(features[index]), labels[index]).backward()
        opt.step()

    model = net(norm=norm, dropout=False)
    opt = OPTIMIZERS[optimizer](model.parameters())
    for replica in IMWA(model, opt, replicas=M, episodes=steps, steps=steps, optimizer_state=policy):
        for step in replica.steps:
            train(model, opt, batches[step, replica.index])
    large = net(norm=norm, dropout=False)
    opt = OPTIMIZERS[optimizer](large.parameters())
    for step in range(steps):
        train(large, opt, batches[step].reshape(-1))
    return max(
        (one - other).abs().max().item() for one, other in zip(model.parameters(), large.parameters(), strict=True)
    )


@pytest.mark.parametrize("policy", ["average", "local", "reset"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov"])
def test_o5_one_step_an_episode_is_the_large_batch(optimizer, policy):
    apart = large_batch_pair(optimizer, policy)
    if policy == "reset" and optimizer != "sgd":
        assert apart > 1e-3
    else:
        assert apart < 1e-12


@pytest.mark.parametrize(("optimizer", "norm"), [("adamw", False), ("sgd", True)])
@pytest.mark.parametrize("policy", ["average", "local", "reset"])
def test_o5_prime_adam_and_batch_norm_are_not_the_large_batch(optimizer, norm, policy):
    assert large_batch_pair(optimizer, policy, norm=norm) > 1e-3


def gradients_of_replicas(optimizer, *, steps=8):
    """One episode; each replica's gradients at its own points, and the averaged optimizer state after it."""
    features, labels = data()
    model = net(norm=False, dropout=False)
    opt = OPTIMIZERS[optimizer](model.parameters())
    gradients = {m: [] for m in range(M)}
    for replica in IMWA(model, opt, replicas=M, episodes=1, steps=steps):
        for _ in replica.steps:
            index = torch.randint(SAMPLES, (16,), generator=replica.generator)
            opt.zero_grad()
            torch.nn.functional.cross_entropy(model(features[index]), labels[index]).backward()
            gradients[replica.index].append([p.grad.clone() for p in model.parameters()])
            opt.step()
    return gradients, [opt.state[p] for p in model.parameters()], list(model.parameters())


def test_o7_momentum_identity():
    gradients, state, parameters = gradients_of_replicas("nesterov")
    for number in range(len(parameters)):
        expected = torch.zeros_like(parameters[number])
        for k in range(8):
            expected = 0.9 * expected + sum(gradients[m][k][number] for m in range(M)) / M
        assert (state[number]["momentum_buffer"] - expected).abs().max() < 1e-13


def test_o7_prime_averaged_adam_state_exceeds_that_of_the_mean_gradient_by_the_variance():
    gradients, state, parameters = gradients_of_replicas("adamw")
    beta = 0.999
    for number in range(len(parameters)):
        of_mean, excess = torch.zeros_like(parameters[number]), torch.zeros_like(parameters[number])
        for k in range(8):
            stacked = torch.stack([gradients[m][k][number] for m in range(M)])
            of_mean = beta * of_mean + (1 - beta) * stacked.mean(0) ** 2
            excess = beta * excess + (1 - beta) * stacked.var(0, unbiased=False)
        assert ((state[number]["exp_avg_sq"] - of_mean) - excess).abs().max() < 1e-14
        assert excess.min() >= 0


@pytest.mark.parametrize("length", [1, 10, 100])
def test_o8_stationary_variance_of_the_average(length):
    """4,000 chains at once, one entry each; theta <- theta - r a (theta - noise): variance r a / (2 - r a) / M."""
    curvature, rate, replicas, steps, chains = 1.5, 0.2, 4, 200, 4000
    model = Point(torch.zeros(chains, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for replica in IMWA(model, optimizer, replicas=replicas, episodes=steps // length, steps=steps, seed=4):
        for _ in replica.steps:
            noise = torch.randn(chains, generator=replica.generator, dtype=torch.float64)
            model.theta.grad = curvature * (model.theta.detach() - noise)
            optimizer.step()
    expected = stationary_variance(curvature, rate, replicas)
    assert abs(model.theta.var().item() - expected) < 0.1 * expected


def test_o16_a_convex_loss_of_the_mean_is_at_most_the_mean_loss():
    features, labels = data()
    draw = torch.Generator().manual_seed(6)

    def loss(state):
        return torch.nn.functional.cross_entropy(features @ state["weight"].T + state["bias"], labels)

    gains = []
    for _ in range(500):
        states = [
            {
                "weight": torch.randn(4, 6, generator=draw, dtype=torch.float64),
                "bias": torch.randn(4, generator=draw, dtype=torch.float64),
            }
            for _ in range(3)
        ]
        gains.append(sum(loss(state) for state in states) / 3 - loss(average_state_dicts(states)))
    assert min(gains) >= 0
    assert max(gains) > 0.1
