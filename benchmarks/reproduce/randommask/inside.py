"""`inside --run FOLDER`: k-mer embeddings and attention of a finished pretraining, from its saved model and its start alone.

`randommask observe` looks into the model and into the start, made again from the options; here its numbers become a record:

    purity, shift          share of k-mers whose nearest neighbour by cosine differs in one base, or is itself moved by one; %
    entropy, top1          of a query's attention: entropy over ln T, mass on its most attended key; means over layers and heads
    specials, near         mass on [CLS] and [SEP] together, and on keys at most k - 1 tokens away, the query's own among them

Each stands beside `_start`, before the first step, and `_level`, of a random neighbour or of uniform attention on the same rows. The
structured start has a purity near 100 % before it has learned anything. Nothing is trained, so runs that stand serve.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from randommask.commands import main as randommask
from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record, write_record

ATTENTION = ("entropy", "top1", "specials", "near")


@dataclass(frozen=True, kw_only=True)
class InsideConfig:
    """Options of the look inside."""

    run: Annotated[Path, Option("Finished run folder of `randommask pretrain`")]
    out: Annotated[Path, Option("Folder for result.json, observations.json and figures")]
    windows: Annotated[int, Option("Held-out windows to look at, at most", at_least=1)] = 128
    seed: Annotated[int, Option("Seed of the record", at_least=0)] = 0
    given: frozenset[str] = frozenset()


def inside(config: InsideConfig) -> None:
    """Embeddings and attention of a pretraining."""
    began = time.monotonic()
    words = ["observe", str(config.run), "--out", str(config.out), "--windows", str(config.windows), "--device", "cpu"]
    if randommask(words) != 0:
        raise UserError(f"randommask observe ended with an error on {config.run}; the lines above say which.")
    found = json.loads((config.out / "observations.json").read_text(encoding="utf-8"))
    numbers = numbers_of(found)
    write_record(
        config.out / "result.json",
        Record(
            experiment="randommask-inside",
            arm=found["run"]["method"],
            seed=config.seed,
            numbers=numbers,
            units={name: "%" for name in numbers if name.startswith(("purity", "shift"))},
            versions={name: metadata.version(name) for name in ("randommask", "scarce-common-utils")},
            seconds=time.monotonic() - began,
        ),
    )


def numbers_of(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers of the last checkpoint of `observations.json`, of the start, and of what means nothing.

    Raises:
        UserError: the run holds no finished model, only its start.
    """
    first, last = found["checkpoints"][0], found["checkpoints"][-1]
    if last["step"] != found["run"]["steps"]:
        raise UserError(
            f"The newest weights are those of step {last['step']} of {found['run']['steps']}. Give the folder of a finished run."
        )
    uniform = found["levels"]["uniform_attention"]
    level = {
        "neighbours": found["levels"]["neighbours"],
        "attention": {**uniform, "specials": uniform["cls"] + uniform["sep"]},
    }
    numbers: dict[str, float | None] = {}
    for name, key in (("purity", "purity"), ("shift", "shift_purity")):
        numbers[name] = 100 * last["neighbours"][key]
        numbers[f"{name}_start"] = 100 * first["neighbours"][key]
        numbers[f"{name}_level"] = 100 * level["neighbours"][key]
    ends, starts = (by_layer(look["attention_by_layer_and_head"]) for look in (last, first))
    for name in ATTENTION:
        numbers[name], numbers[f"{name}_start"] = mean(ends[name]), mean(starts[name])
        numbers[f"{name}_level"] = level["attention"][name]
        numbers |= {f"{name}_layer_{number}": value for number, value in enumerate(ends[name], start=1)}
    return numbers


def by_layer(attention: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """Mean over the heads of each layer, by measure."""
    means = {name: [mean(heads) for heads in layers] for name, layers in attention.items()}
    return means | {"specials": [cls + sep for cls, sep in zip(means["cls"], means["sep"], strict=True)]}


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def main(words: Sequence[str]) -> int:
    """Exit code of the command line."""
    return run_commands("inside", "0.1.0", {"inside": Command(inside, InsideConfig)}, ["inside", *words])
