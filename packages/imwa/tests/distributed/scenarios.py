"""What every process of a group does, for `test_processes.py`: the oracles' toy runs, with a group."""

import copy
import datetime

import torch
import torch.distributed as dist

from imwa import IMWA
from reference.toy import Set, data, net

STEPS = 12
# name: settings of one run; several replicas a process where there are more than processes.
RUNS = {
    f"{optimizer} {policy} {replicas} {'in order' if deterministic else 'summed'}": {
        "optimizer": optimizer,
        "policy": policy,
        "replicas": replicas,
        "deterministic": deterministic,
    }
    for optimizer in ("momentum", "adamw")
    for policy in ("average", "local", "reset")
    for replicas in (4, 5)
    for deterministic in (True, False)
    if optimizer == "momentum" or policy == "average"
}
RUNS["pooled"] = {"replicas": 4, "batch_norm": "pooled"}
RUNS["pooled in order"] = {"replicas": 4, "batch_norm": "pooled", "deterministic": True}


def fresh(*, optimizer="momentum", policy="average", replicas=4, episodes=3, steps=STEPS, seed=0, **more):
    own = Set(net(), optimizer, steps=steps)
    torch.manual_seed(123)
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
    return own, iterative


def go_on(own, iterative, *, stop=None, spoil=None):
    table = data()
    for replica in iterative:
        for step in replica.steps:
            own.step(replica.generator, table)
            if stop == (replica.episode, replica.index, step):
                return
        if spoil is not None:
            spoil(own, replica)


def whole(**settings):
    own, iterative = fresh(**settings)
    go_on(own, iterative)
    return own.everything()


def spoiled(own, replica):
    if (replica.episode, replica.index) in {(0, 0), (1, 2), (1, 3)}:
        with torch.no_grad():
            own.model[0].weight[0, 0] = torch.nan
            own.optimizer.state[own.model[0].weight]["momentum_buffer"][0, 0] = torch.nan


def left_out(**settings):
    own, iterative = fresh(on_nan="leave out", **settings)
    go_on(own, iterative, spoil=spoiled)
    return own.everything(), iterative.left_out


def stopped_by_nan(**settings):
    own, iterative = fresh(**settings)
    try:
        go_on(own, iterative, spoil=spoiled)
    except ValueError as error:
        sentence = str(error)
        iterative.restore_average()
        return sentence, own.everything()
    return "no error", own.everything()


class Partial(torch.nn.Module):
    """A layer that gets its first gradient in some replicas only, a frozen one, a bfloat16 one, a mask and a counter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.used, self.sometimes = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        self.frozen = torch.nn.Linear(3, 200).requires_grad_(False)
        self.large = torch.nn.Linear(3, 12000)
        self.narrow = torch.nn.Linear(3, 2).bfloat16()
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("ids", torch.arange(5))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("minus", torch.tensor([-torch.inf, 0.0, torch.inf]))

    def forward(self, x, *, both):
        narrow = self.narrow(x.bfloat16()).float()
        return self.used(x) + self.large(x)[:, :2] + narrow + (self.sometimes(x) if both else 0)


def partial(**settings):
    model = Partial()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for replica in IMWA(model, optimizer, episodes=2, steps=6, **settings):
        for step in replica.steps:
            optimizer.zero_grad()
            x = torch.randn(8, 3, generator=replica.generator)
            model(x, both=replica.index in (1, 2) and step > 0).square().mean().backward()
            optimizer.step()
            model.seen += 1 + (replica.index == 1)
    state = {
        f"{number}/{name}": value for number, own in enumerate(optimizer.state.values()) for name, value in own.items()
    }
    return {name: value.clone() for name, value in {**model.state_dict(), **state}.items()}


class Scale:
    """A GradScaler's state that differs by replica."""

    def __init__(self):
        self.scale = 64.0

    def state_dict(self):
        return {"scale": self.scale, "_growth_tracker": 0}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def scales(**settings):
    model = torch.nn.Linear(2, 1)
    scale, begins = Scale(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for replica in IMWA(model, optimizer, replicas=4, episodes=2, steps=2, carry={"scale": scale}, **settings):
        begins.append(scale.scale)
        list(replica.steps)
        scale.scale /= 2 ** (replica.index + 1)
    return begins, scale.scale


def first_start_is_process_0_s(group, rank):
    torch.manual_seed(rank)
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 + rank, momentum=0.5)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for replica in IMWA(model, optimizer, replicas=4, episodes=1, steps=1, group=group):
        list(replica.steps)
    momentum = optimizer.state[model.weight]["momentum_buffer"]
    return model.weight.detach().clone(), momentum.clone(), optimizer.param_groups[0]["lr"]


