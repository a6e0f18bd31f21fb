"""`gue-task --task EMP/H3 ...`: one task and one seed of `randommask gue`, its record where the runner looks for it.

The recipe is the published one (epochs, warm-up, batch 32, learning rate 3e-5, the checkpoint of the lowest dev loss), the score the
task's metric (MCC, macro F1 for Covid) over the whole test set, and over its rows that stand in no other file.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from randommask.commands import main as randommask
from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import read_records, write_record


@dataclass(frozen=True, kw_only=True)
class GueTaskConfig:
    """Options of one task."""

    task: Annotated[str, Option("Name of the task, such as EMP/H3")]
    data: Annotated[Path, Option("Folder of GUE")]
    out: Annotated[Path, Option("Folder for result.json and the run")]
    model: Annotated[Path | None, Option("Folder of a pretrained model; by default from scratch")] = None
    size: Annotated[Literal["tiny", "base"] | None, Option("Size from scratch")] = None
    start: Annotated[Literal["usual", "structured"] | None, Option("Start from scratch")] = None
    steps: Annotated[int | None, Option("Optimizer steps, in place of the published recipe", at_least=1)] = None
    batch_size: Annotated[int | None, Option("Rows a step, in place of 32", at_least=1)] = None
    regressions: Annotated[bool, Option("Also the logistic regression on 4-mers")] = False
    precision: Annotated[Literal["float32", "bf16", "fp16"], Option("Of the forward pass")] = "float32"
    seed: Annotated[int, Option("Seed of the run", at_least=0)] = 0
    given: frozenset[str] = frozenset()


def gue_task(config: GueTaskConfig) -> None:
    """Fine-tune and score one task of GUE."""
    words = ["--data", str(config.data), "--tasks", config.task, "--seeds", "1", "--seed", str(config.seed)]
    for name in ("model", "size", "start", "steps", "batch_size", "precision"):
        value = getattr(config, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    words.append("--regressions" if config.regressions else "--no-regressions")
    folder = config.out / "gue"
    if randommask(["gue", *words, "--out", str(folder)]) != 0:
        raise UserError(f"randommask gue ended with an error on {config.task}; the lines above say which.")
    records = read_records(folder / "records")
    tuned = next(record for record in records if record.arm != "kmer-regression")
    floors = [record.numbers["score"] for record in records if record.arm == "kmer-regression"]
    numbers = tuned.numbers | ({"score_kmer_regression": floors[0]} if floors else {})
    write_record(config.out / "result.json", dataclasses.replace(tuned, numbers=numbers))


def main(words: Sequence[str]) -> int:
    """Exit code of the command line."""
    return run_commands("gue-task", "0.1.0", {"gue-task": Command(gue_task, GueTaskConfig)}, ["gue-task", *words])
