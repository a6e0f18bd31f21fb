"""From a command's dataclass to its flags, its errors and its exit code: the one place that knows the library (cyclopts).

A command is a function `(config) -> result` whose one parameter is a frozen, keyword-only dataclass. Each field is an
`Annotated[type, Option("help", ...)]`; a field marked with `Operands` takes what stands without a flag. The result is a dict of
JSON values, for `--json`, or None. Every command has `--json` and `--quiet` besides its own options (`manners`). What a person
got wrong ends as one plain line on standard error and exit code 2, before anything is written.
"""

import dataclasses
import difflib
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from scarce_common_utils.errors import UserError
from scarce_common_utils.flags import Operands as Operands
from scarce_common_utils.flags import Option as Option
from scarce_common_utils.manners import Manners, Result, with_manners
from scarce_common_utils.provenance import command_under_way
from scarce_common_utils.signals import Stopped, raised_on_terminate
from scarce_common_utils.watch import dead_worker, watched

Config = TypeVar("Config")
_PARSE_ERRORS = 2
NOT_STORED = frozenset(
    {"resume", "config", "given", "inherited"}
)  # fields that say how a run was started, not what it is
_MAY_ALWAYS_CHANGE = ("licence", "push_to_hub")  # of the written model: no number comes from them
# What does not count as a change of the run that --config names: where it is written, where it computes, what becomes of it.
_CHANGES_NOTHING = frozenset({"config", "out", "device", *_MAY_ALWAYS_CHANGE})


class Command(NamedTuple):
    """`function` does the work; `config` is its dataclass; `hints` answers option names of other projects with ours.

    `mannered`: whether it has `--json` and `--quiet`; a tool with a `--json FILE` of its own has not.
    """

    function: Callable[[Any], Result]
    config: type
    hints: Mapping[str, str] = {}
    mannered: bool = True


