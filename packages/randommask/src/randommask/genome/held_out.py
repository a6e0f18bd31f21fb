"""Which DNA is held out for evaluation: named records, or a rule that always leaves some on both sides.

names given                      those records, whole
some record over 100 kb          the last tenth of every record over 100 kb
several records, all shorter     a tenth of the records, at least one, drawn from the seed
one short record                 its last tenth
"""

import bisect
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch

from randommask.genome.store import Genome, Stretch, nearest_name
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream

LONG: Final = 100_000  # bases
SHARE: Final = 10  # a tenth


class Parts(NamedTuple):
    """Stretches for training and stretches held out; no place is in both."""

    training: list[Stretch]
    held_out: list[Stretch]


def split_held_out(genome: Genome, *, names: Sequence[str] = (), seed: int = 0) -> Parts:
    """Divide a genome by the rule of this module.

    Raises:
        UserError: a name is unknown, or nothing would be left to train on.
    """
    records = [genome.record(index) for index in range(len(genome.names))]
    if names:
        return _named(genome, records, names)
    long = [record.stop - record.start > LONG for record in records]
    if any(long) or len(records) == 1:
        parts = Parts([], [])
        for record, is_long in zip(records, long, strict=True):
            cut = record.stop - (record.stop - record.start) // SHARE if is_long or len(records) == 1 else record.stop
            parts.training.append(Stretch(record.start, cut))
            if cut < record.stop:
                parts.held_out.append(Stretch(cut, record.stop))
        return parts
    count = max(1, len(records) // SHARE)
    chosen = set(torch.randperm(len(records), generator=stream(seed, "split"))[:count].tolist())
    return Parts(
        [record for index, record in enumerate(records) if index not in chosen],
        [record for index, record in enumerate(records) if index in chosen],
    )


def describe_held_out(genome: Genome, parts: Parts, *, most: int = 5) -> str:
    """What is held out, in words: the first `most` records, with the stretch where it is a part of one.

    Example:
        >>> import numpy
        >>> genome = Genome(("chrA", "chrB"), (0, 8000, 10_000), numpy.zeros(10_000, dtype=numpy.uint8))
        >>> describe_held_out(genome, Parts([Stretch(0, 8000)], [Stretch(8000, 10_000)]))
        'chrB (2,000 bases)'
        >>> describe_held_out(genome, Parts([Stretch(0, 7200)], [Stretch(7200, 8000)]))
        'chrA from 7,201 to 8,000 (800 bases)'
    """
    texts = []
    for start, stop in parts.held_out[:most]:
        index = bisect.bisect_right(genome.starts, start) - 1
        record = genome.record(index)
        whole = (start, stop) == record
        place = "" if whole else f" from {start - record.start + 1:,} to {stop - record.start:,}"
        texts.append(f"{genome.names[index]}{place} ({stop - start:,} bases)")
    more = len(parts.held_out) - most
    return ", ".join(texts) + (f" and {more:,} more" if more > 0 else "")


def _named(genome: Genome, records: list[Stretch], names: Sequence[str]) -> Parts:
    for name in names:
        if name not in genome.names:
            raise UserError(
                f"--held-out names {name!r}, but no record is called so; {nearest_name(name, genome.names)}"
            )
    chosen = set(names)
    parts = Parts(
        [record for name, record in zip(genome.names, records, strict=True) if name not in chosen],
        [record for name, record in zip(genome.names, records, strict=True) if name in chosen],
    )
    if not parts.training:
        raise UserError(f"--held-out names all {len(records)} records, so nothing is left to train on. Name fewer.")
    return parts
