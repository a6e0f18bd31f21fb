"""What every command does alike in a shell: `--json`, `--quiet`.

--json    standard output holds the command's result as one JSON object on one line, and nothing else
--quiet   standard error holds errors alone: no progress, no notices
"""

import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from scarce_common_utils.flags import Option

Result = Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Manners:
    """Options of every command."""

    json: Annotated[
        bool, Option("Print the result as one JSON object, and nothing else, on standard output", negatable=False)
    ] = False
    quiet: Annotated[
        bool, Option("Print no progress and no notices; errors still come on standard error", negatable=False)
    ] = False


def with_manners(work: Callable[[], Result], manners: Manners) -> None:
    """Do a command's work, and print its result as JSON where that was asked for.

    A command that has no result of its own gives what it would have printed, as `text`. Of several processes the first one prints.
    """
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        if manners.quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        if manners.json:
            stack.enter_context(contextlib.redirect_stdout(printed))
        result = work()
    if manners.json and os.environ.get("RANK", "0") == "0":
        print(json.dumps(as_json({"text": printed.getvalue()} if result is None else result)))


def as_json(value: Any) -> Any:
    """Value of JSON alone: paths as text, tuples as lists, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
