"""Rows of randommask: letters to ids, the tokenizer's call, masking, the collator, the masked head, a genome, the import.

Every peer runs here, in the same process and turns: a Python dict, transformers' BertTokenizer on ready k-mer text, transformers'
collator for language modelling, DNABERT's masking loop (written after its `run_pretrain.py`), stock BertForMaskedLM at equal dropout.
Ratios are ours over the peer's, so a bar of 0.01 means a hundred times as quick.
"""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from randommask import KmerTokenizer, MaskedBert, RandomMaskCollator, base_codes, kmer_ids, random_mask, vocabulary
from randommask.genome.store import read_genome
from randommask.models.presets import bert_config
from speed.rows import Row, Times, import_row, import_seconds, in_turns

K = 6
ROWS_OF_IDS, TOKENS = 64, 512
MASK_LIST = (-2, -1, 0, 1, 2, 3)  # DNABERT's offsets for k = 6


def _sequences(count: int, *, shortest: int = 512) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices("ACGT", k=draw.randint(shortest, 512))) for _ in range(count)]


def letters_row() -> Row:
    """512-bp sequences to overlapping 6-mer ids, against a dict and slices."""
    sequences = _sequences(256)
    ids = {token: index for index, token in enumerate(vocabulary(K))}
    few = sequences[:32]

    def ours() -> None:
        kmer_ids(base_codes("".join(sequences)).reshape(len(sequences), 512), K)

    def peer() -> None:
        for sequence in few:
            [ids.get(sequence[i : i + K], 1) for i in range(512 - K + 1)]

    times = in_turns(ours, peer, turns=9)
    one, other = 1e6 * times.ours / len(sequences), 1e6 * times.peer / len(few)
    return Row(
        "512-bp sequences to 6-mer ids", one, other, "a Python dict and slices", "us a sequence", one / other, 0.0125
    )


def _call_row(what: str, *, shortest: int, bar: float) -> Row:
    from transformers import BertTokenizer

    sequences = _sequences(512, shortest=shortest)
    tokenizer = KmerTokenizer(k=K, model_max_length=1024)
    few = [" ".join(sequence[i : i + K] for i in range(len(sequence) - K + 1)) for sequence in sequences[:8]]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary(K)))
        stock = BertTokenizer(vocab=str(Path(folder) / "vocab.txt"), do_lower_case=False)
    times = in_turns(
        lambda: tokenizer(sequences, padding=True, return_tensors="pt"),
        lambda: stock(few, padding=True, return_tensors="pt"),
        turns=7,
    )
    one, other = 1e6 * times.ours / len(sequences), 1e6 * times.peer / len(few)
    return Row(what, one, other, "BertTokenizer, k-mer text ready", "us a sequence", one / other, bar)


def equal_call_row() -> Row:
    """The tokenizer's own call on equal lengths, tensors out."""
    return _call_row("tokenizer(strings of 512 bp), tensors out", shortest=512, bar=0.012)


def mixed_call_row() -> Row:
    """The tokenizer's own call on mixed lengths, padded, tensors out."""
    return _call_row("tokenizer(strings of 99 to 512 bp), padded, tensors out", shortest=99, bar=0.03)


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


def _masking_row(width: int, *, bar: float) -> Row:
    from transformers import DataCollatorForLanguageModeling

    ids, maskable = _ids()
    stock = DataCollatorForLanguageModeling(KmerTokenizer(k=K))
    special = ~maskable
    times = in_turns(
        _ours_masking(width),
        lambda: stock.torch_mask_tokens(ids.clone(), special_tokens_mask=special),
        turns=15,
        calls=20,
    )
    one, other = (1e6 * seconds / ROWS_OF_IDS for seconds in times)
    what = f"masking a (64, 512) batch, width {width}"
    return Row(what, one, other, "transformers' mask step, single tokens", "us a sequence", one / other, bar)


def narrow_masking_row() -> Row:
    """Span masks of width 6 against transformers' independent ones."""
    return _masking_row(6, bar=0.27)


def wide_masking_row() -> Row:
    """Span masks of width 14 against transformers' independent ones."""
    return _masking_row(14, bar=0.32)


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
    return Row("masking a (64, 512) batch, width 6", one, other, "DNABERT's loop", "us a sequence", one / other, 0.1)


def collator_row() -> Row:
    """The whole collator on a batch of ready ids, against transformers' own."""
    from transformers import DataCollatorForLanguageModeling

    tokenizer = KmerTokenizer(k=K)
    examples = [{"input_ids": row} for row in _ids()[0]]
    ours = RandomMaskCollator(tokenizer, schedule=K)
    stock = DataCollatorForLanguageModeling(tokenizer)
    times = in_turns(lambda: ours(examples), lambda: stock(examples), turns=9)
    one, other = (1e3 * seconds for seconds in times)
    return Row(
        "collator, a (64, 512) batch of ready ids", one, other, "transformers' collator", "ms", one / other, 0.05
    )


def _step(model: Any, batch: dict[str, Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _head_row(attention_dropout: float, *, bar: float) -> Row:
    from transformers import BertForMaskedLM

    config = bert_config("small", hidden_dropout=0.1, attention_dropout=attention_dropout)
    batch = RandomMaskCollator(KmerTokenizer(k=K), schedule=K)([{"input_ids": row} for row in _ids()[0][:8]])
    plain = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    times: Times = in_turns(
        _step(MaskedBert(config).train(), batch), _step(BertForMaskedLM(config).train(), plain), turns=2
    )
    what = f"training step, 4 x 256, batch (8, 512), width 6, attention dropout {attention_dropout:g} on both sides"
    return Row(what, times.ours, times.peer, "BertForMaskedLM", "CPU s", times.ours / times.peer, bar)


def head_row() -> Row:
    """The head on masked positions, without attention dropout."""
    return _head_row(0.0, bar=1 / 1.2)


def head_with_dropout_row() -> Row:
    """The head on masked positions, with DNABERT's attention dropout."""
    return _head_row(0.1, bar=1 / 1.12)


def genome_row() -> Row:
    """A 12-Mb FASTA file to windows with ids, against k-mer text made by slices (no ids)."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "genome.fa"
        lines = ["".join(draw.choices("ACGT", k=60)) for _ in range(1000)]
        path.write_text("".join(f">r{record}\n" + "\n".join(lines * 12) + "\n" for record in range(17)))

        def ours() -> None:
            genome = read_genome([path])
            for index in range(len(genome.names)):
                start, stop = genome.record(index)
                ids = kmer_ids(genome.codes[start:stop], K)
                [ids[place : place + 510] for place in range(0, len(ids), 515)]

        def peer() -> None:
            for record in path.read_text().split(">")[1:]:
                sequence = record.split("\n", 1)[1].replace("\n", "")
                for start in range(0, len(sequence), 515):
                    window = sequence[start : start + 515]
                    " ".join([window[i : i + K] for i in range(len(window) - K + 1)])

        times = in_turns(ours, peer, turns=2)
    return Row("a 12-Mb FASTA file to windows with ids", times.ours, times.peer, "k-mer text by slices", "CPU s",
               times.ours / times.peer, 0.3)  # fmt: skip


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
    equal_call_row,
    mixed_call_row,
    narrow_masking_row,
    wide_masking_row,
    loop_masking_row,
    collator_row,
    head_row,
    head_with_dropout_row,
    genome_row,
    import_package_row,
    import_core_row,
)
