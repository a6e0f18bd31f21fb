"""Rows of randommask: letters to ids, the tokenizer's call, masking, the collator, the pretraining step, the import; a genome beside.

Every peer runs here, in the same process and turns: a Python dict, transformers' BertTokenizer on ready k-mer text, transformers'
collator for language modelling, DNABERT's masking loop (written after its `run_pretrain.py`). Pretraining steps run
in a process an arm, for the peak memory. A row against "the bar itself" speaks of an absolute figure, and its ratio is ours over the bar.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from randommask import KmerTokenizer, RandomMaskCollator, base_codes, kmer_ids, random_mask, vocabulary
from speed.randommask_genome import GENOME_ROWS
from speed.rows import Row, Times, absolute_row, import_row, import_seconds, in_turns

K = 6
ROWS_OF_IDS, TOKENS = 64, 512
MASK_LIST = (-2, -1, 0, 1, 2, 3)  # DNABERT's offsets for k = 6


def _sequences(count: int, *, shortest: int = 512) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices("ACGT", k=draw.randint(shortest, 512))) for _ in range(count)]


@cache
def _letters() -> Times:
    """CPU seconds a sequence of 512 bases: ours in batches of 256, and a dict with slices."""
    sequences = _sequences(256)
    ids = {token: index for index, token in enumerate(vocabulary(K))}
    few = sequences[:32]

    def ours() -> None:
        for _ in range(16):
            kmer_ids(base_codes("".join(sequences)).reshape(len(sequences), 512), K)

    def peer() -> None:
        for sequence in few:
            [ids.get(sequence[i : i + K], 1) for i in range(512 - K + 1)]

    times = in_turns(ours, peer, turns=9)
    return Times(times.ours / 16 / len(sequences), times.peer / len(few))


def letters_row() -> Row:
    """512-bp sequences to overlapping 6-mer ids, against a dict and slices."""
    ours, peer = (1e6 * seconds for seconds in _letters())
    what = "512-bp sequences to 6-mer ids, batches of 256"
    return Row(what, ours, peer, "a Python dict and slices", "us a sequence", ours / peer, 0.01)


def letters_rate_row() -> Row:
    """The same as a rate."""
    what = "512-bp sequences to 6-mer ids, batches of 256"
    return absolute_row(what, 1 / _letters().ours, bar=800_000, unit="a CPU second", bound="at least")


@cache
def _calls(shortest: int) -> Times:
    """CPU seconds a sequence of the tokenizer's own call on 512 strings, padded, tensors out; transformers' on ready k-mer text."""
    from transformers import BertTokenizer

    sequences = _sequences(512, shortest=shortest)
    tokenizer = KmerTokenizer(k=K, model_max_length=1024)
    few = [" ".join(sequence[i : i + K] for i in range(len(sequence) - K + 1)) for sequence in sequences[:8]]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary(K)))
        stock = BertTokenizer(vocab=str(Path(folder) / "vocab.txt"), do_lower_case=False)

    def ours() -> None:
        for _ in range(4):
            tokenizer(sequences, padding=True, return_tensors="pt")

    times = in_turns(ours, lambda: stock(few, padding=True, return_tensors="pt"), turns=9)
    return Times(times.ours / 4 / len(sequences), times.peer / len(few))


def _call_row(shortest: int, what: str) -> Row:
    ours, peer = (1e6 * seconds for seconds in _calls(shortest))
    return Row(what, ours, peer, "BertTokenizer, k-mer text ready", "us a sequence", ours / peer, 0.01)


_EQUAL = "tokenizer(512 strings of 512 bp), tensors out"
_MIXED = "tokenizer(512 strings of 99 to 512 bp), padded, tensors out"


def equal_call_row() -> Row:
    """The tokenizer's own call on equal lengths against transformers' tokenizer."""
    return _call_row(512, _EQUAL)


def equal_call_rate_row() -> Row:
    """The same as a rate."""
    return absolute_row(_EQUAL, 1 / _calls(512).ours, bar=150_000, unit="a CPU second", bound="at least")


def mixed_call_row() -> Row:
    """The tokenizer's own call on mixed lengths against transformers' tokenizer."""
    return _call_row(99, _MIXED)


def mixed_call_rate_row() -> Row:
    """The same as a rate."""
    return absolute_row(_MIXED, 1 / _calls(99).ours, bar=100_000, unit="a CPU second", bound="at least")


def _ids() -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, 4101, (ROWS_OF_IDS, TOKENS), generator=torch.Generator().manual_seed(0))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, 0] = maskable[:, -1] = False
    return ids, maskable


def _ours_masking(width: int) -> Callable[[], object]:
    ids, maskable = _ids()
    generator = torch.Generator().manual_seed(0)
    return lambda: random_mask(
        ids,
        width=width,
        probability=0.025,
        maskable=maskable,
        vocabulary=range(5, 4101),
        mask_id=4,
        generator=generator,
    )


@cache
def _masking(width: int) -> Times:
    """CPU seconds a sequence: span masks, and transformers' mask step on single tokens."""
    from transformers import DataCollatorForLanguageModeling

    ids, maskable = _ids()
    stock = DataCollatorForLanguageModeling(KmerTokenizer(k=K))
    special = ~maskable
    times = in_turns(
        _ours_masking(width),
        lambda: stock.torch_mask_tokens(ids.clone(), special_tokens_mask=special),
        turns=21,
        calls=20,
    )
    return Times(times.ours / ROWS_OF_IDS, times.peer / ROWS_OF_IDS)