def run_commands(name: str, version: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Parse `argv` (None: the process's own), run the command, and return the exit code.

    It is 0 at the end; 2 for a person's mistake, a file that cannot be read or written, or a process of the run that was lost;
    130 and 143 for a run that Ctrl-C or SIGTERM stopped.

    Args:
        name: the program's name.
        version: what `--version` prints.
        commands: command name -> Command; the function's docstring is its help.
        argv: words after the program's name.
    """
    from cyclopts import App
    from cyclopts.exceptions import CycloptsError

    asked = list(sys.argv[1:] if argv is None else argv)
    words = ["./-" if word == "-" else word for word in asked]  # cyclopts would take a bare "-" for an option
    app = App(
        name=name,
        version=version,
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,  # the sentence and the exit code below are ours
        result_action="return_value",
        help_format="plaintext",
    )
    for command_name, command in commands.items():
        app.command(_adapter(command, words, program=name, name=command_name), name=command_name)
    app.register_install_completion_command(help="Install completion for this shell (--shell, --output FILE).")
    try:
        with raised_on_terminate(), watched(name), command_under_way(name, asked):
            app(words)
    except CycloptsError as error:
        print(f"{name}: {_sentence(error, words, name=name, commands=commands)}", file=sys.stderr)
        return _PARSE_ERRORS
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return _PARSE_ERRORS
    except (KeyboardInterrupt, Stopped) as stop:
        stopped = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        kept = stopped.kept or "With --resume and its run folder the run goes on from its last checkpoint."
        print(f"{name}: stopped by {stopped.signal.name}. {kept}", file=sys.stderr)
        return stopped.exit_code
    except (RuntimeError, OSError, EOFError) as error:
        sentence = dead_worker(error)
        if sentence is not None:
            print(f"{name}: {sentence}", file=sys.stderr)
            return _PARSE_ERRORS
        if isinstance(error, BrokenPipeError):
            return 0
        if not isinstance(error, OSError) or error.filename is None:
            raise  # not of a file that a person could do anything about
        print(f"{name}: {error.filename}: {error.strerror}. What was written before stays as it is.", file=sys.stderr)
        return _PARSE_ERRORS
    return 0


def given_options(config: type, argv: Sequence[str]) -> frozenset[str]:
    """Names of the fields of `config` whose flags stand in `argv`, however they are spelt (`--a-b=1`, `--no-a-b`)."""
    words = {word.split("=", 1)[0][2:].replace("_", "-") for word in argv if word.startswith("--")}
    names = {field.name: field.name.replace("_", "-") for field in dataclasses.fields(config)}
    return frozenset(field for field, flag in names.items() if flag in words or f"no-{flag}" in words)


def plain_config(config: Any) -> dict[str, Any]:
    """Fields of a configuration as JSON values: paths as strings, tuples as lists; what says how it was started left out.

    Operands that are existing paths are made absolute.
    """
    fields = (field.name for field in dataclasses.fields(config) if field.name not in NOT_STORED)
    return {name: _stored(config, name) for name in fields}


def resumed_config(config: Config, stored: Mapping[str, Any], *, may_change: Collection[str] = ()) -> Config:
    """Configuration of a resumed run: the stored one, with what the person may change taken from `config`.

    Args:
        config: as parsed, with `given` naming the options that the person wrote.
        stored: options of the earlier run, as `plain_config` wrote them.
        may_change: names of fields that change no number of the run, such as `device` or `workers`.

    Raises:
        UserError: an option was given that differs from the stored one and would change the result; or the stored
            options do not fit this version's; the option is named.
    """
    _refuse_unknown(config, stored)
    hints = get_type_hints(type(config))
    values: dict[str, Any] = {}
    for name, value in stored.items():
        now = _stored(config, name)
        if name in config.given:  # type: ignore[attr-defined]  # part of RunOptions
            if name in may_change or name in _MAY_ALWAYS_CHANGE:
                continue
            if now == value:
                values[name] = _revive(value, hints[name])
                continue
            flag = "DATA" if name in ("data", "genome", "train") else "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} is {now!r}, but the run to resume has {value!r}, and another value would change its result. "
                f"Leave {flag} out, or start a new run."
            )
        values[name] = _revive(value, hints[name])
    return dataclasses.replace(config, **values)  # type: ignore[type-var]  # a dataclass instance by contract


def configured(config: Config, stored: Mapping[str, Any], *, written: Collection[str]) -> Config:
    """Configuration of a new run as another one had it; what the person wrote now comes first.

    Where that changes the run, an option whose default is worked out from others, and which the person did not write in the other
    run, is worked out again; else all values are the other run's.

    Args:
        config: as parsed, with `given` naming the options that the person wrote.
        stored: options of the other run, as `plain_config` wrote them.
        written: names of those that the person wrote there.

    Raises:
        UserError: the stored options do not fit this version's; the option is named.
    """
    _refuse_unknown(config, stored)
    hints = get_type_hints(type(config))
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]  # a dataclass instance
    given: frozenset[str] = config.given  # type: ignore[attr-defined]  # part of RunOptions
    changed = bool(given - _CHANGES_NOTHING)
    kept = {
        name: _revive(value, hints[name])
        for name, value in stored.items()
        if name not in given
        and name not in ("out", "push_to_hub")
        and not (changed and name not in written and fields[name].default is None)
    }
    inherited = frozenset(written) & kept.keys()
    return dataclasses.replace(config, **kept, config=None, inherited=inherited)  # type: ignore[type-var]  # the same


def _refuse_unknown(config: Any, stored: Mapping[str, Any]) -> None:
    unknown = sorted(set(stored) - {field.name for field in dataclasses.fields(config)})
    if unknown:
        raise UserError(
            f"The run folder's configuration has the option {unknown[0]!r}, which this version does not know."
        )


def _of_another_run(config: Any, *, program: str, name: str) -> Any:
    """The configuration with what `--config RUN` brings."""
    from scarce_common_utils.run_folder import RunFolder  # loads torch, which a command's help does without

    if config.resume is not None:
        raise UserError(
            f"--config is {config.config} and --resume is {config.resume}. --resume goes on with a run, --config begins it "
            "anew: give one of them."
        )
    run = RunFolder.reopen(config.config, package=program, command=name, flag="--config")
    return configured(config, run.config, written=run.given)


def _adapter(command: Command, words: Sequence[str], *, program: str, name: str) -> Callable[..., None]:
    """Function with the signature that cyclopts reads: operands by position, the dataclass flattened into flags."""
    from cyclopts import Parameter

    flags, operands = _annotated(command.config)
    given = given_options(command.config, words)

    def finish(config: Any, found: Any, manners: Manners | None) -> None:
        config = command.config() if config is None else config
        values: dict[str, Any] = {"given": given}
        if operands is not None and found:
            values |= {operands[0]: found, "given": given | {operands[0]}}
        config = dataclasses.replace(config, **values)
        if getattr(config, "config", None) is not None:
            config = _of_another_run(config, program=program, name=name)
        with_manners(lambda: command.function(config), manners or Manners())

    def several(*found: str, config: Any = None, manners: Any = None) -> None:
        finish(config, found, manners)

    def single(found: str | None = None, /, *, config: Any = None, manners: Any = None) -> None:
        finish(config, found, manners)

    def none(*, config: Any = None, manners: Any = None) -> None:
        finish(config, None, manners)

    function = none if operands is None else several if operands[2] else single
    function.__annotations__["config"] = Annotated[flags, Parameter(name="*")]
    function.__annotations__["manners"] = (
        Annotated[_annotated(Manners)[0], Parameter(name="*")]
        if command.mannered
        else Annotated[Any, Parameter(parse=False)]
    )
    if operands is not None:
        kind = str if operands[2] else str | None
        function.__annotations__["found"] = Annotated[kind, Parameter(name=operands[1].name, help=operands[1].help)]
    function.__doc__ = command.function.__doc__
    return function


def _annotated(config: type) -> tuple[type, tuple[str, Operands, bool] | None]:
    """`config` with each field's Option turned into the library's own Parameter, and its operand field, if any."""
    from cyclopts import Parameter, validators

    operands: tuple[str, Operands, bool] | None = None
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        kind, *extras = (
            get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (hints[field.name],)
        )
        option = next((extra for extra in extras if isinstance(extra, Option)), None)
        operand = next((extra for extra in extras if isinstance(extra, Operands)), None)
        if operand is not None:
            operands = (field.name, operand, get_origin(kind) is tuple)
        if option is None:
            parameter = Parameter(parse=False)
        else:
            text = f"{option.help} [{option.unit}]" if option.unit else option.help
            bounds = {"gte": option.at_least, "lte": option.at_most, "gt": option.above, "lt": option.below}
            bounds = {name: bound for name, bound in bounds.items() if bound is not None}
            parameter = Parameter(
                help=text,
                validator=validators.Number(**bounds) if bounds else None,
                alias=option.short or None,
                negative=None if option.negatable else "",
            )
        hints[field.name] = Annotated[kind, parameter, *extras]
    flags = type(config.__name__, (config,), {"__annotations__": hints, "__module__": __name__})
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            setattr(flags, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            setattr(flags, field.name, dataclasses.field(default_factory=field.default_factory))
    return dataclasses.dataclass(frozen=True, kw_only=True)(flags), operands


def _sentence(error: Exception, words: Sequence[str], *, name: str, commands: Mapping[str, Command]) -> str:
    """The library's message as one sentence with the mend."""
    text = " ".join(str(error).split())
    command = next((word for word in words if word in commands), None)
    unknown = next((word for word in text.split() if word.startswith("--")), "").rstrip(".,:")
    if command is not None and "Unknown option" in text:
        shared = dataclasses.fields(Manners) if commands[command].mannered else ()
        fields = (*dataclasses.fields(commands[command].config), *shared)
        known = ["--" + field.name.replace("_", "-") for field in fields]
        hint = commands[command].hints.get(unknown.split("=")[0].lstrip("-").replace("-", "_"))
        if hint is not None:
            return f"Unknown option: {unknown}. Here it is called {hint}."
        if "Did you mean" not in text:
            near = difflib.get_close_matches(unknown, known, n=1)
            return f"Unknown option: {unknown}. " + (
                f"Did you mean {near[0]}?" if near else f"See `{name} {command} --help`."
            )
    if text.startswith("Unused Tokens"):
        found = text.removeprefix("Unused Tokens: ").strip("[].")
        return f"{found} was not expected here. See `{name} {command or ''} --help`."
    return text


def _stored(config: Any, name: str) -> Any:
    """A field as a JSON value; operands that are existing paths become absolute, so that a resume works from anywhere."""
    value = _plain(getattr(config, name))
    metadata = getattr(get_type_hints(type(config), include_extras=True).get(name), "__metadata__", ())
    if not any(isinstance(extra, Operands) for extra in metadata):
        return value
    texts = value if isinstance(value, list) else [value]
    found = [str(Path(text).resolve()) if text is not None and Path(text).exists() else text for text in texts]
    return found if isinstance(value, list) else found[0]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _revive(value: Any, kind: Any) -> Any:
    """JSON value -> the type of the field: paths and tuples come back as such."""
    kinds = get_args(kind) if get_origin(kind) is not tuple else (kind,)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and get_origin(kind) is not Literal and (kind is Path or Path in kinds):
        return Path(value)
    return value
