"""The toy set-up of the oracles and IMWA's slow twin, straight from the definitions: nothing of the package is used.

Twin: every replica is a model of its own (deep copies), with an optimizer, scheduler and EMA of its own. At an
episode's end the M are read, their mean is formed name by name as ((x_0 + x_1) + ..) / M, and each gets a copy.
"""

import copy
import hashlib
import math
import random

import numpy
import torch

SAMPLES, FEATURES, CLASSES, BATCH, DECAY = 400, 6, 4, 16, 0.9

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


def data():
    draw = torch.Generator().manual_seed(5)
    features = torch.randn(SAMPLES, FEATURES, generator=draw, dtype=torch.float64)
    scores = features @ torch.randn(FEATURES, CLASSES, generator=draw, dtype=torch.float64)
    return features, (scores + torch.randn(SAMPLES, CLASSES, generator=draw, dtype=torch.float64)).argmax(1)


def net(*, norm=True, dropout=True):
    torch.manual_seed(11)
    layers = [torch.nn.Linear(FEATURES, 16)]
    layers += [torch.nn.BatchNorm1d(16)] if norm else []
    layers += [torch.nn.ReLU()]
    layers += [torch.nn.Dropout(0.2)] if dropout else []
    return torch.nn.Sequential(*layers, torch.nn.Linear(16, CLASSES)).double()


class Ema:
    """Exponential mean of a model's parameters, as a user would write it."""

    def __init__(self, model, decay=DECAY):
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model):
        with torch.no_grad():
            for name, value in model.named_parameters():
                self.shadow[name].mul_(self.decay).add_(value, alpha=1 - self.decay)

    def state_dict(self):
        return {"shadow": self.shadow}

    def load_state_dict(self, state):
        self.shadow = state["shadow"]


class Set:
    """Model, optimizer, cosine schedule over `steps`, EMA: all that one run holds."""

    def __init__(self, model, optimizer="momentum", *, steps=24):
        self.model = model
        self.optimizer = OPTIMIZERS[optimizer](model.parameters())
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)
        self.ema = Ema(model)
        self.rates = []

    def step(self, generator, table):
        features, labels = table
        index = torch.randint(SAMPLES, (BATCH,), generator=generator)
        self.model.train()
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(self.model(features[index]), labels[index]).backward()
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.scheduler.step()
        self.ema.update(self.model)

    def everything(self):
        """All state as one flat dictionary, copied."""
        found = {f"model/{name}": value.clone() for name, value in self.model.state_dict().items()}
        found.update({f"ema/{name}": value.clone() for name, value in self.ema.shadow.items()})
        state = self.optimizer.state_dict()
        for number, entries in state["state"].items():
            found.update({f"optimizer/{number}/{name}": copy.deepcopy(value) for name, value in entries.items()})
        found["lr"] = [group["lr"] for group in state["param_groups"]]
        found["schedule"] = self.scheduler.last_epoch
        return found


def named_stream(seed, *names):
    """The published key of a stream, hashed here again."""
    digest = hashlib.sha256(f"i{seed}".encode())
    for name in names:
        part = (f"i{name}" if isinstance(name, int) else f"s{name}").encode()
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def replica_stream(seed, index):
    return torch.Generator().manual_seed(named_stream(seed, "replica", index))


def set_globals(seed, index):
    """Global generators of replica `index` >= 1; those of replica 0 are the caller's."""
    start = named_stream(seed, "replica global", index)
    random.seed(start)
    numpy.random.seed(start % 2**32)  # noqa: NPY002 (the global generator is meant)
    torch.manual_seed(start)


def plain_run(optimizer="momentum", *, steps=24, seed=0, index=0, model=None, caller=123):
    """One ordinary run with replica `index`'s data stream and global generators."""
    own = Set(model or net(), optimizer, steps=steps)
    torch.manual_seed(caller)
    if index:
        set_globals(seed, index)
    generator, table = replica_stream(seed, index), data()
    for _ in range(steps):
        own.step(generator, table)
    return own


def mean_of(values):
    """((x_0 + x_1) + ..) / M; counters the largest; equal values keep their bits."""
    if (
        not torch.is_tensor(values[0])
        or not values[0].is_floating_point()
        or all(torch.equal(values[0], v) for v in values)
    ):
        return max(values) if not torch.is_tensor(values[0]) else torch.stack(list(values)).amax(0)
    total = values[0].clone()
    for value in values[1:]:
        total = total + value
    return total / len(values)


def twin(optimizer="momentum", *, policy="average", replicas=3, episodes=3, steps=24, seed=0, caller=123):
    """IMWA by M separate runs; the final model's set, as replica 0's with the last mean in it."""
    torch.manual_seed(caller)
    own_globals = [torch.get_rng_state()]
    own_globals += [(set_globals(seed, m), torch.get_rng_state())[1] for m in range(1, replicas)]
    first = Set(net(), optimizer, steps=steps)
    runs = [first]
    for _ in range(1, replicas):
        other = Set(copy.deepcopy(first.model), optimizer, steps=steps)
        runs.append(other)
    streams, table = [replica_stream(seed, m) for m in range(replicas)], data()
    for episode in range(episodes):
        begin, end = math.floor(episode * steps / episodes + 1e-9), math.floor((episode + 1) * steps / episodes + 1e-9)
        for m, run in enumerate(runs):
            if policy == "reset" and episode:
                run.optimizer.state.clear()
            torch.set_rng_state(own_globals[m])
            for _ in range(begin, end):
                run.step(streams[m], table)
            own_globals[m] = torch.get_rng_state()
        _join(runs, optimizer_too=policy == "average" or (policy == "reset" and episode == episodes - 1))
    torch.set_rng_state(own_globals[0])
    return first


def _join(runs, *, optimizer_too):
    with torch.no_grad():
        for name in runs[0].model.state_dict():
            mean = mean_of([run.model.state_dict()[name] for run in runs])
            for run in runs:
                run.model.state_dict()[name].copy_(mean)
        for name in runs[0].ema.shadow:
            mean = mean_of([run.ema.shadow[name] for run in runs])
            for run in runs:
                run.ema.shadow[name] = mean.clone()
        if not optimizer_too:
            return
        for parameters in zip(*[run.model.parameters() for run in runs], strict=True):
            states = [run.optimizer.state[parameter] for run, parameter in zip(runs, parameters, strict=True)]
            for name in list(states[0]):
                if states[0][name] is not None:
                    mean = mean_of([state[name] for state in states])
                    for state in states:
                        state[name] = mean.clone()