def _masking_row(width: int, *, bar: float) -> Row:
    ours = 1e6 * _masking(width).ours
    what = f"masking a (64, 512) batch, width {width}"
    return absolute_row(what, ours, bar=bar, unit="us a sequence", bound="at most")


def narrow_masking_row() -> Row:
    """Span masks of width 6."""
    return _masking_row(6, bar=5.0)


def wide_masking_row() -> Row:
    """Span masks of width 14."""
    return _masking_row(14, bar=7.0)


def single_masking_row() -> Row:
    """Span masks of width 6 against transformers' independent ones."""
    ours, peer = (1e6 * seconds for seconds in _masking(6))
    what = "masking a (64, 512) batch, width 6"
    return Row(what, ours, peer, "transformers' mask step, single tokens", "us a sequence", ours / peer, 0.25)


def _dnabert_mask(ids: Tensor, maskable: Tensor) -> tuple[Tensor, Tensor]:
    """DNABERT's mask_tokens, loops and all, on ready special-token masks."""
    labels = ids.clone()
    chances = torch.full(labels.shape, 0.025).masked_fill_(~maskable, 0.0)
    masked = torch.bernoulli(chances).bool()
    centres = masked.tolist()
    for row, flags in enumerate(centres):
        end = int(torch.where(chances[row] != 0)[0].tolist()[-1])
        more = set()
        for place, flag in enumerate(flags):
            if flag:
                more |= {place + offset for offset in MASK_LIST if 1 <= place + offset <= end}
        masked[row, list(more)] = True
    labels[~masked] = -100
    replaced = torch.bernoulli(torch.full(labels.shape, 0.8)).bool() & masked
    ids[replaced] = 4
    changed = torch.bernoulli(torch.full(labels.shape, 0.5)).bool() & masked & ~replaced
    ids[changed] = torch.randint(4101, labels.shape)[changed]
    return ids, labels


def loop_masking_row() -> Row:
    """Span masks of width 6 against DNABERT's Python loop, which gives the same spans."""
    ids, maskable = _ids()
    times = in_turns(_ours_masking(6), lambda: _dnabert_mask(ids.clone(), maskable), turns=9, calls=3)
    one, other = (1e6 * seconds / ROWS_OF_IDS for seconds in times)
    return Row("masking a (64, 512) batch, width 6", one, other, "DNABERT's loop", "us a sequence", one / other, 0.06)


