"""Row 4: poisoned files at each place that reads one: nothing is run, written elsewhere or opened, memory is bounded, and a sentence comes.

The places stand in `readers.py` and `places.py`, what is done to their files in `payloads.py`, `pictures.py` and `columns.py`, what is
seen in `watching.py`. A case is one place with 25 files, read one after the other in a forked child; the first is sound and must be read.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults.bench import Bench, Row
from faults.places import readers
from faults.watching import MARK, Attempt, faults_of

SHELL = {
    "layermatch": ("npz", "data.npz", ("train", "{}", "--labels-per-class", "1", "--out", "run")),
    "imwa": ("weights to average", "w.safetensors", ("average", "{}", "{}", "-o", "mean.safetensors")),
    "randommask": ("table", "a.csv.gz", ("finetune", "{}", "--out", "run")),
}


def count(bench: Bench, size: str) -> int:
    """Every place once, or four times (25 and 100 files each), and a command from the shell."""
    return 1 + (len(readers(bench.job.package)) + 1) * (1 if size == "small" else 4)


def case(bench: Bench, number: int) -> list[str]:
    """The shell first; then the places in turn, the last of them a command that goes on from a whole run."""
    if number == 0:
        return from_the_shell(bench) if bench.by_shell(4, 0) else []
    places = len(readers(bench.job.package)) + 1
    place = (number - 1) % places
    whole = bench.whole(0)[0] if place == places - 1 else None
    seed = int(torch.randint(2**62, (), generator=bench.generator(4, number)))
    task = partial(poisoned, package=bench.job.package, place=place, whole=whole, seed=seed)
    return faults_of(task, folder=bench.folder(f"poisoned-{number}"), hook=True)


def poisoned(folder: Path, *, package: str, place: int, whole: Path | None, seed: int) -> Iterator[Attempt]:
    """In the child: the sound file, then 25 that are not, each kind in turn."""
    draw, reader = Random(seed), readers(package, whole=whole)[place]
    work, sound, outside = folder / "work", folder / "sound", folder.with_name(f"{folder.name}-{MARK}")
    work.mkdir()
    path = reader.make(work)
    shutil.copytree(work, sound, symlinks=True)
    yield Attempt(f"{reader.name}, sound", partial(must_be_read, reader.read, path), seconds=60.0)
    pairs = [(name, poison) for name, poisons in reader.inside.items() for poison in poisons]
    first = draw.randrange(len(pairs))  # costly ones come once a case, the others by turns
    light = [pair for pair in pairs if not pair[1].costly]
    turns = [pair for pair in pairs if pair[1].costly] + [
        light[(first + number) % len(light)] for number in range(reader.files)
    ]
    for number, (name, poison) in enumerate(turns[: reader.files]):
        shutil.rmtree(work)
        shutil.copytree(sound, work, symlinks=True)
        file = next(work.glob(name))
        file.write_bytes(poison.write(file.read_bytes(), draw, outside))
        reader.seal(work)
        what, refused = f"{reader.name}, {name}, {poison.name} ({number})", poison.refused and not reader.lenient
        yield Attempt(
            what,
            partial(unmarked, reader.read, path, outside),
            refused=refused,
            named=poison.named,
            seconds=60.0 if whole else poison.seconds,
        )


def must_be_read(read: Callable[[Path], Any], path: Path) -> list[str] | None:
    """A refusal of what is sound is a fault."""
    try:
        return read(path)
    except ValueError as error:
        return [f"is refused: {error}"]


def unmarked(read: Callable[[Path], Any], path: Path, outside: Path) -> list[str] | None:
    """Reading, and then a look for what the payloads leave behind."""
    try:
        return read(path)
    finally:
        if outside.exists() or (path.parent / MARK).exists() or Path(MARK).exists():
            raise RuntimeError("a payload has run")


def from_the_shell(bench: Bench) -> list[str]:
    """A command on one poisoned file, as a person starts it: exit code 2, one sentence that names the file."""
    package = bench.job.package
    name, file, words = SHELL[package]
    reader = next(reader for reader in readers(package) if reader.name == name)
    folder = bench.folder("poisoned-0")
    folder.mkdir()
    reader.make(folder)
    draw = Random(0)
    (folder / file).write_bytes(
        reader.inside[file][-1 if package == "randommask" else 0].write(b"", draw, folder / MARK)
    )
    words = [word.format(folder / file) for word in words]
    ended = bench.shell([str(folder / word) if word == "run" else word for word in words])
    found = (
        [] if ended.code == 2 and file in ended.last else [f"the shell's command ended with {ended.code}: {ended.last}"]
    )
    return found + (["a payload has run"] if (folder / MARK).exists() else [])


ROW = Row(4, "poisoned files at each place that reads one", count, case)
