"""Checkpoints and model folders that are whole, and not this run's: what row 11 lays before a resume and before what loads a model.

Every checkpoint of the run is changed and its digests are written anew, so that no older one is there to go on from.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faults.bench import checkpoints

Edit = Callable[[dict[str, Tensor]], str]
LATER = "of-tomorrow-99"


class Stranger(NamedTuple):
    """`change` makes a run folder strange and says what the refusal must hold; `words` of the command, `{run}` for the folder."""

    change: Callable[[Path], str]
    words: tuple[str, ...]


def taller_head(tensors: dict[str, Tensor]) -> str:
    """One class, or token, more: the last matrix has another row."""
    name = [name for name, value in tensors.items() if value.ndim == 2][-1]
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    return name


def taller_table(tensors: dict[str, Tensor]) -> str:
    """One token more: the first matrix has another row."""
    name = _first_matrix(tensors)
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    return name


def renamed(tensors: dict[str, Tensor]) -> str:
    """A tensor has another name."""
    name = _first_matrix(tensors)
    tensors["of_another_model.weight"] = tensors.pop(name)
    return name


def more(tensors: dict[str, Tensor]) -> str:
    """A tensor that the model does not have."""
    tensors["of_another_model.weight"] = torch.zeros(2, 2)
    return "of_another_model.weight"


def finer(tensors: dict[str, Tensor]) -> str:
    """A tensor of another dtype."""
    name = _first_matrix(tensors)
    tensors[name] = tensors[name].double()
    return name


def coarser(tensors: dict[str, Tensor]) -> str:
    """All tensors of half as many bits."""
    for name, value in tensors.items():
        if value.is_floating_point():
            tensors[name] = value.half()
    return "float16"


def of_tensors(edit: Edit, place: tuple[str, ...], run: Path) -> str:
    """Change the tensors that lie at `place` of every checkpoint's state, or the model's of a checkpoint that is a folder."""
    wanted = ""
    for path in checkpoints(run):
        if path.is_dir():
            wanted = _edited(path / "model.safetensors", edit, path / "model.safetensors")
        else:
            state = torch.load(path, weights_only=True)
            wanted = edit(reduce(lambda content, name: content[name], place, state))
            torch.save(state, path)
        _seal(path)
    return wanted


def of_value(name: str, value: Any, run: Path) -> str:
    """Change one entry of every checkpoint."""
    for path in checkpoints(run):
        state = torch.load(path, weights_only=True)
        state[name] = value
        torch.save(state, path)
        _seal(path)
    return repr(value)


def of_json(file: str, change: Callable[[dict[str, Any]], str], run: Path) -> str:
    """Change a JSON file of the run folder; `*` stands for each checkpoint."""
    wanted = ""
    for path in sorted(run.glob(file)):
        content = json.loads(path.read_text())
        wanted = change(content)
        path.write_text(json.dumps(content))
        if "checkpoints" in path.parts:
            _seal(path.parent)
    return wanted


def of_model(edit: Edit, run: Path) -> str:
    """Change the tensors of the model folder; a sequence lies beside it, for a command that takes one."""
    (run / "sequences.fa").write_text(">one\nACGTTGCAACGTTGCA\n")
    return _edited(run / "model" / "model.safetensors", edit, run / "model" / "model.safetensors")


def of_other(edit: Edit, run: Path) -> str:
    """Write another model beside the one that is there."""
    return _edited(run / "model" / "model.safetensors", edit, run / "other.safetensors")


def of_vocabulary(run: Path) -> str:
    """The model folder's tokenizer knows one word less."""
    of_model(lambda tensors: "", run)
    file = run / "model" / "vocab.txt"
    file.write_text("\n".join(file.read_text().split()[:-1]) + "\n")
    return "vocab.txt"


def one_class_less(content: dict[str, Any]) -> str:
    """The configuration names one class less than the weights have rows."""
    content["class_names"] = content["class_names"][:-1]
    return "model.safetensors"


def classes_turned(content: dict[str, Any]) -> str:
    """The split names the classes in another order."""
    name = next(name for name in ("classes_by_rank", "labelled_names") if name in content)
    content[name] = content[name][::-1]
    return "split.json"


def other_digest(content: dict[str, Any]) -> str:
    """The digest of the training data is another."""
    name = next(name for name in content if "sha256" in name or "hash" in name)
    content[name] = "0" * 64
    return "split.json"


def _edited(file: Path, edit: Edit, into: Path) -> str:
    tensors = load_file(file)
    wanted = edit(tensors)
    save_file(tensors, into, metadata={"format": "pt"})
    return wanted


def _first_matrix(tensors: dict[str, Tensor]) -> str:
    return next(name for name, value in tensors.items() if value.ndim > 1)


def _seal(path: Path) -> None:
    """Write a checkpoint's digests anew."""
    files = (
        sorted(file for file in path.rglob("*") if file.is_file() and file.name != "SHA256SUMS")
        if path.is_dir()
        else [path]
    )
    root, sums = (path, path / "SHA256SUMS") if path.is_dir() else (path.parent, path.with_suffix(".sha256"))
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(root).as_posix()}\n" for file in files
    ]
    sums.write_text("".join(lines))


def _on_resume(command: str, *changes: Callable[[Path], str]) -> tuple[Stranger, ...]:
    return tuple(Stranger(change, (command, "--resume", "{run}")) for change in changes)


def _in_checkpoint(*place: str) -> tuple[Callable[[Path], str], ...]:
    return tuple(partial(of_tensors, edit, place) for edit in (taller_head, renamed, more, finer, coarser))


_PREDICT = ("predict", "{run}", "{run}/figures")
_EMBED = ("embed", "{run}/model", "{run}/sequences.fa", "-o", "{run}/new.npy")
_AVERAGE = ("average", "{run}/model/model.safetensors", "{run}/other.safetensors", "-o", "{run}/mean.safetensors")
_LIVE, _START = ("iterative", "live", "model", "tensors"), ("iterative", "start", "model", "tensors")
_OF_IMAGES = (
    partial(of_value, "format", LATER),
    partial(of_value, "digest", "0" * 16),
    *(partial(of_json, "split.json", change) for change in (classes_turned, other_digest)),
)
STRANGERS: dict[str, tuple[Stranger, ...]] = {
    "layermatch": (
        *_on_resume(
            "train", *_in_checkpoint("model"), *_OF_IMAGES, partial(of_value, "format", "layermatch-training-1")
        ),
        *(Stranger(partial(of_model, edit), _PREDICT) for edit in (taller_head, renamed, more, coarser)),
        Stranger(partial(of_json, "model/config.json", one_class_less), _PREDICT),
    ),
    "imwa": (
        *_on_resume("train", *_in_checkpoint(*_LIVE), *_OF_IMAGES, partial(of_value, "format", "imwa-training-1")),
        *_on_resume("train", partial(of_tensors, renamed, _START), partial(of_tensors, finer, _START)),
        *(Stranger(partial(of_other, edit), _AVERAGE) for edit in (taller_head, renamed, finer)),
    ),
    "randommask": (
        *_on_resume("pretrain", *_in_checkpoint(), partial(of_json, "split.json", other_digest)),
        *(Stranger(partial(of_model, edit), _EMBED) for edit in (taller_table, renamed)),
        Stranger(of_vocabulary, _EMBED),
    ),
}
