"""A run folder as `doctor` and `show` read it: what was asked, what was measured, how far it came. Nothing is written.

finished   every step done and its result written      (`result.json`; of a run over several tasks `table.md`)
running    a process that holds the folder is there
killed     the process that held it is gone and left its name behind: kill -9, out of memory, power
stopped    it gave the folder back before the end: a signal, or an error that it told
A process on another machine that shares the folder cannot be seen from here and counts as gone.
"""

import json
import math
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from scarce_common_utils.errors import UserError
from scarce_common_utils.locks import HOLDER

State = Literal["finished", "running", "killed", "stopped"]
Lines = list[dict[str, Any]]
_CHECKPOINT = re.compile(r"^step-(\d{8,})(\.pt)?$")
_END = ("result.json", "table.md")


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        path: its folder.
        package, command: whose it is.
        options: as config.json holds them.
        versions: distribution -> version that it began with; empty where environment.json cannot be read.
        lines: of metrics.jsonl, in order.
        broken_lines: numbers, from 1, of lines that are no JSON; a last line without its end, as a kill leaves it, is none.
        result: of result.json, empty before the end.
        process: that holds the folder, or held it and is gone, None where it was given back.
    """

    path: Path
    package: str
    command: str
    options: dict[str, Any]
    versions: dict[str, str]
    lines: Lines
    broken_lines: list[int]
    result: dict[str, Any]
    process: int | None

    @property
    def state(self) -> State:
        """How far it came (module docstring)."""
        if any((self.path / name).is_file() for name in _END):
            return "finished"
        if self.process is None:
            return "stopped"
        return "running" if _is_there(self.process) else "killed"

    @property
    def done(self) -> int:
        """Optimizer steps that metrics.jsonl speaks of, over all replicas; 0 where it has no line."""
        return max((line["step"] + 1 for line in self.lines), default=0)

    @property
    def seconds(self) -> float | None:
        """That it took: of its result, or of its sittings so far where the command keeps them; None where neither is there."""
        if is_number(self.result.get("seconds")):
            return float(self.result["seconds"])
        sittings = self.file("sittings.json")
        return sum(filter(is_number, sittings)) if isinstance(sittings, list) else None

    @cached_property
    def checkpoints(self) -> list[Path]:
        """Checkpoints, the newest first; of several processes each has its own."""
        folder = self.path / "checkpoints"
        found = (*folder.glob("step-*"), *folder.glob("process-*/step-*"))
        return sorted((path for path in found if _CHECKPOINT.match(path.name)), key=step_of, reverse=True)

    def values(self, name: str) -> list[float]:
        """Finite values of one number of the metrics, in order."""
        return [line[name] for line in self.lines if is_number(line.get(name))]

    def number(self, name: str) -> float | None:
        """One number of the result, None where it has none."""
        value = self.result.get("numbers", {}).get(name)
        return float(value) if is_number(value) else None

    def file(self, name: str) -> Any:
        """Content of another JSON file of the run, None where it is missing or damaged."""
        return _json(self.path / name)


def read_run(path: Path, *, package: str, word: str) -> Run:
    """Look into a run folder.

    Args:
        path: the folder, or the `model` folder in it.
        package: whose command asks.
        word: what asks: `doctor` or `show`.

    Raises:
        UserError: there is no run, or it is one of another package; the path is named.
    """
    if path.name == "model" and (path.parent / "config.json").is_file():
        path = path.parent
    if not path.is_dir():
        raise UserError(f"{path} is no folder. Give {package} {word} the run folder that a command named at its end.")
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json, so it is no run folder. Give {package} {word} that of a run.")
    config = _json(path / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("options"), dict) or "package" not in config:
        raise UserError(f"{path / 'config.json'} cannot be read as a run's configuration. The run folder is not whole.")
    if config["package"] != package:
        other = config["package"]
        raise UserError(
            f"{path} is a run of `{other} {config.get('command')}`. Look at it with `{other} {word}`; a run of another method has "
            "other numbers."
        )
    lines, broken = _metrics(path / "metrics.jsonl")
    environment, result, holder = (_json(path / name) for name in ("environment.json", "result.json", HOLDER))
    return Run(
        path=path,
        package=package,
        command=str(config.get("command")),
        options=config["options"],
        versions=environment.get("versions", {}) if isinstance(environment, dict) else {},
        lines=lines,
        broken_lines=broken,
        result=result if isinstance(result, dict) else {},
        process=holder.get("process") if isinstance(holder, dict) else None,
    )


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done, read off a checkpoint's name."""
    match = _CHECKPOINT.match(checkpoint.name)
    assert match is not None
    return int(match.group(1))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metrics(file: Path) -> tuple[Lines, list[int]]:
    """Lines of metrics.jsonl, and the numbers of those that cannot be read."""
    if not file.is_file():
        return [], []
    lines: Lines = []
    broken: list[int] = []
    for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], 1):
        try:
            line = json.loads(text)
            lines.append(line | {"step": int(line["step"])})
        except (ValueError, KeyError, TypeError):
            broken.append(number)
    return lines, broken


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_there(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, TypeError):
        return True  # it is another user's
    return True
