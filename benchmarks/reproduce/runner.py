"""Run what is missing of a reproduction, keep a record of each (experiment, arm, seed), and find those that stand.

A record is kept in `<out>/records/<experiment>/<arm>/seed-003.json`; a later run does only those that are missing there
or were made with other words or another version. The digest is that of the words as the arms and scales have them, whatever
folders stand for `{data}` and `{prepared}`, so it is the same on every machine. Smoke runs start from nothing every time.
"""

import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from reproduce.data_files import differing_files, missing_files
from reproduce.protocol import Arm, Experiment, Number, Recipe, Scale
from reproduce.task import Task, run_tasks
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record, read_record, record_path, write_record

COMMITTED = Path(__file__).parent.parent / "records"


class Reproduction:
    """One package at one scale, or a part of it.

    Args:
        package: `layermatch`, `imwa` or `randommask`.
        scale: a key of its SCALES.
        out: folder for run folders, prepared data and records.
        data: folder that `{data}` stands for, or None.
        steps: replaces the steps of every command of the scale, for a quick look at a large one.
        seeds: replaces the seeds of every experiment.
        experiments: names of those wanted; all of the scale where none is given.
        arms: names of those wanted; all of each experiment where none is given.
        generated: run every experiment's trial on made images in its place.

    Raises:
        UserError: a name is unknown, or data are needed that the folder does not hold.
    """

    def __init__(
        self,
        package: str,
        *,
        scale: str,
        out: Path,
        data: Path | None = None,
        steps: int | None = None,
        seeds: Sequence[int] | None = None,
        experiments: Collection[str] = (),
        arms: Collection[str] = (),
        generated: bool = False,
    ):
        self.package, self.out, self.data, self.steps = package, out, data, steps
        self.arms_module: ModuleType = importlib.import_module(f"reproduce.{package}.arms")
        scales: dict[str, Scale] = importlib.import_module(f"reproduce.{package}.scales").SCALES
        if scale not in scales:
            raise UserError(f"--scale is {scale!r}; {package} has {', '.join(scales)}.")
        self.scale_name, self.scale = scale, scales[scale]
        self.numbers: tuple[Number, ...] = self.arms_module.NUMBERS
        chosen = self.scale.experiments
        if generated:
            chosen = tuple(experiment.trial for experiment in chosen if experiment.trial is not None)
            if not chosen:
                raise UserError(f"--scale {scale} of {package} has nothing that runs on generated data.")
        chosen = _wanted(chosen, experiments)
        if seeds:
            chosen = tuple(experiment._replace(seeds=tuple(seeds)) for experiment in chosen)
        self.experiments = _with_arms(chosen, arms)

    def run(self, *, jobs: int = 1) -> list[Record]:
        """Run what is missing, experiment by experiment and in each seed by seed, so that pairs fill up evenly; return all records.

        Raises:
            UserError: data are missing, or a command failed.
        """
        if self.scale_name == "smoke":
            for part in ("runs", "records", "prepared", "shared"):
                shutil.rmtree(self.out / part, ignore_errors=True)
        missing = [
            (experiment, name, seed) for experiment, name, seed in self._all() if not self._have(experiment, name, seed)
        ]
        self._check_data({experiment.name for experiment, _, _ in missing})
        tasks = [self._task(experiment, name, seed) for experiment, name, seed in missing]
        for number, (task, record) in enumerate(run_tasks(tasks, jobs=jobs), start=1):
            write_record(record_path(self.out / "records", record), record)
            if jobs > 1:
                print(f"{number}/{len(tasks)} {task.label} {record.seconds:.0f} s", flush=True)
        return self.records()

    def records(self, folder: Path | None = None) -> list[Record]:
        """The records of this scale that stand in a folder, by default its own, and fit."""
        found = (self._have(experiment, name, seed, folder) for experiment, name, seed in self._all())
        return [record for record in found if record is not None]

    def missing(self, records: Sequence[Record]) -> int:
        """How many of the scale's records are not among those given."""
        return sum(1 for _ in self._all()) - len(records)

    def commit(self) -> list[Path]:
        """Copy the records of this scale that stand to benchmarks/records/<package>/ and return their places there.

        Raises:
            UserError: a data file is not the listed one, so the numbers would not be those that others get.
        """
        records = self.records()
        used = {record.experiment for record in records}
        files = {file for experiment in self.experiments if experiment.name in used for file in experiment.files}
        if files and self.data is not None:
            differing = differing_files(self.data, files)
            if differing:
                raise UserError(
                    f"{', '.join(differing)} in {self.data} differs from the file in benchmarks/README.md; nothing is copied."
                )
        folder = COMMITTED / self.package
        return [write_record(record_path(folder, record), record) for record in records]

    def figures(self) -> list[Path]:
        """Figures of all runs of this scale."""
        return sorted(path for part in ("runs", "shared") for path in (self.out / part).rglob("figures/*.png"))

    def baseline(self, experiment: Experiment) -> str:
        """The arm that the others of an experiment are compared with."""
        return experiment.baseline or self.arms_module.BASELINE

    def _all(self) -> Iterator[tuple[Experiment, str, int]]:
        for experiment in self.experiments:
            for seed in experiment.seeds:
                for name in experiment.arms:
                    yield experiment, name, seed

    def _task(self, experiment: Experiment, name: str, seed: int) -> Task:
        package = Path(str(importlib.import_module(self.package).__file__)).parent
        filled = {"{data}": str(self.data), "{package}": str(package)}
        if experiment.prepared:
            filled["{prepared}"] = str(self._prepared(experiment.prepared, seed))
        lines, shared = [], []
        plain = self._command_lines(experiment, self.arms_module.ARMS[name], seed)
        for number, line in enumerate(plain, start=1):
            serves = line[0] in getattr(self.arms_module, "SHARED", ())
            reads = "{prepared}" in str(plain[:number])  # one that does not is the same whatever the recipe
            digest = self._digest(experiment if reads else experiment._replace(prepared=""), plain[:number])
            shared.append(self.out / "shared" / f"{line[0]}-{digest}" if serves else None)
            for placeholder, text in filled.items():
                line = [word.replace(placeholder, text) for word in line]
            lines.append(tuple(line))
        folder = self.out / "runs" / experiment.name / name / f"seed-{seed:03d}"
        label = f"{experiment.name} {name} seed {seed}"
        return Task(self.package, label, tuple(lines), folder, self._shell(experiment, name, seed), tuple(shared))

    def _prepared(self, name: str, seed: int) -> Path:
        """The file of a recipe, made where it is not there yet."""
        recipe: Recipe = importlib.import_module(f"reproduce.{self.package}.data").PREPARED[name]
        folder = self.out / "prepared" / (f"seed-{seed:03d}" if recipe.every_seed else "")
        path = folder / f"{name}{recipe.suffix}"
        if not path.exists():
            print(f"Preparing {path}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f"unfinished-{name}{recipe.suffix}"
            recipe.make(self.data, seed, unfinished)
            unfinished.replace(path)
        return path

    def _check_data(self, names: Collection[str]) -> None:
        """Refuse where files are missing; say on standard error where one is not the listed one."""
        files = {file for experiment in self.experiments if experiment.name in names for file in experiment.files}
        missing = missing_files(self.data, files)
        if missing:
            needing = [e.name for e in self.experiments if e.name in names and set(e.files) & set(missing)]
            place = "no folder was given (--data FOLDER)" if self.data is None else f"{self.data} does not hold it"
            raise UserError(
                f"{', '.join(needing)} of {self.package} needs {', '.join(missing)}, and {place}. benchmarks/README.md says where "
                "each file comes from; --experiment NAME runs a part."
            )
        wordy = [e for e in self.experiments if e.name in names and "{data}" in str(e.words)]
        if wordy and self.data is None:
            raise UserError(f"{wordy[0].name} of {self.package} needs --data FOLDER. {wordy[0].note}")
        for file in differing_files(self.data, files) if self.data is not None else ():
            print(f"reproduce: {file} is not the file of benchmarks/README.md; numbers will differ.", file=sys.stderr)

    def _shell(self, experiment: Experiment, name: str, seed: int) -> Record:
        """The record without its numbers: what names it and what tells whether one that stands there fits."""
        lines = self._command_lines(experiment, self.arms_module.ARMS[name], seed)
        digest = self._digest(experiment, lines)
        return Record(experiment=experiment.name, arm=name, seed=seed, numbers={}, digest=digest)

    def _digest(self, experiment: Experiment, lines: Sequence[Sequence[str]]) -> str:
        """Of the command lines, the versions and the recipe of the data."""
        key: list[object] = [lines, metadata.version(self.package), metadata.version("scarce-common-utils")]
        if experiment.prepared:
            key.append(experiment.prepared)
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    def _have(self, experiment: Experiment, name: str, seed: int, folder: Path | None = None) -> Record | None:
        shell = self._shell(experiment, name, seed)
        path = record_path(folder or self.out / "records", shell)
        if not path.is_file():
            return None
        record = read_record(path)
        return record if record.digest == shell.digest else None

    def _command_lines(self, experiment: Experiment, arm: Arm, seed: int) -> list[list[str]]:
        """The words of each command line, with the steps and the seed; folders stand as `{data}` and so on."""
        lines = []
        for words in arm.commands:
            command = words[0]
            if experiment.commands and command not in experiment.commands:
                continue
            line = [*words, *_left(experiment.words.get(command, ()), arm.without)]
            steps = experiment.steps.get(command)
            if self.steps is not None and (steps is not None or command not in getattr(self.arms_module, "OWN", {})):
                steps = self.steps
            if steps is not None:
                line += ["--steps", str(steps * arm.steps_factor)]
            line += ["--seed", str(seed)]
            lines.append([word.replace("{seed}", str(seed)) for word in line])
        return lines


def _left(words: Sequence[str], without: Sequence[str]) -> list[str]:
    """The words without the options named in `without` and the value behind each."""
    return [
        word for place, word in enumerate(words) if word not in without and not (place and words[place - 1] in without)
    ]


def _wanted(experiments: Sequence[Experiment], names: Collection[str]) -> tuple[Experiment, ...]:
    known = [experiment.name for experiment in experiments]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--experiment is {unknown[0]!r}; this scale has {', '.join(known)}.")
    return tuple(experiment for experiment in experiments if not names or experiment.name in names)


def _with_arms(experiments: Sequence[Experiment], names: Collection[str]) -> tuple[Experiment, ...]:
    known = sorted({arm for experiment in experiments for arm in experiment.arms})
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--arms is {unknown[0]!r}; there are {', '.join(known)}.")
    if not names:
        return tuple(experiments)
    kept = (e._replace(arms=tuple(arm for arm in e.arms if arm in names)) for e in experiments)
    return tuple(experiment for experiment in kept if experiment.arms)
