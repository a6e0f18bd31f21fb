"""How every command begins, goes on after a stop, and ends: the same refusals and the same record in each.

run, config = begin(config, package="imwa", command="train", may_change=("device",))     nothing is written yet
... build everything from `config`, refusing what cannot work ...
run = run or RunFolder.create(...)
check_split(run, split, place=...)                                                        the data are still the same
load_newest(run, state.load_state_dict)                                                   the newest whole checkpoint
"""

import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint
from scarce_common_utils.command_line import resumed_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.hub import push_model, refuse_push
from scarce_common_utils.options import RunOptions
from scarce_common_utils.provenance import current_data, data_digest_of, tell_data, tell_line, versions
from scarce_common_utils.records import Record
from scarce_common_utils.run_folder import RunFolder, refuse_used_folder, to_stderr

Config = TypeVar("Config", bound=RunOptions)


def begin(
    config: Config, *, package: str, command: str, may_change: Collection[str]
) -> tuple[RunFolder | None, Config]:
    """The run folder to go on with, held, and its options, or None and the options as given; nothing of a run is written.

    Args:
        config: as parsed.
        package: distribution of the command.
        command: its name.
        may_change: options that may differ from the earlier run's without changing its numbers.

    Raises:
        UserError: `--out` holds something, `--resume` is no run of this command or in use, an option would change its result, or
            the model could not be pushed.
    """
    if config.resume is None:
        if config.out is not None:
            refuse_used_folder(config.out)
        refuse_push(getattr(config, "push_to_hub", None))
        return None, config
    if "out" in config.given:
        raise UserError(f"--out is {config.out}, but a resumed run goes on in its own folder. Leave --out out.")
    run = RunFolder.reopen(config.resume, package=package, command=command)
    resumed = resumed_config(config, run.config, may_change=may_change)
    refuse_push(getattr(resumed, "push_to_hub", None))
    run.hold()
    if run.line:
        tell_line(run.line)
    return run, resumed


def check_split(run: RunFolder, split: Mapping[str, Any], *, place: str) -> None:
    """Write `split.json` where the run has none yet, else compare; and tell the person where the run is.

    Args:
        run: the run.
        split: plain JSON values that the data and the options decide.
        place: where the data are, for the error.

    Raises:
        UserError: the data are no longer those that the run began with.
    """
    to_stderr(f"{run.package}: run folder {run.path}")
    tell_data(data_digest_of(split))
    file = run.path / "split.json"
    if not file.is_file():  # a new run, or one that was killed before its first step
        run.write_json(file.name, split)
    elif run.read_json(file.name) != split:
        raise UserError(
            f"The data in {place} are not what {file} was made from. Bring them back to what they were, or start a new run."
        )


def load_newest(run: RunFolder, load: Callable[[dict[str, Any]], None]) -> bool:
    """Give the newest checkpoint of the run that is whole and fits, if there is one, to `load`; others are named and passed over.

    Raises:
        UserError: there are whole checkpoints, and none fits what was built; the newest is named.
    """
    path = newest_checkpoint(run.checkpoints, to_stderr)
    refused: list[UserError] = []
    while path is not None:
        try:
            state = load_checkpoint(path)
            load(state)
        except (ValueError, RuntimeError, KeyError) as error:
            refused.append(UserError(f"{path} does not fit this run: {str(error).splitlines()[0]}"))
            path = newest_checkpoint(run.checkpoints, to_stderr, before=path)
        else:
            for sentence in refused:
                to_stderr(f"{sentence} The checkpoint before it is used.")
            return True
    if refused:
        raise UserError(f"{refused[0]} Start a new run.")
    return False


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch compute with `count` threads within the block; None leaves its choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def record_of(
    run: RunFolder,
    *,
    experiment: str,
    arm: str,
    seed: int,
    numbers: dict[str, float | None],
    units: dict[str, str],
    seconds: float,
    device: torch.device,
) -> Record:
    """Record of a finished run: what was measured, with the digest of its options, versions, threads and device."""
    return Record(
        experiment=experiment,
        arm=arm,
        seed=seed,
        numbers=numbers,
        units=units,
        digest=run.digest,
        command_line=run.line,
        data_digest=current_data(),
        versions=versions(run.package),
        seconds=seconds,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )


def delivered(run: RunFolder, *, push_to_hub: str | None) -> dict[str, Any]:
    """What `--json` prints of a finished run: its folder, its record, where figures and model lie; the model is pushed if wanted.

    Raises:
        UserError: the Hub refuses the model, which stays in the run folder.
    """
    address = push_model(run.model, push_to_hub)
    if address is not None:
        print(f"Hub: {address}")
    return {
        "run": run.path,
        "result": run.read_json("result.json"),
        "figures": sorted(run.figures.glob("*.png")),
        "model": run.model,
        "hub": address,
    }


def closing_lines(run: RunFolder, *, seed: int, figures: Sequence[Path], model: bool = False) -> str:
    """The last lines that every command prints: how little one seed says, the figures, the model, the run folder."""
    lines = [f"One seed ({seed}) says little."]
    if figures:
        names = textwrap.wrap(", ".join(path.name for path in figures), 76, break_on_hyphens=False)
        lines += [f"Figures: {run.figures}", *(f"  {line}" for line in names)]
    if model:
        lines.append(f"Model: {run.model}")
    return "\n".join([*lines, f"Run folder: {run.path}"])
