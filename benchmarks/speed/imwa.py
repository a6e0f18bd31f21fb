"""Rows of imwa: what the driver adds to the replicas' own steps, what a mean costs over a flat pass, and the import.

Driver rows run the same loop M times plainly and once under IMWA with M replicas: both take M x T steps. The mean is set
against one pass over flat arrays in blocks of 2 MiB, each array read once, without a NaN check: the fastest form known.
"""

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


def _driver_times(model: nn.Module, inputs: Tensor, *, steps: int, episodes: int, turns: int) -> tuple[float, float]:
    """CPU seconds of IMWA with 2 replicas, and of 2 plain runs, of the same loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    def ours() -> None:
        for replica in IMWA(model, optimizer, replicas=REPLICAS, episodes=episodes, steps=steps):
            for _ in replica.steps:
                step()

    def plain() -> None:
        for _ in range(REPLICAS):
            for _ in range(steps):
                step()

    return in_turns(ours, plain, turns=turns)


def resnet_row() -> Row:
    """Driver cost with ResNet-32, batch 8, 20 steps an episode."""
    torch.manual_seed(0)
    ours, peer = _driver_times(resnet32(10), torch.randn(8, 3, 32, 32), steps=20, episodes=1, turns=6)
    what = "IMWA, 2 replicas, ResNet-32, batch 8, 20 steps an episode"
    return Row(what, ours, peer, "2 plain runs of the same loop", "CPU s", ours / peer, 1.01)


def mlp_row() -> Row:
    """Driver cost with an MLP 64-128-64, batch 64, 100 steps an episode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    ours, peer = _driver_times(model, torch.randn(64, 64), steps=500, episodes=5, turns=15)
    what = "IMWA, 2 replicas, MLP 64-128-64, batch 64, 100 steps an episode"
    return Row(what, ours, peer, "2 plain runs of the same loop", "CPU s", ours / peer, 1.03)


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
