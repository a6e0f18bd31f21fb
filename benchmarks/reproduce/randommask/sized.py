"""`pretrain-sized GENOME`: a short pretraining of any size with either start, to compare the two starts beyond the named sizes.

The same parts as `randommask pretrain --method dnabert`: width k, AdamW with linear warm-up (a tenth) and decay, full windows,
held-out loss at width 6 and 14. Dropout is 0 for every size.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from scarce_common_utils.command_line import Command, Operands, Option, run_commands
from scarce_common_utils.records import Record, write_record

K = 6
WINDOWS = 512  # held out, evenly spread


@dataclass(frozen=True, kw_only=True)
class SizedConfig:
    """Options of the run."""

    genome: Annotated[Path | None, Operands("GENOME", "FASTA file")] = None
    out: Annotated[Path, Option("Folder for result.json")]
    start: Annotated[Literal["usual", "structured"], Option("Initial weights")] = "usual"
    layers: Annotated[int, Option("Of the BERT", at_least=1)] = 2
    width: Annotated[int, Option("Of the states", at_least=1)] = 64
    heads: Annotated[int, Option("Of attention", at_least=1)] = 2
    learning_rate: Annotated[float, Option("At its peak", above=0.0)] = 3e-3
    steps: Annotated[int, Option("Optimizer steps", at_least=1)] = 1000
    batch_size: Annotated[int, Option("Windows a step", at_least=1)] = 16
    tokens: Annotated[int, Option("k-mers of a window", at_least=1)] = 64
    seed: Annotated[int, Option("Of start, windows and masks", at_least=0)] = 0
    given: frozenset[str] = frozenset()


def pretrain_sized(config: SizedConfig) -> None:
    """Pretrain and evaluate one start."""
    from randommask.training import pretraining
    from randommask.training.evaluation import masked_losses
    from randommask.training.quiet import quiet_transformers

    began = time.monotonic()
    windows, held_out = _windows(config)
    with quiet_transformers():
        model, collator = _model(config)
        pretraining.pretrain(
            model,
            windows,
            collator=collator,
            optimisation=pretraining.Optimisation(config.steps, config.batch_size, learning_rate=config.learning_rate),
            placement=pretraining.Placement(torch.device("cpu")),
            watch=pretraining.Watch(_nothing, config.out / "checkpoints", max(1, config.steps // 20), config.steps),
        )
        count = min(WINDOWS, len(held_out))
        some = [held_out[number * len(held_out) // count] for number in range(count)]
        found = masked_losses(model, some, collator.tokenizer, widths=(K, K + 8))
    numbers: dict[str, float | None] = {"steps": config.steps}
    for row in found:
        numbers |= {f"loss_width_{row.width}": row.loss, f"floor_width_{row.width}": row.floor}
    write_record(
        config.out / "result.json",
        Record(
            experiment="randommask-pretrain-sized",
            arm=config.start,
            seed=config.seed,
            numbers=numbers,
            units=dict.fromkeys(numbers, "nats") | {"steps": "steps"},
            versions={
                name: metadata.version(name) for name in ("randommask", "scarce-common-utils", "torch", "transformers")
            },
            seconds=time.monotonic() - began,
            threads=torch.get_num_threads(),
        ),
    )
    print("  ".join(f"width {row.width}: loss {row.loss:.2f}, floor {row.floor:.2f}" for row in found))


def _windows(config: SizedConfig) -> tuple[Any, Any]:
    """Windows to train on, and held-out ones."""
    from randommask.genome.held_out import split_held_out
    from randommask.genome.store import read_genome
    from randommask.genome.windows import GenomeWindows

    genome = read_genome([] if config.genome is None else [config.genome])
    parts = split_held_out(genome, seed=config.seed)
    shared: dict[str, Any] = {"tokens": config.tokens, "k": K}
    training = GenomeWindows(genome, parts.training, recipe="full", seed=config.seed, **shared)
    return training, GenomeWindows(genome, parts.held_out, recipe="strided", **shared)


def _model(config: SizedConfig) -> tuple[Any, Any]:
    """A BERT of the wanted size at the wanted start, and the collator that masks at width k."""
    from randommask.collator import RandomMaskCollator
    from randommask.models.masked_bert import MaskedBert
    from randommask.models.presets import bert_config
    from randommask.models.starts import start_weights
    from randommask.tokenizer import KmerTokenizer

    described = bert_config("tiny", k=K, hidden_dropout=0.0)
    described.num_hidden_layers, described.num_attention_heads = config.layers, config.heads
    described.hidden_size, described.intermediate_size = config.width, 4 * config.width
    model = MaskedBert(described)
    start_weights(model, config.start, k=K, seed=config.seed)
    tokenizer = KmerTokenizer(k=K, model_max_length=config.tokens + 2)
    return model, RandomMaskCollator(tokenizer, schedule=K, seed=config.seed)


def _nothing(step: int, **numbers: float) -> None:
    """No log is kept."""


def main(words: Sequence[str]) -> int:
    """Exit code of the command line."""
    return run_commands(
        "pretrain-sized", "0.1.0", {"pretrain-sized": Command(pretrain_sized, SizedConfig)}, ["pretrain-sized", *words]
    )
