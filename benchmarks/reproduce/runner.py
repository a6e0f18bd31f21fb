"""Run the arms of a reproduction over its seeds, keep a record of each, and print what the records say.

A record is kept in `<out>/records/<experiment>/<arm>/seed-003.json`; a later run does only those that are missing there
or were made with other words or another version. Smoke runs start from nothing every time.
"""

import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from reproduce.protocol import Arm, Number, Scale
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.records import (
    Record,
    difference_text,
    paired_difference,
    read_record,
    record_path,
    summary,
    write_record,
)


class Reproduction:
    """One package at one scale.

    Args:
        package: `layermatch`, `imwa` or `randommask`.
        scale: a key of its SCALES.
        out: folder for run folders and records.
        data: folder that `{data}` stands for, or None.
        steps: replaces the steps of every command of the scale, for a quick look at a large one.
        seeds: replaces the seeds.

    Raises:
        UserError: the scale is unknown, or needs data that were not given.
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
    ):
        self.package, self.out, self.data, self.steps = package, out, data, steps
        self.arms_module: ModuleType = importlib.import_module(f"reproduce.{package}.arms")
        scales: dict[str, Scale] = importlib.import_module(f"reproduce.{package}.scales").SCALES
        if scale not in scales:
            raise UserError(f"--scale is {scale!r}; choose from {', '.join(scales)}.")
        self.scale_name, self.scale = scale, scales[scale]
        if self.scale.needs_data and data is None:
            raise UserError(f"--scale {scale} of {package} needs --data FOLDER. {self.scale.note}")
        self.seeds = tuple(self.scale.seeds if seeds is None else seeds)
        self.arms: dict[str, Arm] = {name: self.arms_module.ARMS[name] for name in self.scale.arms}
        self.numbers: tuple[Number, ...] = self.arms_module.NUMBERS

    def run(self) -> list[Record]:
        """Run what is missing, seed by seed so that pairs fill up evenly; return all records of this scale."""
        if self.scale_name == "smoke" and self.out.exists():
            shutil.rmtree(self.out)
        for seed in self.seeds:
            for name, arm in self.arms.items():
                if self._have(name, arm, seed) is None:
                    write_record(
                        record_path(self.out / "records", self._shell(name, arm, seed)), self._run_arm(name, arm, seed)
                    )
        return self.records()

    def records(self) -> list[Record]:
        """The records of this scale that stand in its folder and fit."""
        found = (self._have(name, arm, seed) for seed in self.seeds for name, arm in self.arms.items())
        return [record for record in found if record is not None]

    def figures(self) -> list[Path]:
        """Figures of all runs of this scale."""
        return sorted((self.out / "runs").rglob("figures/*.png"))

    def _run_arm(self, name: str, arm: Arm, seed: int) -> Record:
        main = importlib.import_module(f"{self.package}.commands").main
        first = self._folder(name, seed, 0)
        if first.parent.exists():
            shutil.rmtree(first.parent)
        numbers: dict[str, float | None] = {}
        units: dict[str, str] = {}
        record = None
        began = time.monotonic()
        for number, words in enumerate(self._command_lines(arm, seed)):
            folder = self._folder(name, seed, number)
            line = [word.replace("{first}", str(first)) for word in words] + ["--out", str(folder)]
            print(f"\n$ {self.package} {' '.join(line)}", flush=True)
            code = main(line)
            if code != 0:
                raise UserError(f"{self.package} {' '.join(line)} ended with exit code {code}.")
            record = read_record(folder / "result.json")
            numbers |= record.numbers
            units |= record.units
        if record is None:
            raise ValueError(f"Arm {name!r} has no command line.")
        shell = self._shell(name, arm, seed)
        merged: dict[str, Any] = {
            "numbers": numbers,
            "units": units,
            "versions": record.versions,
            "seconds": time.monotonic() - began,
            "threads": record.threads,
            "device": record.device,
        }
        return Record(experiment=shell.experiment, arm=name, seed=seed, digest=shell.digest, **merged)

    def _shell(self, name: str, arm: Arm, seed: int) -> Record:
        """The record without its numbers: what names it and what tells whether one that stands there fits."""
        key = [self._command_lines(arm, seed), metadata.version(self.package), metadata.version("scarce-common-utils")]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        return Record(experiment=self.scale.experiment, arm=name, seed=seed, numbers={}, digest=digest)

    def _have(self, name: str, arm: Arm, seed: int) -> Record | None:
        shell = self._shell(name, arm, seed)
        path = record_path(self.out / "records", shell)
        if not path.is_file():
            return None
        record = read_record(path)
        return record if record.digest == shell.digest else None

    def _command_lines(self, arm: Arm, seed: int) -> list[list[str]]:
        lines = []
        for words in arm.commands:
            command = words[0]
            line = [*words, *_left(self.scale.words.get(command, ()), arm.without)]
            steps = self.scale.steps.get(command) if self.steps is None else self.steps
            if steps is not None:
                line += ["--steps", str(steps * arm.steps_factor)]
            line += ["--seed", str(seed)]
            lines.append([word.replace("{data}", str(self.data)).replace("{seed}", str(seed)) for word in line])
        return lines

    def _folder(self, name: str, seed: int, number: int) -> Path:
        return self.out / "runs" / name / f"seed-{seed:03d}" / str(number + 1)


def _left(words: Sequence[str], without: Sequence[str]) -> list[str]:
    """The words without the options named in `without` and the value behind each."""
    return [
        word for place, word in enumerate(words) if word not in without and not (place and words[place - 1] in without)
    ]


def rows(reproduction: Reproduction, records: Sequence[Record]) -> list[list[str]]:
    """Table rows: arm, each number as mean ± deviation over seeds, cost, seconds; then the reference rows."""
    found = []
    numbers = reproduction.numbers
    for name, arm in reproduction.arms.items():
        own = [record for record in records if record.arm == name]
        cells = [_cell(own, name, number) for number in numbers]
        seconds = sum(record.seconds for record in own) / max(len(own), 1)
        found.append([name, *cells, f"{arm.cost:g}", f"{seconds:.0f}"])
    for reference in getattr(reproduction.arms_module, "REFERENCES", ()):
        shown = next((number for number in numbers if number.label == reference.column), None)
        values = [
            record.numbers[reference.number] for record in records if record.numbers.get(reference.number) is not None
        ]
        if shown is not None and values:
            mean = sum(value for value in values if value is not None) / len(values)
            found.append(
                [
                    reference.row,
                    *(f"{mean:.{shown.decimals}f}" if number is shown else "" for number in numbers),
                    "",
                    "",
                ]
            )
    return found


def columns(reproduction: Reproduction) -> list[str]:
    """Headings that fit `rows`."""
    return ["arm", *(f"{number.label} {number.unit}".strip() for number in reproduction.numbers), "cost", "s"]


def report(reproduction: Reproduction, records: Sequence[Record]) -> str:
    """The table, and the paired differences from the baseline where there are several seeds."""
    count = len(reproduction.seeds)
    title = f"{reproduction.package}, {reproduction.scale.experiment}, {count} seed{'s' if count > 1 else ''}. {reproduction.scale.note}"
    parts = [title, table(columns(reproduction), rows(reproduction, records))]
    baseline = reproduction.arms_module.BASELINE
    if count == 1:
        parts.append("One seed: these rows show that the method runs; they are no claim that one arm is better.")
    elif baseline in reproduction.arms:
        lines = [
            [
                name,
                number.label,
                difference_text(paired_difference(records, arm=name, baseline=baseline, number=number.name)),
            ]
            for name in reproduction.arms
            if name != baseline
            for number in reproduction.numbers
            if all(_has(records, arm, number) for arm in (name, baseline))
        ]
        parts.append(f"Paired differences from {baseline}, mean ± half-width of the 95 % interval over seeds:")
        parts.append(table(["arm", "number", "difference"], lines))
    return "\n".join(parts)


def _has(records: Sequence[Record], arm: str, number: Number) -> bool:
    return any(record.arm == arm and record.numbers.get(number.name) is not None for record in records)


def _cell(own: Sequence[Record], name: str, number: Number) -> str:
    if not _has(own, name, number):
        return ""
    mean, deviation, _ = summary(own, arm=name, number=number.name)
    text = f"{mean:.{number.decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:.{number.decimals}f}"
