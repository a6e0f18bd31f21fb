"""What `randommask check FASTA` says: records, lengths, N, what is held out and what repeats, and the cost of pretraining."""

import statistics
from pathlib import Path
from typing import Any

import numpy
import torch

from randommask.alphabet import AMBIGUOUS
from randommask.commands.dna import Dna, names_in
from randommask.commands.pretrain import Job, PretrainConfig, build_job, evenly, model_and_collator, optimisation_of
from randommask.commands.words import wrapped
from randommask.genome.fasta import FastaRecord
from randommask.genome.held_out import describe_held_out, split_held_out
from randommask.genome.repeats import Repeated, repeated_records, repeated_windows
from randommask.genome.store import Genome, chosen_records, known_stretches
from randommask.genome.windows import GenomeWindows
from randommask.sample import GENOME, sample_path
from randommask.schedule import MaskSchedule
from scarce_common_utils.costs import Cost, measure, memory_in_words, time_in_words
from scarce_common_utils.figures import table
from scarce_common_utils.resumption import threads

MOST_BASES = 250_000_000  # that are read; of a larger genome the records at its beginning, which the sentences say
MOST_RECORDS = 10  # of the table
MOST_WINDOWS = 2000  # held-out ones that are looked up
SECONDS = 10.0  # of looking them up
_PIECE = 1 << 24


def check_dna(config: PretrainConfig) -> dict[str, Any]:
    """Print what is in FASTA files, and return it as JSON values.

    Raises:
        UserError: as `randommask pretrain`, before it would train.
    """
    from randommask.training.quiet import quiet_transformers

    reading = _Reading()
    with quiet_transformers():
        job = build_job(config, reading)
        letters = letters_of(job.genome)
        name = ", ".join(Path(path).name for path in config.genome) or "the built-in chromosome 22"
        print("\n".join(letters_in_words(name, job.genome, letters, whole=reading.whole)))
        known = sum(
            stop - start for start, stop in known_stretches(job.genome, job.parts.training, longest_unknown=0, least=1)
        )
        print("\n".join(parts_in_words(job, known)))
        repeats = repeated_records(job.genome)
        windows = [window for window in evenly(job.held_out, MOST_WINDOWS) if len(window) == job.held_out.full]
        found = repeated_windows(job.genome, job.parts.training, windows, seconds=SECONDS)
        print("\n" + "\n".join(repeats_in_words(job, repeats, found)))
        with threads(job.config.threads):
            numbers = cost_of(job)
    print("\n" + cost_in_words(job, numbers))
    return {
        "kind": "FASTA",
        "read_whole": reading.whole,
        "records": len(job.genome.names),
        "letters": letters,
        "held_out": describe_held_out(job.genome, job.parts),
        "training_bases": known,
        "repeated_records": [{"record": one, "other": two, "other_strand": turned} for one, two, turned in repeats],
        "held_out_windows": None if found is None else found._asdict(),
        "cost": numbers,
    }


class _Reading:
    """`read_dna` of FASTA files, but for what lies behind `MOST_BASES`; `whole` says whether nothing does."""

    def __init__(self) -> None:
        self.whole = True

    def __call__(self, config: PretrainConfig, *, tokens: int) -> Dna:
        paths = [Path(path) for path in config.genome] or [sample_path(GENOME)]
        records: list[FastaRecord] = []
        bases = 0
        for record in chosen_records(paths, records=names_in(config.records), keep_soft_masked=config.keep_soft_masked):
            if records and bases + len(record.codes) > MOST_BASES:
                self.whole = False
                break
            records.append(record)
            bases += len(record.codes)
        genome = Genome.of(records)
        names = names_in(config.held_out)
        named = [name for name in names if self.whole or name in genome.names]
        parts = split_held_out(genome, names=named, seed=config.seed)
        shared: dict[str, Any] = {
            "tokens": tokens, "k": config.k, "overlap": config.overlaps, "longest_unknown": config.longest_unknown,
        }  # fmt: skip
        windows = GenomeWindows(
            genome,
            parts.training,
            recipe=config.windows,
            seed=config.seed,
            reverse_complement_share=config.reverse_complement,
            **shared,
        )
        return Dna(genome, parts, windows, GenomeWindows(genome, parts.held_out, recipe="strided", **shared))


def letters_of(genome: Genome) -> dict[str, Any]:
    """Lengths, letters that are no base, and the share of G and C among the others."""
    counts = numpy.zeros(AMBIGUOUS + 2, dtype=numpy.int64)
    for start in range(0, len(genome.codes), _PIECE):
        counts += numpy.bincount(genome.codes[start : start + _PIECE], minlength=len(counts))
    lengths = [stop - start for start, stop in map(genome.record, range(len(genome.names)))]
    known = int(counts[:AMBIGUOUS].sum())
    return {
        "letters": int(counts.sum()),
        "no_base": int(counts[AMBIGUOUS:].sum()),
        "gc_share": float((counts[2] + counts[3]) / max(known, 1)),
        "shortest": min(lengths),
        "median": statistics.median(lengths),
        "longest": max(lengths),
    }


