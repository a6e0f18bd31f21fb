"""The folder of one run: what was asked, on what it ran, what was measured, and everything that it made.

config.json  environment.json  metrics.jsonl  result.json  checkpoints/  figures/  model/      (and files of the command, such
as split.json). Every file but metrics.jsonl is written atomically; a metrics line is one JSON object with `step`. Nothing in
it names the host, the user or a path outside the run, apart from the data that the person named.
"""

import hashlib
import itertools
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError
from scarce_common_utils.locks import HOLDER, LOCK, Hold, hold
from scarce_common_utils.provenance import current_line, versions
from scarce_common_utils.records import Record, write_record

# What a run may change without changing its numbers; left out of the configuration's digest.
_NOT_IN_DIGEST = (
    "out", "resume", "device", "workers", "in_memory", "download", "tracker", "checkpoint_every", "keep_checkpoints",
    "licence", "push_to_hub",
)  # fmt: skip


class RunFolder:
    """One run's folder, made by `create` or taken up again by `reopen`.

    One process writes there at a time: `create` takes the lock, `hold` takes it for a folder that was reopened, and `with run:`
    gives it back at the block's end.

    Attributes: `path`, `config` (plain JSON values), `command`, `package`, `given` (options that the person wrote), `line` (the
    command line that began the run, each path cut to its last name), and the paths `checkpoints`, `figures`, `model`,
    `metrics_file`.
    """

    def __init__(
        self,
        path: Path,
        *,
        package: str,
        command: str,
        config: dict[str, Any],
        given: Collection[str] = (),
        line: str = "",
    ):
        self.path = path
        self.package = package
        self.command = command
        self.config = config
        self.given = frozenset(given)
        self.line = line
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"
        self.model = path / "model"
        self.metrics_file = path / "metrics.jsonl"
        self._hold: Hold | None = None

    def hold(self) -> None:
        """Take the right to write into the folder.

        Raises:
            UserError: another process has it, or nothing can be written there.
        """
        if self._hold is None:
            self._hold = hold(self.path)

    def close(self) -> None:
        """Let others write into the folder; a second call does nothing."""
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """What another process of the run gets: everything but the lock, which stays with its holder."""
        return {**self.__dict__, "_hold": None}

    @classmethod
    def create(
        cls,
        out: Path | None,
        *,
        default_name: str,
        package: str,
        command: str,
        config: dict[str, Any],
        given: Collection[str] = (),
    ) -> "RunFolder":
        """Make the folder and write what was asked and where it runs.

        Args:
            out: the folder that the person named, which must be new or empty; None takes `runs/<default_name>`, with
                `-2`, `-3` and so on behind it where that name is taken.
            default_name: name of the folder when none was given.
            package: distribution whose version is recorded.
            command: the command's name, checked by `reopen`.
            config: resolved configuration, plain JSON values.
            given: names of the options that the person wrote, which `--config` tells from those that were worked out.

        Raises:
            UserError: `out` holds something, is a file, is in use, or cannot be written into.
        """
        where = environment(package)
        path = _made_folder(Path("runs") / default_name) if out is None else out
        refuse_used_folder(path)
        make_folder(path)
        run = cls(path, package=package, command=command, config=config, given=given, line=current_line())
        run.hold()
        refuse_used_folder(path)  # again: of two runs that came here at once, one holds it now
        # First what a resume needs: a run that is killed before it is there has to be started again in another folder.
        content = {"package": package, "command": command, "command_line": run.line, "given": sorted(run.given)}
        run.write_json("config.json", content | {"options": config})
        run.write_json("environment.json", where)
        run.figures.mkdir(exist_ok=True)
        return run

    @classmethod
    def reopen(cls, path: Path, *, package: str, command: str, flag: str = "--resume") -> "RunFolder":
        """Take up an earlier run's folder.

        Args:
            path: the folder.
            package: distribution of the command.
            command: its name.
            flag: the option that named the folder, for the errors.

        Raises:
            UserError: the folder is missing, has no readable config.json, or belongs to another command.
        """
        file = path / "config.json"
        if not path.is_dir():
            raise UserError(f"{path} is no folder. Give {flag} the run folder that an earlier run named at its end.")
        if not file.is_file():
            raise UserError(
                f"{path} holds no config.json, so it is no run folder. Give {flag} the folder of an earlier run."
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = (content["package"], content["command"])
            config = dict(content["options"])
            given = content.get("given", config.keys())  # a run of an earlier version: all of them count
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{file} cannot be read as a run's configuration ({error}).") from error
        if found != (package, command):
            raise UserError(f"{path} is a run of `{found[0]} {found[1]}`, not of `{package} {command}`.")
        line = str(content.get("command_line", ""))
        return cls(path, package=package, command=command, config=config, given=given, line=line)

    @property
    def digest(self) -> str:
        """SHA-256, first 16 hexadecimal digits, of the options that decide the run's numbers."""
        return config_digest(self.config)

    def log(self, step: int, **numbers: float) -> None:
        """Append one line to metrics.jsonl; not-a-number and infinity are written as null, which JSON can hold."""
        plain = {name: (value if math.isfinite(value) else None) for name, value in numbers.items()}
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **plain}) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl, in order; a last line that was cut short is left out."""
        if not self.metrics_file.is_file():
            return []
        try:
            lines = self.metrics_file.read_text(encoding="utf-8").split("\n")
            found = [json.loads(line) for line in lines[:-1] if line]
            if not all(isinstance(line["step"], int) for line in found):
                raise TypeError("a step is no whole number")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self.metrics_file} cannot be read ({error}). The run folder is not whole.") from error
        return found

    def cut_metrics(self, step: int) -> None:
        """Drop the lines of `step` and later, which a resumed run writes again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] < step]
        write_atomically(self.metrics_file, "".join(kept).encode())

    def write_json(self, name: str, content: Any) -> Path:
        """Write `content` as the file `name` of the run, atomically."""
        path = self.path / name
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        return path

    def read_json(self, name: str) -> Any:
        """Content of a JSON file of the run.

        Raises:
            UserError: the file is missing or no JSON; it is named.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({error}). The run folder is not whole.") from error

    def write_result(self, record: Record) -> Path:
        """Write the run's record as result.json, atomically."""
        return write_record(self.path / "result.json", record)


