"""What a row of the suite works with: the package's job, a scratch folder, whole runs to compare with, and random numbers by name."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from faults.children import Child, Ended, Fault, from_the_shell
from faults.comparing import differences
from faults.jobs import JOBS, Job, make_images, words_of
from scarce_common_utils.streams import stream


class Row(NamedTuple):
    """A row of the suite: `number` and `title` as issue and table have them.

    `count(bench, size)` is how many cases there are, `case(bench, number)` runs one and returns the faults found, a sentence each.
    """

    number: int
    title: str
    count: Callable[["Bench", str], int]
    case: Callable[["Bench", int], list[str]]


class Bench:
    """One package under test, in `scratch`; with `every_shell` each row runs a command from the shell, else the packages take turns."""

    def __init__(self, job: Job, scratch: Path, *, every_shell: bool = True) -> None:
        self.job, self.scratch, self.every_shell = job, scratch, every_shell
        self._whole: dict[int, tuple[Path, float]] = {}
        scratch.mkdir(parents=True, exist_ok=True)

    def words(self, form: int) -> list[str]:
        """Words of the run in one of its forms."""
        return words_of(self.job, form, images=lambda: make_images(self.scratch / "images"))

    def whole(self, form: int = 0) -> tuple[Path, float]:
        """Folder of the run that nothing happened to, and its seconds; made once."""
        if form not in self._whole:
            folder = self.scratch / f"whole-{form}"
            shutil.rmtree(folder, ignore_errors=True)
            ended = self.run([*self.words(form), "--out", str(folder)])
            if ended.code != 0:
                raise RuntimeError(
                    f"{self.job.package}, form {form}: the run itself ended with {ended.code}: {ended.said}"
                )
            self._whole[form] = (folder, ended.seconds)
        return self._whole[form]

    def start(self, words: Sequence[str], *, fault: Fault | None = None) -> Child:
        """Start a command in a child."""
        return Child(self.job.package, words, folder=self.scratch, fault=fault)

    def run(self, words: Sequence[str], *, fault: Fault | None = None) -> Ended:
        """Run a command in a child to its end."""
        return self.start(words, fault=fault).wait()

    def shell(self, words: Sequence[str]) -> Ended:
        """Run a command from the shell."""
        return from_the_shell(self.job.package, words, folder=self.scratch)

    def by_shell(self, row: int, case: int, *, first: int = 0) -> bool:
        """Whether a case's command is to be run from the shell (4 to 9 CPU seconds): `first` is, of one package a row or of each."""
        mine = row % len(JOBS) == list(JOBS).index(self.job.package)
        return case == first and (self.every_shell or mine)

    def folder(self, name: str) -> Path:
        """A path that is free, for a run."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        return path

    def go_on(self, folder: Path, form: int, *, shell: bool = False) -> list[str]:
        """Bring a run to its end, from wherever it was left, and compare it with the whole one.

        One that was stopped before its configuration stood has to be begun anew, in another folder.
        """
        begun = (folder / "config.json").is_file()
        if not begun:
            folder = self.folder(f"again-{folder.name}")
        words = [self.job.words[0], "--resume", str(folder)] if begun else [*self.words(form), "--out", str(folder)]
        ended = self.shell(words) if shell else self.run(words)
        if ended.code != 0:
            return [f"going on ended with {ended.code}: {ended.last}"]
        return differences(self.whole(form)[0], folder)

    def generator(self, row: int, case: int) -> torch.Generator:
        """Random numbers of one case."""
        return stream(0, "faults", self.job.package, row, case)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A number between two."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if path.suffix in (".pt", ""))
