"""The paper page's three ways with an EMA (1.5): inside and averaged is O11; here re-started, and over averages."""

import copy

import torch

from imwa import IMWA

DECAY, STEPS, EPISODES, REPLICAS = 0.8, 12, 4, 3


def setting():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)


def train(model, optimizer, replica):
    optimizer.zero_grad()
    model(torch.randn(4, 3, generator=replica.generator, dtype=torch.float64)).square().mean().backward()
    optimizer.step()


@torch.no_grad()
def update(ema, model, decay=DECAY):
    for shadow, value in zip(ema.parameters(), model.parameters(), strict=True):
        shadow.mul_(decay).add_(value, alpha=1 - decay)


def test_restarted_from_the_average_in_every_episode():
    """As in O11's closed form with the episode's start in place of the EMA so far."""
    model, optimizer = setting()
    ema, trail, starts = copy.deepcopy(model), {}, []
    for replica in IMWA(model, optimizer, replicas=REPLICAS, episodes=EPISODES, steps=STEPS, average={"ema": ema}):
        ema.load_state_dict(model.state_dict())  # the one line that re-starts it
        starts.append(model.weight.detach().clone())
        for step in replica.steps:
            train(model, optimizer, replica)
            update(ema, model)
            trail.setdefault(step, []).append(model.weight.detach().clone())
    length = STEPS // EPISODES
    expected = DECAY**length * starts[-1]
    for k in range(length):
        expected += (1 - DECAY) * DECAY ** (length - 1 - k) * sum(trail[STEPS - length + k]) / REPLICAS
    assert (ema.weight - expected).abs().max() < 1e-13


def test_over_averages_with_the_decay_of_an_episode():
    model, optimizer = setting()
    ema, averages = copy.deepcopy(model), [model.weight.detach().clone()]
    decay = DECAY ** (STEPS / EPISODES)

    def note(episode, model):
        averages.append(model.weight.detach().clone())
        update(ema, model, decay)

    for replica in IMWA(model, optimizer, replicas=REPLICAS, episodes=EPISODES, steps=STEPS, after_average=note):
        for _ in replica.steps:
            train(model, optimizer, replica)
    expected = averages[0]
    for average in averages[1:]:
        expected = decay * expected + (1 - decay) * average
    assert len(averages) == EPISODES + 1
    assert (ema.weight - expected).abs().max() < 1e-14
