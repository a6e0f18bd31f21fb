"""What two gloo processes of imwa cost: synchronising them, and training replicas side by side.

Synchronising   CPU seconds of both processes, the smaller of alternating turns, against one flat all-reduce of the same bytes
                with its copies: parameters, float buffers, momentum and counters in one array that is kept.
Side by side    wall seconds, so only on a machine with two idle cores: two replicas in two processes against in turn, over what
                two unrelated plain loops reach side by side.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from imwa import IMWA
from imwa.models.resnet_cifar import resnet32
from imwa.processes import AcrossProcesses
from imwa.snapshot import MODEL, Objects
from layermatch.models.wide_resnet import published_wide_resnet

PROCESSES = 2
TURNS, CALLS = 60, 1
STEPS, EPISODES = 30, 2  # of the replicas side by side


class Synchronising(NamedTuple):
    """CPU seconds of one call over both processes, and the bytes of the peer's array."""

    ours: float
    peer: float
    size: int


def synchronise() -> Synchronising:
    """Start two processes that average a WRN-28-2 with its momentum, ours and flat in alternation."""
    found = _in_processes(_synchronising)
    pairs = [
        (sum(ours), sum(peer))
        for ours, peer in zip(*(zip(*turns, strict=True) for turns in _sides(found)), strict=True)
    ]
    return Synchronising(min(ours for ours, _ in pairs), min(peer for _, peer in pairs), found[0][1])


def side_by_side() -> tuple[float, float]:
    """Speed-up of two replicas in two processes over in turn, and of two unrelated plain loops over one after the other."""
    together = max(seconds for seconds, _ in _in_processes(_replicas_together))
    apart = max(_in_processes(_plain_loops))
    in_turn, one_by_one = _replicas(None), 2 * _plain_loop()
    return in_turn / together, one_by_one / apart


def _sides(found: list[Any]) -> tuple[list[list[float]], list[list[float]]]:
    return [times[0] for times, _ in found], [times[1] for times, _ in found]


def _in_processes(job: Callable[[int], Any]) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        spawn(_start, args=(folder, job), nprocs=PROCESSES)
        return [torch.load(f"{folder}/{rank}.pt") for rank in range(PROCESSES)]


def _start(rank: int, folder: str, job: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    torch.save(job(rank), f"{folder}/{rank}.pt")
    dist.monitored_barrier()  # or gloo may abort one of them at its end
    dist.destroy_process_group()


def _synchronising(rank: int) -> tuple[tuple[list[float], list[float]], int]:
    model = published_wide_resnet("wrn-28-2", 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    objects = Objects(model, optimizer, carry={}, average={})
    reduction = AcrossProcesses(dist.group.WORLD, replicas=PROCESSES)
    start = objects.take()
    for parameter in model.parameters():
        parameter.data += 0.01 * (rank + 1) * torch.randn_like(parameter)

    def ours() -> None:
        parts, held = objects.parts(start, with_optimizer=True), {MODEL: start[MODEL]["tensors"]}
        reduction.add(parts, objects.carried(), replica=rank, start=held, label=f"replica {rank} of episode 0")
        mean = reduction.mean(label="episode 0")
        reduction.clear()
        objects.write(mean.parts, mean.carried, start=start)

    peer, size = _flat(objects.parts(start, with_optimizer=True))
    ours()
    peer()
    turns = [(_cpu_seconds(ours), _cpu_seconds(peer)) for _ in range(TURNS)]
    return ([one for one, _ in turns], [other for _, other in turns]), size


def _flat(parts: dict[str, dict[str, Tensor]]) -> tuple[Callable[[], None], int]:
    """One all-reduce over everything in one float array, with the copies in and out, and its bytes."""
    live = [value.detach() for values in parts.values() for value in values.values()]
    array = torch.empty(sum(value.numel() for value in live))
    views = [
        view.view(value.shape) for view, value in zip(array.split([value.numel() for value in live]), live, strict=True)
    ]

    def call() -> None:
        torch._foreach_copy_(views, live)  # pyright: ignore[reportPrivateImportUsage] (torch's optimizers use it)
        dist.all_reduce(array)
        array.div_(PROCESSES)
        torch._foreach_copy_(live, views)  # pyright: ignore[reportPrivateImportUsage] (torch's optimizers use it)

    return call, array.nbytes


def _cpu_seconds(call: Callable[[], None]) -> float:
    dist.barrier()
    began = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - began) / CALLS


def _setting() -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    torch.manual_seed(0)
    model = resnet32(10)
    return model, torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9), torch.randn(16, 3, 32, 32)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> None:
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def _replicas(group: Any) -> float:
    """Wall seconds of a run of two replicas, after one step to warm up."""
    model, optimizer, inputs = _setting()
    _step(model, optimizer, inputs)
    began = time.perf_counter()
    for replica in IMWA(model, optimizer, replicas=2, episodes=EPISODES, steps=STEPS, group=group):
        for _ in replica.steps:
            _step(model, optimizer, inputs)
    return time.perf_counter() - began


def _plain_loop() -> float:
    model, optimizer, inputs = _setting()
    _step(model, optimizer, inputs)
    began = time.perf_counter()
    for _ in range(STEPS):
        _step(model, optimizer, inputs)
    return time.perf_counter() - began


def _replicas_together(rank: int) -> tuple[float, int]:
    dist.barrier()
    return _replicas(dist.group.WORLD), rank


def _plain_loops(rank: int) -> float:
    dist.barrier()
    return _plain_loop()
