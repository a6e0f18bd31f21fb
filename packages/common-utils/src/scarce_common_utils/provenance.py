"""Where a file comes from: the command line with each path cut to its last name, the data's digest, versions.

`run_commands` says which command is under way, `check_split` which data; whoever writes a file within it asks `stamp`. Outside a
command, as in a library's use, nothing is known and nothing is said. No path, host or user is ever part of it.
"""

import contextlib
import functools
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import PurePath
from typing import Any

_ELSEWHERE = ("hf:", "torchvision:")  # names of data sets, which are no paths


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """`package` whose command runs, its `command_line`, and the `data_digest`, empty where no data were read yet."""

    package: str
    command_line: str
    data_digest: str = ""


_current: ContextVar[Provenance | None] = ContextVar("provenance", default=None)


def cut_line(name: str, words: Sequence[str]) -> str:
    """A command line as one may publish it: each path cut to its last name.

    Example:
        >>> cut_line("imwa", ["train", "/home/me/photos/", "--out=runs/a b", "--barrier", "0,last"])
        "imwa train photos '--out=a b' --barrier 0,last"
    """
    return shlex.join([name, *(_cut_word(word) for word in words)])


def last_name(text: str) -> str:
    """The last name of a path; of other text itself."""
    if text.startswith(_ELSEWHERE):
        return text
    return PurePath(text.replace("\\", "/")).name or text


def versions(package: str) -> dict[str, str]:
    """Versions of `package`, of common-utils, of torch and numpy, and of what else is loaded and decides numbers."""
    loaded = [name for name in ("torchvision", "transformers", "accelerate", "datasets") if name in sys.modules]
    found: dict[str, str] = {}
    for name in (package, "scarce-common-utils", "torch", "numpy", *loaded):
        with contextlib.suppress(metadata.PackageNotFoundError):  # a program that is no distribution
            found[name] = _version(name)
    return found


@functools.cache  # asked for at every file of a run, and each answer reads the distribution's metadata
def _version(distribution: str) -> str:
    return metadata.version(distribution)


def data_digest_of(split: Mapping[str, Any]) -> str:
    """SHA-256, first 16 hexadecimal digits, of what `split.json` holds: digests of the data, and which rows are used for what."""
    return hashlib.sha256(json.dumps(split, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def command_under_way(package: str, words: Sequence[str]) -> Iterator[None]:
    """Within the block files say that they come from this command."""
    token = _current.set(Provenance(package=package, command_line=cut_line(package, words)))
    try:
        yield
    finally:
        _current.reset(token)


def tell_data(digest: str) -> None:
    """From here on files say that they come from these data."""
    _change(data_digest=digest)


def tell_line(line: str) -> None:
    """From here on files say that they come from this command line: that of the run that is gone on with."""
    _change(command_line=line)


def current_line() -> str:
    """The command line of the command under way; empty outside one."""
    now = _current.get()
    return "" if now is None else now.command_line


def current_data() -> str:
    """The digest of the data of the command under way; empty where none is known."""
    now = _current.get()
    return "" if now is None else now.data_digest


def stamp() -> dict[str, Any]:
    """What a JSON file says of its origin: `command_line`, `data_digest`, `versions`; nothing outside a command."""
    now = _current.get()
    if now is None:
        return {}
    return {"command_line": now.command_line, "data_digest": now.data_digest, "versions": versions(now.package)}


def stamp_lines() -> dict[str, str]:
    """The same as short texts, for the text chunks of a picture and the lines of a card."""
    now = _current.get()
    if now is None:
        return {}
    found = ", ".join(f"{name} {version}" for name, version in versions(now.package).items())
    return {"Command": now.command_line, "Data digest": now.data_digest or "none", "Versions": found}


def _change(**values: str) -> None:
    now = _current.get()
    if now is not None:
        _current.set(replace(now, **values))


def _cut_word(word: str) -> str:
    head, joined, tail = word.partition("=") if word.startswith("-") else ("", "", word)
    return head + joined + ",".join(last_name(part) for part in tail.split(","))