def refuse_used_folder(path: Path) -> None:
    """Raise a UserError where `path` is a file or a folder that holds anything.

    Commands call it before they read any data, so that a run of hours is not begun for a folder that cannot be used.
    """
    if path.is_file():
        raise UserError(f"--out is {path}, which is a file. Name a new folder.")
    if path.is_dir() and any(file.name not in (LOCK, HOLDER) for file in path.iterdir()):
        instead = f", or go on with it by --resume {path}" if (path / "config.json").is_file() else ""
        raise UserError(
            f"--out is {path}, which already holds files; nothing there is touched. Name a new folder{instead}."
        )


def config_digest(config: dict[str, Any]) -> str:
    """SHA-256, first 16 hexadecimal digits, of the options that decide a run's numbers."""
    kept = {name: value for name, value in config.items() if name not in _NOT_IN_DIGEST}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def environment(package: str) -> dict[str, Any]:
    """Versions, threads and device of this process; no host, user or path."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(package),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
        "cuda": torch.version.cuda if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def to_stderr(sentence: str) -> None:
    """Print one line for the person, on standard error: the `report` of long work in commands."""
    print(sentence, file=sys.stderr, flush=True)


Report = Callable[[str], None]


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: it cannot be made; the reason is given.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out is {path}, which cannot be made ({error.strerror or error}). Name a folder that can."
        ) from error


def _made_folder(path: Path) -> Path:
    """A new folder of that name, or of the first free one with `-2`, `-3` and so on behind it."""
    make_folder(path.parent)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()  # at once the test and the making, so that two runs never get the same
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{candidate} cannot be made ({error.strerror or error}). Name a folder that can by --out."
            ) from error
        return candidate
    raise AssertionError("the numbers do not end")