@cache
def _collators() -> Times:
    from transformers import DataCollatorForLanguageModeling

    tokenizer = KmerTokenizer(k=K)
    examples = [{"input_ids": row} for row in _ids()[0]]
    ours = RandomMaskCollator(tokenizer, schedule=K)
    stock = DataCollatorForLanguageModeling(tokenizer)
    return in_turns(lambda: ours(examples), lambda: stock(examples), turns=15, calls=4)


def collator_row() -> Row:
    """The whole collator on a batch of ready ids."""
    what = "collator, a (64, 512) batch of ready ids"
    return absolute_row(what, 1e3 * _collators().ours, bar=1.0, unit="ms", bound="at most")


def stock_collator_row() -> Row:
    """The same against transformers' collator."""
    ours, peer = (1e3 * seconds for seconds in _collators())
    what = "collator, a (64, 512) batch of ready ids"
    return Row(what, ours, peer, "transformers' collator", "ms", ours / peer, 1 / 26)


class _Shape(NamedTuple):
    """A pretraining step: `size` by name, `rows` of 512 tokens, timed `steps`."""

    size: str
    rows: int
    steps: int
    words: str


_SMALL = _Shape("small", 32, 2, "4 x 256, batch (32, 512)")
_BASE = _Shape("base", 2, 1, "BERT-base, batch (2, 512)")


@cache
def _step(arm: str, shape: _Shape, attention_dropout: float) -> tuple[float, float]:
    """CPU seconds and peak MiB of one arm, in a process of its own; hidden dropout is 0.1 in all."""
    words = [arm, shape.size, str(shape.rows), "0.1", str(attention_dropout), str(shape.steps)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "speed.pretraining_step", *words],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    seconds, memory = run.stdout.split()
    return float(seconds), float(memory)


def _step_rows(shape: _Shape, ours: float, peer: float, *, speed: float, memory: float) -> list[Callable[[], Row]]:
    """A row of tokens a second and one of peak memory, at the attention dropout of either side."""
    sides = f"attention dropout {ours:g}" + (" on both sides" if ours == peer else f" against the published {peer:g}")
    what = f"pretraining step, {shape.words}, width 6, {sides}"
    tokens = shape.rows * 512

    def speed_row() -> Row:
        one, other = (tokens / _step(arm, shape, drop)[0] for arm, drop in (("ours", ours), ("stock", peer)))
        return Row(what, one, other, "BertForMaskedLM", "tokens a CPU second", one / other, speed, "at least")

    def memory_row() -> Row:
        one, other = (_step(arm, shape, drop)[1] for arm, drop in (("ours", ours), ("stock", peer)))
        return Row(what, one, other, "BertForMaskedLM", "MiB at the peak", one / other, memory)

    return [speed_row, memory_row]


STEP_ROWS = [
    *_step_rows(_SMALL, 0.0, 0.0, speed=1.2, memory=0.72),
    *_step_rows(_SMALL, 0.1, 0.1, speed=1.12, memory=0.85),
    *_step_rows(_SMALL, 0.0, 0.1, speed=1.5, memory=0.45),
    *_step_rows(_BASE, 0.0, 0.0, speed=1.0, memory=1.0),
    *_step_rows(_BASE, 0.1, 0.1, speed=1.0, memory=1.0),
    *_step_rows(_BASE, 0.0, 0.1, speed=1.2, memory=0.65),
]


def import_package_row() -> Row:
    """The package itself, which loads nothing until a name is used."""
    return import_row("randommask")


def import_core_row() -> Row:
    """The core: ids, masking, schedule, collator."""
    seconds = import_seconds("randommask.collator")
    return Row(
        "import randommask.collator over import torch", seconds, 0.3, "the bar itself", "CPU s", seconds / 0.3, 1.0
    )


ROWS: tuple[Callable[[], Row], ...] = (
    letters_row,
    letters_rate_row,
    equal_call_row,
    equal_call_rate_row,
    mixed_call_row,
    mixed_call_rate_row,
    narrow_masking_row,
    wide_masking_row,
    single_masking_row,
    loop_masking_row,
    collator_row,
    stock_collator_row,
    *STEP_ROWS,
    *GENOME_ROWS,
    import_package_row,
    import_core_row,
)
