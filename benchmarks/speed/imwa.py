"""Rows of imwa: what the driver adds to the replicas' own steps, what means and synchronising cost, and the import.

Driver rows time a whole IMWA loop, and within it the steps alone, which are those of M plain runs: two separate loops of
several seconds differ by more than the bar on a machine with anything else to do. The mean is set against one pass over
flat arrays in blocks of 2 MiB, each array read once, without a NaN check: the fastest form known. The mean of files is set
against the stream that one would write by hand: tensor by tensor with `add_`, then `save_file`, no NaN check.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from imwa import IMWA, average_files, average_state_dicts
from imwa.models.resnet_cifar import resnet32
from speed.imwa_processes import side_by_side, synchronise
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


def files_row() -> Row:
    """Mean of 8 safetensors files of BERT-base, NaN check and writing included; 4.4 GB of disk, and of page cache."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _bert_files(Path(folder))
        output = Path(folder) / "mean.safetensors"
        times = in_turns(lambda: _average_anew(paths, output), lambda: _stream(paths, output), turns=4)
    what = f"mean of {MODELS} safetensors files of BERT-base, NaN check and writing included"
    return Row(what, times.ours, times.peer, "hand-written stream and save_file", "CPU s", times.ours / times.peer, 1.1)


def files_memory_row() -> Row:
    """Largest anonymous memory while files are averaged, sampled every 2 ms, in models."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _bert_files(Path(folder), count=2)
        size = paths[0].stat().st_size
        _average_anew(paths, Path(folder) / "mean.safetensors")  # loads what is loaded late
        peak = _peak_anonymous(lambda: _average_anew(paths, Path(folder) / "mean.safetensors")) / size
    what = "anonymous memory of a mean of files of BERT-base"
    return Row(what, peak, 0.2, "the bar itself", "models", peak / 0.2, 1.0)


def synchronising_row() -> Row:
    """Two gloo processes of WRN-28-2: parameters, buffers, counters, NaN check and momentum."""
    found = synchronise()
    what = f"synchronising WRN-28-2 and its momentum ({found.size / 1e6:.1f} MB) over 2 gloo processes, CPU of both"
    return Row(what, found.ours, found.peer, "one flat all-reduce, copies", "CPU s", found.ours / found.peer, 1.1)


def side_by_side_row() -> Row:
    """Wall seconds: holds for nothing but a machine with two idle cores."""
    ours, peer = side_by_side()
    what = "ResNet-32, two replicas in two processes against in turn (wall; needs two idle cores)"
    return Row(what, ours, peer, "two plain loops side by side", "times as fast", ours / peer, 0.95, "at least")


def imwa_import_row() -> Row:
    """CPU seconds that importing imwa, every public name loaded, adds to `import torch`."""
    seconds = import_seconds("imwa.driver, imwa.averaging, imwa.batch_norm, imwa.files, imwa.processes")
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


def _bert_files(folder: Path, *, count: int = MODELS) -> list[Path]:
    paths = [folder / f"{index}.safetensors" for index in range(count)]
    for path in paths:
        save_file(_cut(torch.rand(sum(_size(shape) for shape in BERT_BASE))), path)
    return paths


def _average_anew(paths: list[Path], output: Path) -> None:
    output.unlink(missing_ok=True)
    average_files(paths, output)


def _stream(paths: list[Path], output: Path) -> None:
    files = [safe_open(path, "pt").__enter__() for path in paths]
    mean: dict[str, Tensor] = {}
    for name in files[0].keys():  # noqa: SIM118 (it is no dictionary)
        total = files[0].get_tensor(name).clone()
        for file in files[1:]:
            total.add_(file.get_tensor(name))
        mean[name] = total.div_(len(files))
    save_file(mean, output)


def _peak_anonymous(call: Callable[[], None]) -> int:
    """Bytes over those before the call."""

    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    before, seen, over = now(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            seen.append(now() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        over.set()
        watcher.join()
    return max(seen)


ROWS = (
    resnet_row,
    mlp_row,
    mean_row,
    files_row,
    files_memory_row,
    synchronising_row,
    side_by_side_row,
    imwa_import_row,
)
