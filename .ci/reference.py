"""The reference of commands in each package's README, made from the code: every option, its values, its default, its help.

`python .ci/reference.py` writes it between its two marks; with `--check` nothing is written, and a stale one ends with exit code 1.
Run with the four packages installed.
"""

import dataclasses
import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from scarce_common_utils import command_line
from scarce_common_utils.command_line import Command
from scarce_common_utils.flags import Operands, Option
from scarce_common_utils.manners import Manners

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("layermatch", "imwa", "randommask")
BEGIN = "<!-- reference: made by .ci/reference.py, not by hand -->"
END = "<!-- end of the reference -->"


def commands_of(package: str) -> dict[str, Command]:
    """The commands that a package's `main` hands over, by name."""
    found: dict[str, Command] = {}

    def keep(name: str, version: str, commands: dict[str, Command], argv: Any = None) -> int:
        found.update(commands)
        return 0

    before = command_line.run_commands
    command_line.run_commands = keep
    try:
        import_module(f"{package}.commands").main([])
    finally:
        command_line.run_commands = before
    return found


def reference(package: str) -> str:
    """The whole section in Markdown, without its marks."""
    commands = commands_of(package)
    common = "".join(_row(field, hint) for field, hint in _options(Manners))
    lines = [
        f"Every command has `--help` and these; `{package} --version` prints the version, `{package} --install-completion` sets up "
        f"completion for bash, zsh, fish or PowerShell.\n\n{_table(common)}"
    ]
    return "\n".join([*lines, *(_section(package, name, commands) for name in commands)])


def _section(package: str, name: str, commands: dict[str, Command]) -> str:
    command = commands[name]
    options, operand = dict(_named(_options(command.config))), _operand(command.config)
    text = (command.function.__doc__ or "").strip().splitlines()[0]
    title = f"### `{package} {name}{'' if operand is None else ' ' + operand.name}`\n\n{text}\n"
    if operand is not None:
        title += f"\n{operand.name}: {operand.help}.\n"
    parents = {
        other: dict(_named(_options(found.config)))
        for other, found in commands.items()
        if other != name and issubclass(command.config, found.config)
    }
    if parents:
        theirs = set().union(*parents.values())
        gone = ", ".join(f"`{_flag(field)}`" for field in sorted(theirs - options.keys()))
        options = {field: row for field, row in options.items() if all(row != of.get(field) for of in parents.values())}
        names = " and of ".join(f"`{package} {parent}`" for parent in parents)
        title += (
            f"\nIt has the options of {names}{f' (but {gone})' if gone else ''}{', and these:' if options else '.'}\n"
        )
    rows = "".join(options.values())
    return f"{title}\n{_table(rows)}" if rows else title


def _named(options: list[tuple[Any, Any]]) -> list[tuple[str, str]]:
    return [(field.name, _row(field, hint)) for field, hint in options]


def _options(config: type) -> list[tuple[Any, Any]]:
    """Fields that are flags, with their annotations, the command's own before those that it shares."""
    hints = get_type_hints(config, include_extras=True)
    own = [field for field in dataclasses.fields(config) if field.name in inspect.get_annotations(config)]
    shared = [field for field in dataclasses.fields(config) if field not in own]
    return [(field, hints[field.name]) for field in (*own, *shared) if _extra(hints[field.name], Option) is not None]


def _operand(config: type) -> Operands | None:
    hints = get_type_hints(config, include_extras=True)
    return next((found for hint in hints.values() if (found := _extra(hint, Operands)) is not None), None)


def _extra(hint: Any, kind: type) -> Any:
    if get_origin(hint) is not Annotated:
        return None
    return next((extra for extra in get_args(hint)[1:] if isinstance(extra, kind)), None)


def _row(field: Any, hint: Any) -> str:
    option = _extra(hint, Option)
    values = _values(get_args(hint)[0])
    flag = f"`{_flag(field.name)}`" + (f", `{option.short}`" if option.short else "")
    if values == "yes or no" and option.negatable:
        flag += f", `--no-{field.name.replace('_', '-')}`"
    text = f"{option.help} [{option.unit}]" if option.unit else option.help
    return f"| {flag} | {'' if values == 'yes or no' else values} | {_default(field)} | {text.replace('|', chr(92) + '|')} |\n"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _values(kind: Any) -> str:
    """What a flag takes, in words."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"{_values(get_args(kind)[0])} ..."
    kinds = [one for one in get_args(kind) if one is not type(None)]
    if kinds:
        return _values(kinds[0])
    return {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}.get(kind, "text")


def _default(field: Any) -> str:
    value = field.default
    if value is None or value == () or value is dataclasses.MISSING:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"`{value}`"


def _table(rows: str) -> str:
    return f"| option | takes | default | what |\n|---|---|---|---|\n{rows}"


def readme_of(package: str) -> Path:
    """The package's README."""
    return ROOT / "packages" / package / "README.md"


def renewed(package: str) -> str:
    """The README's text with the reference of today's code."""
    text = readme_of(package).read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{readme_of(package)} has not the two marks {BEGIN} and {END}, once each.")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{reference(package)}\n{END}{rest.partition(END)[2]}"


def stale() -> list[str]:
    """Packages whose README has not the reference of today's code."""
    return [package for package in PACKAGES if renewed(package) != readme_of(package).read_text(encoding="utf-8")]


def main(words: list[str]) -> int:
    """Write the sections, or only say which are stale."""
    found = stale()
    if "--check" in words:
        for package in found:
            print(
                f"packages/{package}/README.md: the reference is stale. Run: python .ci/reference.py", file=sys.stderr
            )
        return 1 if found else 0
    for package in found:
        readme_of(package).write_text(renewed(package), encoding="utf-8")
        print(f"packages/{package}/README.md: written anew")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