def letters_in_words(name: str, genome: Genome, letters: dict[str, Any], *, whole: bool) -> list[str]:
    """Records, letters, lengths, and a table of the longest records."""
    count = len(genome.names)
    lines = [f"{name}: {_records(count)}, {letters['letters']:,} letters"]
    if not whole:
        lines.append(f"more lies behind them and was not read: what follows is of the first {_records(count)} alone")
    share = 100 * letters["no_base"] / letters["letters"]
    lines.append(f"N and the like: {share:.2g} %; G and C: {100 * letters['gc_share']:.1f} % of the rest")
    if count > 1:
        lines.append(f"lengths: {letters['shortest']:,} to {letters['longest']:,}, median {letters['median']:,.0f}")
    longest = sorted(range(count), key=lambda number: genome.starts[number] - genome.starts[number + 1])
    rows = []
    for number in longest[:MOST_RECORDS]:
        start, stop = genome.record(number)
        unknown = int((genome.codes[start:stop] >= AMBIGUOUS).sum())
        rows.append([genome.names[number][:40], f"{stop - start:,}", f"{100 * unknown / (stop - start):.2f}"])
    lines += ["", table(["record", "letters", "N %"], rows)]
    return lines + ([f"and {count - MOST_RECORDS:,} shorter ones"] if count > MOST_RECORDS else [])


def parts_in_words(job: Job, known: int) -> list[str]:
    """What is held out, and how often the run reads the rest."""
    config = job.config
    held = wrapped(f"held out: {describe_held_out(job.genome, job.parts)}")
    some = [len(job.windows[number]) for number in range(min(64, len(job.windows)))]
    read = config.steps * config.accumulation * config.batch_size * statistics.fmean(some)
    return [
        held,
        wrapped(
            f"training: {known:,} known bases; the run reads {read:,.0f}, each {read / max(known, 1):.2g} times in the mean"
        ),
    ]


def repeats_in_words(job: Job, records: list[tuple[str, str, bool]], found: Repeated | None) -> list[str]:
    """Records and held-out windows that stand there twice."""
    lines = ["records that repeat another, base for base: " + (f"{len(records):,}" if records else "none")]
    lines += [f"  {one} is {two}" + (", other strand" if turned else "") for one, two, turned in records[:5]]
    if found is None:
        return [*lines, "held-out windows are too few or too short to be looked up in the training DNA"]
    lines.append(
        wrapped(
            f"held-out windows of {job.held_out.full} bases that stand in the training DNA too: {found.same_strand:,} of "
            f"{found.windows:,}, and {found.other_strand:,} on the other strand alone ({found.bases:,} training bases looked through)"
        )
    )
    if found.same_strand + found.other_strand:
        lines.append("The loss on held-out DNA is too low by these. Hold out other records.")
    return lines


def cost_of(job: Job) -> dict[str, Any]:
    """Seconds and bytes of the whole run, as JSON values: steps at the narrowest and the widest mask, those between in proportion."""
    from randommask.training.evaluation import log_frequencies, masked_losses
    from randommask.training.pretraining import Placement, measure_steps

    config, placement = job.config, Placement(job.device, job.config.precision)
    model, collator = model_and_collator(config)
    phases = _phases(collator.schedule, config.steps)
    costs = {
        width: measure_steps(
            model,
            job.windows,
            collator=collator.at_width(width),
            optimisation=optimisation_of(config),
            placement=placement,
        )
        for width in (min(phases), max(phases))
    }
    some = evenly(job.held_out, min(config.evaluation_windows, 64))
    frequencies = log_frequencies(job.genome, job.parts.training[:1], k=config.k)
    evaluation = measure(
        lambda number: masked_losses(
            model,
            some,
            collator.tokenizer,
            widths=(config.k, config.k + 8),
            frequencies=frequencies,
            autocast=placement.autocast,
        ),
        device=job.device,
        most=2,
    )
    windows = min(config.evaluation_windows, len(job.held_out))
    training = sum(steps * _between(costs, width) for width, steps in phases.items())
    memory = max(costs.values(), key=lambda cost: cost.memory or 0).memory
    return {
        "device": job.device.type,
        "threads": config.threads or torch.get_num_threads(),
        "steps": config.steps,
        "steps_measured": sum(cost.steps for cost in costs.values()),
        "seconds_a_step": {str(width): cost.seconds for width, cost in costs.items()},
        "seconds": training + evaluation.seconds * windows / len(some),
        "bytes": memory,
    }


def _phases(schedule: MaskSchedule | int, steps: int) -> dict[int, int]:
    """Width -> steps of the run that have it."""
    if not isinstance(schedule, MaskSchedule):
        return {schedule: steps}
    found = schedule.phases()
    ends = [*(phase.first_step for phase in found[1:]), steps]
    counted: dict[int, int] = {}
    for phase, end in zip(found, ends, strict=True):
        counted[phase.width] = counted.get(phase.width, 0) + end - phase.first_step
    return counted


def _between(costs: dict[int, Cost], width: int) -> float:
    """Seconds of a step at a width, in proportion between the two that were measured."""
    low, high = min(costs), max(costs)
    if low == high:
        return costs[low].seconds
    share = (width - low) / (high - low)
    return (1 - share) * costs[low].seconds + share * costs[high].seconds


def cost_in_words(job: Job, numbers: dict[str, Any]) -> str:
    """What the run will cost, at most 80 columns."""
    config = job.config
    windows = f"{config.batch_size} windows" + (f" x {config.accumulation}" if config.accumulation > 1 else "")
    steps = ", ".join(
        f"{time_in_words(seconds)} at width {width}" for width, seconds in numbers["seconds_a_step"].items()
    )
    return "\n".join(
        [
            f"cost of pretrain --method {config.method} --size {config.size},",
            f"measured here on {numbers['steps_measured']} steps ({numbers['device']}, threads: {numbers['threads']}):",
            f"  a step     {steps}; {windows}",
            f"  the run    about {time_in_words(numbers['seconds'])}: {numbers['steps']:,} steps",
            f"  memory     about {memory_in_words(numbers['bytes'])} at its largest",
        ]
    )


def _records(count: int) -> str:
    return f"{count:,} record" if count == 1 else f"{count:,} records"
