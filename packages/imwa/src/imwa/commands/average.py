"""`imwa average A.safetensors B.safetensors -o C.safetensors`: the mean of safetensors files of one model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from imwa.files import average_files
from scarce_common_utils.command_line import Operands, Option
from scarce_common_utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """Options of `imwa average`."""

    files: Annotated[tuple[str, ...], Operands("FILES", "Safetensors files of one model, at least two")] = ()
    output: Annotated[Path | None, Option("New file for the mean", short="-o")] = None
    given: frozenset[str] = frozenset()


def average(config: AverageConfig) -> dict[str, Any]:
    """Average safetensors files of one model, streamed: names, shapes, dtypes and NaN are checked, counters stay integers."""
    if len(config.files) < 2:
        raise UserError(f"{len(config.files)} files are given. Name at least 2 safetensors files to average.")
    if config.output is None:
        raise UserError("No output is given. Name a new file: -o mean.safetensors.")
    if config.output == Path("-"):
        raise UserError(
            "-o is -, but a mean is written in place, tensor by tensor. Name a new file: -o mean.safetensors."
        )
    result = average_files(config.files, config.output)
    print(f"{result.output}: mean of {len(config.files)} files, {result.tensors} tensors.")
    if result.tied:
        pairs = ", ".join(f"{name} (tied to {other})" for name, other in result.tied.items())
        print(f"Left out, as some of the files leave it out: {pairs}. Loading into the model ties it again.")
    print("BatchNorm statistics, where the model has any, are averaged: measure them anew for a model in use.")
    return {"output": result.output, "files": config.files, "tensors": result.tensors, "tied": result.tied}
