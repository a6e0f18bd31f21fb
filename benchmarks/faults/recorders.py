"""What a run's steps saw, written down from outside: the function by which each package hands a step its batch is wrapped in the child.

A line of the file is {"sitting", "rank", "step", "seen"}: which command of this process it was, and for every image or window of the
step which one it is and digests of what was drawn for it. `merged` lays the parts of several processes end to end.
"""

import hashlib
import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Note = Callable[[str, Any], None]


class Recorder:
    """Lines of one process in `file`; after each, `then(step number of this sitting)` may stop the run.

    `loading` are options that every DataLoader with workers gets from now on, whatever the package asks for.
    """

    def __init__(self, package: str, file: Path, *, then: Callable[[int], None] = lambda count: None) -> None:
        self.sitting, self.count, self.then = 0, 0, then
        self.rank = int(os.environ.get("RANK", "0"))
        self.loading: dict[str, Any] = {}
        self._file = file
        RECORDERS[package](self.note)
        _wrap_loaders(package, self.loading)

    def note(self, step: str, seen: Any) -> None:
        """Write a line, and let `then` act."""
        line = {"sitting": self.sitting, "rank": self.rank, "step": step, "seen": seen}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.count += 1
        self.then(self.count)

    def begin(self, sitting: int) -> None:
        """What follows is another command of this process."""
        self.sitting, self.count = sitting, 0


def lines_of(*files: Path) -> list[dict[str, Any]]:
    """Lines of some files."""
    return [json.loads(line) for file in files if file.is_file() for line in file.read_text().splitlines()]


def merged(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What each step saw, by step; of several processes their parts, end to end in the order of ranks."""
    found: dict[str, Any] = {}
    for line in sorted(lines, key=lambda line: line["rank"]):
        before = found.setdefault(line["step"], {})
        for name, part in line["seen"].items():
            before[name] = before[name] + part if name in before else part
    return found


def digest(tensor: Tensor) -> str:
    """Of values, dtype and shape."""
    plain = tensor.detach().cpu().contiguous()
    text = f"{plain.dtype} {tuple(plain.shape)}".encode()
    return hashlib.sha256(text + plain.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:12]


def _layermatch(note: Note) -> None:
    loop: Any = import_module("layermatch.training.loop")
    train_step = loop.train_step

    def recorded(state: Any, batch: Any, *, views: Any, **options: Any) -> None:
        def noted(batch: Any, step: int, **more: Any) -> Tensor:
            images = views(batch, step, **more)
            ends = [len(batch.labels), *[len(batch.unlabelled)] * 2]
            labelled, weak, strong = ([digest(view) for view in views_of] for views_of in images.split(ends))
            which = [f"{digest(image)} {label}" for image, label in zip(batch.labelled, batch.labels, strict=True)]
            pool = batch.indices.tolist()
            seen = {"labelled": [*zip(which, labelled, strict=True)], "pool": [*zip(pool, weak, strong, strict=True)]}
            note(f"{step}", seen)
            return images

        train_step(state, batch, views=noted, **options)

    loop.train_step = recorded


def _imwa(note: Note) -> None:
    from imwa.commands.job import Job

    batch = Job.batch

    def recorded(self: Job, replica: Any, step: int) -> tuple[Tensor, Tensor]:
        seed = digest(replica.generator.get_state())
        images, labels = batch(self, replica, step)
        which = self.order(step, replica=replica.index).tolist()
        seen = {"images": [*zip(which, map(digest, images), labels.tolist(), strict=True)], "seed": [seed]}
        note(f"{replica.episode}/{replica.index}/{step}", seen)
        return images, labels

    Job.batch = recorded  # type: ignore[method-assign]  # put in on purpose, in the child alone


def _randommask(note: Note) -> None:
    from randommask.training.trainer import RandomMaskTrainer

    training_step, began = RandomMaskTrainer.training_step, {"step": -1, "micro": 0}

    def recorded(self: Any, model: Any, inputs: dict[str, Any], *words: Any, **options: Any) -> Tensor:
        step = self.state.global_step
        began["micro"] = began["micro"] + 1 if step == began["step"] else 0
        began["step"] = step
        number = (step * self.args.gradient_accumulation_steps + began["micro"]) * self.args.world_size
        masked = inputs["labels"] >= 0
        ids = torch.where(masked, inputs["labels"], inputs["input_ids"])
        rows = [
            (digest(true[:length]), digest(shown[:length]), digest(chosen[:length]))
            for true, shown, chosen, length in zip(
                ids, inputs["input_ids"], masked, inputs["attention_mask"].sum(1).tolist(), strict=True
            )
        ]
        seen = {"windows": rows, "width": [int(inputs["mask_width"])]}
        note(f"{step} batch {number + self.args.process_index}", seen)
        return training_step(self, model, inputs, *words, **options)

    RandomMaskTrainer.training_step = recorded  # type: ignore[method-assign]  # put in on purpose, in the child alone


def _wrap_loaders(package: str, loading: dict[str, Any]) -> None:
    """Give every DataLoader of the package's own module that has workers the options of `loading` too."""
    if package == "imwa":  # its command reads by threads
        return
    module: Any = import_module(
        "layermatch.data.streaming" if package == "layermatch" else "randommask.training.trainer"
    )
    plain = module.DataLoader

    def loader(*words: Any, **options: Any) -> Any:
        return plain(*words, **(options | loading if options.get("num_workers") else options))

    module.DataLoader = loader


RECORDERS: dict[str, Callable[[Note], None]] = {"layermatch": _layermatch, "imwa": _imwa, "randommask": _randommask}