def refusals(group, rank):
    """Sentences of what does not belong together; every process gets one, and none waits."""

    def told(call):
        try:
            call()
        except ValueError as error:
            return str(error)
        return "no error"

    def other_model():
        model = torch.nn.Linear(2, 4 if rank == 0 else 1)
        next(
            iter(IMWA(model, torch.optim.SGD(model.parameters(), lr=0.1), replicas=4, episodes=1, steps=1, group=group))
        )

    def other_settings():
        next(iter(fresh(seed=rank, group=group)[1]))

    def too_few():
        fresh(replicas=dist.get_world_size() - 1, group=group)

    def other_episode():
        own, iterative = fresh(group=group)
        states = []
        iterative.after_average = lambda episode, model: states.append(iterative.state_dict())
        go_on(own, iterative)
        own, iterative = fresh(group=group)
        iterative.load_state_dict(states[1 if rank == 0 else 0])
        go_on(own, iterative)

    def other_process():
        _, iterative = fresh(group=group)
        state = [iterative.state_dict() if rank == 0 else None]
        dist.broadcast_object_list(state, src=0)
        if rank == dist.get_world_size() - 1:
            iterative.load_state_dict(state[0])

    def mask_differs():
        model = Partial()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for replica in IMWA(model, optimizer, replicas=4, episodes=1, steps=1, group=group):
            list(replica.steps)
            model.mask.fill_(replica.index == 2)

    kinds = (other_model, other_settings, too_few, other_episode, other_process, mask_differs)
    return {kind.__name__: told(kind) for kind in kinds}


def resumed(settings, group, stop):
    """Stopped within an episode and loaded anew, in every process at another step."""
    own, iterative = fresh(group=group, **settings)
    go_on(own, iterative, stop=stop)
    state = copy.deepcopy(iterative.state_dict())
    own, iterative = fresh(group=group, **settings)
    torch.manual_seed(99)
    iterative.load_state_dict(state)
    go_on(own, iterative)
    return own.everything()


def data_parallel(rank, size):
    """Two replicas, each data-parallel over half of the processes; the averaging groups are separate."""
    half = size // 2
    parallel = [dist.new_group(range(index * half, (index + 1) * half)) for index in range(2)][rank // half]
    average = [dist.new_group([place, place + half]) for place in range(half)][rank % half]
    torch.manual_seed(11)
    model = torch.nn.Linear(4, 2).double()
    wrapped = torch.nn.parallel.DistributedDataParallel(model, process_group=parallel)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=6, group=average):
        for _ in replica.steps:
            batch = torch.randn(8 * half, 4, generator=replica.generator, dtype=torch.float64)
            share = batch[8 * (rank % half) : 8 * (rank % half + 1)]
            optimizer.zero_grad()
            wrapped(share).square().mean().backward()
            optimizer.step()
    return model.weight.detach().clone()


def everything(rank, size, folder):
    """All of the above in one start of the processes."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=datetime.timedelta(minutes=10)
    )
    torch.set_num_threads(1)
    group = dist.group.WORLD
    found = {name: whole(group=group, **settings) for name, settings in RUNS.items()}
    for deterministic in (True, False):
        word = "in order" if deterministic else "summed"
        more = {"group": group, "deterministic": deterministic}
        found[f"left out {word}"] = left_out(**more)
        found[f"left out local {word}"] = left_out(policy="local", **more)
        found[f"stopped {word}"] = stopped_by_nan(**more)
        found[f"partial {word}"] = partial(replicas=4, **more)
        found[f"partial three {word}"] = partial(replicas=5, **more)
        found[f"scales {word}"] = scales(**more)
        stop = (1, (rank + 1) * 4 // size - 1, 4 + 2 * rank % 4)  # in the same episode, at a step of its own
        for policy in ("average", "local"):
            found[f"resumed {policy} {word}"] = resumed({"policy": policy, "deterministic": deterministic}, group, stop)
    found["start"] = first_start_is_process_0_s(group, rank)
    found["refusals"] = refusals(group, rank)
    found["data parallel"] = data_parallel(rank, size)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.monitored_barrier()  # or gloo may abort one of them at its end
    dist.destroy_process_group()
