"""A transformers data collator that masks each batch at the width of its own optimizer step.

    examples -> padded ids -> random_mask(width = schedule.width(number // (accumulation * processes)))

The draws are a pure function of (seed, batch number), or, for a batch without a number at a fixed width, of the padded ids:
`stream(seed, "mask", number)` and `stream(seed, "mask", digest)`, the SHA-256 of the ids as int32. The collator counts nothing,
so copies of it in loader workers agree.

Letters   N sequences, T tokens, M masked tokens.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from randommask.masking import mask_tokens
from randommask.methods import default_probability
from randommask.numbering import NumberedExample
from randommask.schedule import MaskSchedule
from scarce_common_utils.streams import stream


class RandomMaskCollator:
    """Pads examples and masks them; the batch says which positions and how wide.

    Args:
        tokenizer: a `KmerTokenizer` (anything with its `token_rows`, `kmer_vocabulary`, `pad_token_id`, `mask_token_id` and `k`).
        schedule: widths by optimizer step, or one integer for a fixed width.
        probability: chance of a token to be a centre. None: 0.025 at k = 6, else 0.15 / k.
        share: in place of `probability`: each width w draws centres with share / w, so that the masked share stays.
        seed: seed of the streams "mask".
        accumulation: batches that one optimizer step adds up on each process.
        processes: processes that the batches are dealt to.
        pad_to_multiple_of: round the padded length up, for tensor cores.
        mask_share: share of the masked tokens that show [MASK].
        random_share: share that shows a random k-mer; the rest shows its own.

    A call takes a list of examples: base codes UInt8[L], strings of letters, or mappings with `input_ids` (specials
    included) or `sequence`; each may come as a `NumberedExample`. It returns a dict:
    `input_ids` Int64[N T], `attention_mask` Int64[N T], `labels` Int64[N T] (-100 where nothing is predicted),
    `masked_positions` Int64[M] (flat, row-major, where labels are), `mask_width` Int64[] (tokens).

    Raises:
        ValueError: an argument out of range; in a call, a batch without a number while widths follow a schedule, batches
            mixed up, or a sequence with more tokens than the tokenizer's `model_max_length`.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        schedule: MaskSchedule | int,
        probability: float | None = None,
        share: float | None = None,
        seed: int = 0,
        accumulation: int = 1,
        processes: int = 1,
        pad_to_multiple_of: int | None = None,
        mask_share: float = 0.8,
        random_share: float = 0.1,
    ) -> None:
        if not isinstance(schedule, MaskSchedule) and (not isinstance(schedule, int) or schedule < 1):
            raise ValueError(
                f"schedule is {schedule!r}, but it must be a MaskSchedule, or a fixed width of at least 1 token."
            )
        if probability is not None and share is not None:
            raise ValueError(f"probability is {probability} and share is {share}. Give one of the two.")
        for name, value in (("probability", probability), ("share", share)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value!r}, but it must be between 0 and 1.")
        for name, value in (("accumulation", accumulation), ("processes", processes)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but it is at least 1.")
        if min(mask_share, random_share) < 0 or mask_share + random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share {mask_share} and random_share {random_share}: neither below 0, together at most 1."
            )
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.probability = default_probability(tokenizer.k) if probability is None and share is None else probability
        self.share = share
        self.seed = seed
        self.accumulation = accumulation
        self.processes = processes
        self.pad_to_multiple_of = pad_to_multiple_of
        self.mask_share = mask_share
        self.random_share = random_share

    def at_width(self, width: int) -> "RandomMaskCollator":
        """The same collator at a fixed width, for evaluation: its batches need no number."""
        fixed = copy.copy(self)
        fixed.schedule = width
        return fixed

    def probability_at(self, width: int) -> float:
        """Chance of a token to be a centre at a width."""
        if self.share is not None:
            return min(1.0, self.share / width)
        assert self.probability is not None
        return self.probability

    def __call__(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """See the class."""
        number, examples = _unpacked(examples)
        ids, attention, maskable = self._padded(examples)
        if isinstance(self.schedule, MaskSchedule):
            if number is None:
                raise ValueError(
                    "The batch carries no number, so the collator cannot know which optimizer step it serves. Load the data "
                    "through randommask.NumberedBatches (randommask.RandomMaskTrainer does), or give a fixed width."
                )
            step = number // (self.accumulation * self.processes)
            width, drawn = self.schedule.width(step), self.schedule.draw_from(step)
        else:
            width = drawn = self.schedule
        key = hashlib.sha256(ids.numpy().astype(numpy.int32).data).hexdigest() if number is None else number
        inputs, labels, positions = mask_tokens(
            ids,
            width=drawn,
            probability=self.probability_at(width),
            maskable=maskable,
            vocabulary=self.tokenizer.kmer_vocabulary,
            mask_id=self.tokenizer.mask_token_id,
            generator=stream(self.seed, "mask", key),
            mask_share=self.mask_share,
            random_share=self.random_share,
        )
        return {
            "input_ids": inputs,
            "attention_mask": attention,
            "labels": labels,
            "masked_positions": positions,
            "mask_width": torch.tensor(width),
        }

    def _padded(self, examples: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Padded ids Int64[N T], attention Int64[N T], maskable Bool[N T]."""
        vocabulary = self.tokenizer.kmer_vocabulary
        first = examples[0]
        allowed = None
        if isinstance(first, Mapping) and "input_ids" in first:
            rows = [_row(one["input_ids"]) for one in examples]
            ids = torch.from_numpy(self._joined(rows, fill=self.tokenizer.pad_token_id))
            given = [one.get("attention_mask") for one in examples]
            if all(mask is None for mask in given):
                lengths = numpy.array([len(row) for row in rows], dtype=numpy.int64)
                attention = torch.from_numpy(attention_of(lengths, ids.shape[1]))
            else:
                masks = (numpy.ones_like(row) if mask is None else mask for mask, row in zip(given, rows, strict=True))
                attention = torch.from_numpy(self._joined([_row(mask) for mask in masks], fill=0))
            if "special_tokens_mask" in first:
                special = [_row(one["special_tokens_mask"]) for one in examples]
                allowed = torch.from_numpy(self._joined(special, fill=1)) == 0
        elif isinstance(first, Mapping | str):
            texts = [one["sequence"] if isinstance(one, Mapping) else one for one in examples]
            batch = self.tokenizer(texts, padding=True, return_tensors="pt", pad_to_multiple_of=self.pad_to_multiple_of)
            ids, attention = batch["input_ids"], batch["attention_mask"]
        else:
            ids, attention = self._from_codes(examples)
        self._refuse_too_long(ids.shape[1])
        maskable = (ids >= vocabulary.start).logical_and_(ids < vocabulary.stop)
        return ids, attention, maskable if allowed is None else maskable.logical_and_(allowed)

    def _from_codes(self, examples: list[Any]) -> tuple[Tensor, Tensor]:
        rows = [numpy.asarray(one) for one in examples]
        lengths = numpy.array([len(row) for row in rows], dtype=numpy.int64)
        codes = numpy.zeros((len(rows), int(lengths.max())), dtype=numpy.uint8)  # behind a row: never read
        for place, row in zip(codes, rows, strict=True):
            place[: len(row)] = row
        ids, attention, _ = self.tokenizer.token_rows(codes, lengths, multiple=self.pad_to_multiple_of or 1)
        return torch.from_numpy(ids), torch.from_numpy(attention)

    def _joined(self, rows: list[numpy.ndarray], *, fill: int) -> numpy.ndarray:
        """Int64[N T] of rows of any length, filled up at their right."""
        multiple = self.pad_to_multiple_of or 1
        longest = max(map(len, rows))
        width = -(-longest // multiple) * multiple
        if width == min(map(len, rows)):
            return numpy.concatenate(rows, dtype=numpy.int64).reshape(len(rows), width)
        joined = numpy.full((len(rows), width), fill, dtype=numpy.int64)
        for place, row in zip(joined, rows, strict=True):
            place[: len(row)] = row
        return joined

    def _refuse_too_long(self, tokens: int) -> None:
        limit = self.tokenizer.model_max_length
        if tokens > limit:
            raise ValueError(
                f"A row has {tokens} tokens, specials included, but the tokenizer's model_max_length is {limit}. Cut the "
                "sequences into shorter windows, or raise model_max_length together with the model's positions."
            )


def _row(values: Any) -> numpy.ndarray:
    return values.numpy() if isinstance(values, Tensor) else numpy.asarray(values, dtype=numpy.int64)


def attention_of(lengths: numpy.ndarray, width: int) -> numpy.ndarray:
    """Int64[N T], 1 at the first `lengths` Int64[N] of T = `width` tokens of a row, 0 behind."""
    if int(lengths.min()) == width:
        return numpy.ones((len(lengths), width), dtype=numpy.int64)
    return (numpy.arange(width) < lengths[:, None]).astype(numpy.int64)


def _unpacked(examples: Sequence[Any]) -> tuple[int | None, list[Any]]:
    """The batch's number, if its examples carry one, and the bare examples."""
    if not examples:
        raise ValueError("The batch holds no example.")
    numbers = {one.number if isinstance(one, NumberedExample) else None for one in examples}
    if len(numbers) != 1:
        raise ValueError(f"Examples of batches {sorted(map(str, numbers))} came together; a batch has one number.")
    return numbers.pop(), [one.example if isinstance(one, NumberedExample) else one for one in examples]
