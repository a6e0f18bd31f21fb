"""Rows of imwa: what the driver adds to the replicas' own steps, what a mean costs over a flat pass, and the import.

Driver rows time a whole IMWA loop, and within it the steps alone, which are those of M plain runs: two separate loops of
several seconds differ by more than the bar on a machine with anything else to do. The mean is set against one pass over
flat arrays in blocks of 2 MiB, each array read once, without a NaN check: the fastest form known.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from imwa import IMWA, average_state_dicts
from imwa.models.resnet_cifar import resnet32
from speed.rows import Row, import_seconds, in_turns

REPLICAS = 2
BLOCK = 2 * 2**20 // 4  # float32 values in 2 MiB
MODELS = 8
# BERT-base with its pooler: 199 tensors, 109,482,240 values.
LAYER = [(768, 768), (768,)] * 4 + [(3072, 768), (3072,), (768, 3072), (768,)] + [(768,)] * 4
BERT_BASE = [(30522, 768), (512, 768), (2, 768), (768,), (768,), *LAYER * 12, (768, 768), (768,)]


def _driver_row(
    name: str, model: nn.Module, inputs: Tensor, *, steps: int, episodes: int, turns: int, bar: float
) -> Row:
    """Median over turns of a run of 2 replicas: CPU seconds of the whole loop over those of its steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    loops: list[float] = []
    plain: list[float] = []
    for _ in range(turns + 1):
        began, inside = time.process_time(), 0.0
        for replica in IMWA(model, optimizer, replicas=REPLICAS, episodes=episodes, steps=steps):
            for _ in replica.steps:
                before = time.process_time()
                optimizer.zero_grad()
                model(inputs).square().mean().backward()
                optimizer.step()
                inside += time.process_time() - before
        loops.append(time.process_time() - began)
        plain.append(inside)
    ratio = statistics.median(loop / inside for loop, inside in zip(loops[1:], plain[1:], strict=True))
    ours, peer = statistics.median(loops[1:]), statistics.median(plain[1:])
    return Row(f"IMWA, 2 replicas, {name}", ours, peer, "the same steps, plainly", "CPU s", ratio, bar)


def resnet_row() -> Row:
    """Driver cost with ResNet-32, batch 16, 20 steps an episode; start and end of the run included."""
    torch.manual_seed(0)
    inputs = torch.randn(16, 3, 32, 32)
    return _driver_row(
        "ResNet-32, batch 16, 20 steps an episode", resnet32(10), inputs, steps=40, episodes=2, turns=2, bar=1.01
    )


def mlp_row() -> Row:
    """Driver cost with an MLP 64-128-64, batch 64, 100 steps an episode; start and end of the run included."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    inputs = torch.randn(64, 64)
    return _driver_row(
        "MLP 64-128-64, batch 64, 100 steps an episode", model, inputs, steps=1000, episodes=10, turns=7, bar=1.03
    )


def mean_row() -> Row:
    """Mean of 8 state dicts of BERT-base, NaN check included; 4.4 GB of memory."""
    flats = [torch.rand(sum(_size(shape) for shape in BERT_BASE)) for _ in range(MODELS)]
    states = [_cut(flat) for flat in flats]
    times = in_turns(lambda: average_state_dicts(states), _flat_pass(flats), turns=9)
    what = f"mean of {MODELS} state dicts of BERT-base in memory, NaN check included"
    return Row(what, times.ours, times.peer, "flat pass in 2-MiB blocks", "CPU s", times.ours / times.peer, 1.15)


def imwa_import_row() -> Row:
    """CPU seconds that importing imwa, every public name loaded, adds to `import torch`."""
    seconds = import_seconds("imwa.driver, imwa.averaging, imwa.batch_norm")
    return Row(
        "import imwa, all public names, over import torch", seconds, 0.3, "the bar itself", "CPU s", seconds / 0.3, 1.0
    )


def _size(shape: tuple[int, ...]) -> int:
    """Number of values of a shape."""
    return int(torch.Size(shape).numel())


def _cut(flat: Tensor) -> dict[str, Tensor]:
    """A state dict whose tensors are views of one flat array, so that both sides read the same memory."""
    parts = flat.split([_size(shape) for shape in BERT_BASE])
    return {f"tensor {i}": part.view(shape) for i, (part, shape) in enumerate(zip(parts, BERT_BASE, strict=True))}


def _flat_pass(flats: list[Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        out = torch.empty_like(flats[0])
        for start in range(0, out.numel(), BLOCK):
            total = out[start : start + BLOCK]
            torch.add(flats[0][start : start + BLOCK], flats[1][start : start + BLOCK], out=total)
            for flat in flats[2:]:
                total += flat[start : start + BLOCK]
            total /= len(flats)
        return out

    return run


ROWS = (resnet_row, mlp_row, mean_row, imwa_import_row)
