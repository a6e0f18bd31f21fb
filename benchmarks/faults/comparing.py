"""Whether two run folders hold the same run: every number and every bit of it, its timings apart."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

# What says when, how fast or where a run was, and nothing of what it computed.
_TIMED = ("seconds", "images/s", "images_per_second", "train_runtime", "epoch_seconds", "versions", "device")
_OWN_PLACE = ("out", "resume", "data", "genome", "workers", "in_memory", "command_line")


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs of the same options, a sentence each; empty where nothing does."""
    found = []
    for name in ("config.json", "split.json", "result.json"):
        mine, theirs = (plain(json.loads((run / name).read_text())) for run in (one, other))
        if not _same(mine, theirs):
            found.append(f"{name} differs")
    found += _lines_differ(one / "metrics.jsonl", other / "metrics.jsonl")
    found += _files_differ(one / "model", other / "model")
    stores = [_stores(run / "checkpoints") for run in (one, other)]
    if [store.name for store in stores[0]] != [store.name for store in stores[1]]:
        return [
            *found,
            f"checkpoints are in {[store.name for store in stores[0]]} and {[store.name for store in stores[1]]}",
        ]
    for pair in zip(*stores, strict=True):
        newest = [max(_checkpoints(store), default=None) for store in pair]
        if newest[0] is None or newest[1] is None or newest[0].name != newest[1].name:
            found.append(f"newest checkpoints are {newest[0]} and {newest[1]}")
        else:
            found += [f"{newest[0].name}: {place} differs" for place in states_differ(newest[0], newest[1])]
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content, but the lock's."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name not in (".lock", ".holder.json")
    }


def _stores(folder: Path) -> list[Path]:
    """The folder of a run's checkpoints, or those in it of several processes that each keep their own."""
    return sorted(folder.glob("process-*-of-*")) or [folder]


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.suffix != ".sha256"]


def _lines_differ(one: Path, other: Path) -> list[str]:
    mine, theirs = ([plain(json.loads(line)) for line in path.read_text().splitlines()] for path in (one, other))
    for number, (line, same) in enumerate(zip(mine, theirs, strict=False)):
        if not _same(line, same):
            names = [name for name in {*line, *same} if not _same(line.get(name), same.get(name))]
            return [f"metrics line {number + 1} (step {line.get('step')}) differs in {', '.join(sorted(names))}"]
    return [] if len(mine) == len(theirs) else [f"{len(mine)} and {len(theirs)} lines of metrics"]


def _files_differ(one: Path, other: Path) -> list[str]:
    names = [{path.name for path in folder.glob("*.safetensors")} for folder in (one, other)]
    if names[0] != names[1] or not names[0]:
        return [f"weights are {sorted(names[0])} and {sorted(names[1])}"]
    return [
        f"model/{name} differs" for name in sorted(names[0]) if (one / name).read_bytes() != (other / name).read_bytes()
    ]


def states_differ(one: Path, other: Path) -> list[str]:
    """Places at which two checkpoints, files or folders, differ."""
    if one.is_file():
        mine, theirs = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
        return _walk(plain(mine), plain(theirs), "state")
    found = []
    for path in sorted(one.iterdir()):
        same = other / path.name
        if not same.is_file():
            found.append(f"{path.name} (missing)")
        elif path.suffix == ".safetensors" and path.read_bytes() != same.read_bytes():
            found.append(path.name)
        elif path.name in ("optimizer.pt", "scheduler.pt"):
            mine, theirs = (torch.load(file, map_location="cpu", weights_only=True) for file in (path, same))
            found += _walk(mine, theirs, path.name)
        elif path.name.startswith("rng_state"):  # the Trainer's own: Python's and numpy's states beside torch's
            mine, theirs = (torch.load(file, map_location="cpu", weights_only=False) for file in (path, same))
            found += _walk(mine, theirs, path.name)
    return found


def _walk(one: Any, other: Any, place: str) -> list[str]:
    """Places at which two nested states differ, at most five."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{place} (keys)"]
        return [difference for key in one for difference in _walk(one[key], other[key], f"{place}.{key}")][:5]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{place} (length)"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, (a, b) in pairs for found in _walk(a, b, f"{place}[{number}]")][:5]
    return [] if _same(one, other) else [place]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return one.contiguous().view(-1).numpy().tobytes() == other.contiguous().view(-1).numpy().tobytes()
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


def plain(content: Any) -> Any:
    """Without what is timed, and without the places that differ between two folders."""
    if isinstance(content, dict):
        return {name: plain(value) for name, value in content.items() if name not in _TIMED and name not in _OWN_PLACE}
    return content
