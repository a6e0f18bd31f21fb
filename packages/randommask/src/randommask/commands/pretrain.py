"""`randommask pretrain GENOME...`: from FASTA files to a pretrained, evaluated BERT over k-mers, from the library's parts alone."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch

from randommask.commands.dna import Dna, StreamOptions, read_dna, refuse_two_sources
from randommask.commands.launch import begin_together, in_all_processes, last_checkpoint, open_run
from randommask.commands.outcome import report
from randommask.commands.words import integers_of
from randommask.genome.held_out import Parts
from randommask.genome.store import Genome
from randommask.genome.windows import GenomeWindows
from randommask.methods import METHODS
from randommask.schedule import MaskSchedule
from randommask.training.processes import Processes, share_of_batch
from scarce_common_utils.command_line import Operands, Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.manners import Result
from scarce_common_utils.options import ModelOptions, RunOptions, choose_device
from scarce_common_utils.resumption import check_split, delivered, threads
from scarce_common_utils.run_folder import RunFolder

# Names that DNABERT, transformers' run_mlm.py and ProkBERT have for our options, for the error of an unknown option.
PRETRAIN_HINTS = {
    "kmer": "--k",
    "mlm_probability": "--probability",
    "max_steps": "--steps",
    "per_gpu_train_batch_size": "--batch-size",
    "per_device_train_batch_size": "--batch-size",
    "gradient_accumulation_steps": "--accumulation",
    "lr": "--learning-rate",
    "warmup_percent": "--warm-up",
    "warmup_steps": "--warm-up (a share of the steps)",
    "block_size": "--tokens",
    "max_seq_length": "--tokens",
    "output_dir": "--out",
    "train_data_file": "GENOME, without a flag",
    "model": "--size",
}
_LEARNING_RATES = {"tiny": 3e-3, "small": 1e-3, "medium": 4e-4, "base": 4e-4}
_TOKENS = {"tiny": 64, "small": 128, "medium": 510, "base": 510}
_WITH_SCHEDULE = ("randommask", "uniform", "constant_share")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StreamOptions, RunOptions, ModelOptions):
    """Options of `randommask pretrain`."""

    genome: Annotated[
        tuple[str, ...],
        Operands("GENOME", "FASTA files, plain or gzipped; by default 1 Mb of human chromosome 22, built in"),
    ] = ()
    method: Annotated[
        Literal["randommask", "dnabert", "constant", "constant_share", "iid", "uniform"] | None,
        Option(
            "How wide the masks are: widening, k, k + 8, widening at one share, single tokens, widths drawn; by default "
            "randommask, and iid with --no-overlap"
        ),
    ] = None
    steps: Annotated[
        int, Option("Optimizer steps; the schedule and the learning rate are scaled to them", at_least=1)
    ] = 2000
    size: Annotated[Literal["tiny", "small", "medium", "base"], Option("Size of the BERT; base is DNABERT's")] = "tiny"
    start: Annotated[
        Literal["usual", "structured"],
        Option("Initial weights: BERT's, or k-mer embeddings as sums of place-and-base vectors (ours)"),
    ] = "usual"
    k: Annotated[int, Option("Bases a k-mer", at_least=1, at_most=8)] = 6
    overlap: Annotated[
        bool | None,
        Option("k-mers at every base, as by default, or side by side, where each masked token hides its k bases"),
    ] = None
    widths: Annotated[
        str | None,
        Option("Mask widths of the phases in tokens, such as 6,8,10; by default k, k+2, ..., k+8 (our reading)"),
    ] = None
    milestones: Annotated[
        str | None,
        Option("First step of each phase in a run of 480,000; by default 0,30000,100000,200000,300000 (our reading)"),
    ] = None
    probability: Annotated[
        float | None,
        Option("Chance of a token to be a centre; by default 0.025 at k = 6, else 0.15 / k", above=0.0, at_most=1.0),
    ] = None
    records: Annotated[
        str | None, Option("Records to use, such as chr1,chr2; by default all. Name those of --held-out here too")
    ] = None
    cache: Annotated[
        Path | None,
        Option("Folder for the genome as a memory-mapped file, a byte a base: a large one is then read once"),
    ] = None
    keep_soft_masked: Annotated[
        bool, Option("Whether lower case is the same base; --no-keep-soft-masked leaves repeats out like N")
    ] = True
    held_out: Annotated[
        str | None,
        Option(
            "Records held out for evaluation, such as chr21,chr22; by default the last tenth of each record over 100 kb; "
            "where all are shorter, a tenth of the records (at least one), drawn from the seed; of a single record its last "
            "tenth. Of --dataset: the split to evaluate on"
        ),
    ] = None
    windows: Annotated[
        Literal["dnabert", "full", "strided"],
        Option("Half full and half random lengths from random places, full lengths, or side by side"),
    ] = "dnabert"
    tokens: Annotated[
        int | None,
        Option("k-mers of a full window; by default 64 (tiny), 128 (small), 510", at_least=1, at_most=32_766),
    ] = None
    reverse_complement: Annotated[
        float, Option("Share of windows read from the other strand", at_least=0.0, at_most=1.0)
    ] = 0.0
    longest_unknown: Annotated[
        int, Option("Longest run of N and the like inside a window", at_least=0, unit="bases")
    ] = 0
    batch_size: Annotated[int, Option("Windows a batch, of all devices together", at_least=1)] = 16
    accumulation: Annotated[int, Option("Batches a step", at_least=1)] = 1
    learning_rate: Annotated[
        float | None, Option("At its peak; by default 3e-3 (tiny), 1e-3 (small), 4e-4", above=0.0, at_most=1.0)
    ] = None
    warm_up: Annotated[float, Option("Share of the steps with a rising learning rate", at_least=0.0, below=1.0)] = 0.1
    beta2: Annotated[float, Option("Of AdamW; DNABERT has 0.98", at_least=0.0, below=1.0)] = 0.98
    weight_decay: Annotated[float, Option("Of AdamW, on matrices", at_least=0.0)] = 0.01
    dropout: Annotated[
        float | None, Option("On the states; by default 0 (tiny), 0.1. Attention dropout is 0", at_least=0.0, below=1.0)
    ] = None
    evaluation_windows: Annotated[int, Option("Held-out windows to evaluate on, at most", at_least=1)] = 512
    workers: Annotated[int, Option("Loading processes; none changes a number", at_least=0)] = 0
    threads: Annotated[
        int | None, Option("Of torch on a CPU; by default 1 for tiny, else torch's choice", at_least=1)
    ] = None
    checkpoint_every: Annotated[int | None, Option("By default a tenth of the run", at_least=1, unit="steps")] = None
    keep_checkpoints: Annotated[
        int, Option("Newest checkpoints that stay; `randommask observe` looks into each", at_least=1)
    ] = 2

    def __post_init__(self) -> None:
        """Refuse options that do not fit together."""
        if not self.unsettled:
            refuse_two_sources(self)
        for name in ("widths", "milestones"):
            if getattr(self, name) is not None and self.masking not in _WITH_SCHEDULE:
                way = f"--method {self.method}" if self.method else "--no-overlap, where --method is iid by default"
                raise UserError(f"--{name} changes nothing with {way}, whose width is fixed. Leave it out.")
        if self.probability is not None and self.method == "constant_share":
            raise UserError("--probability changes nothing with --method constant_share, which draws 0.15 / width.")
        self.schedule()

    @property
    def masking(self) -> str:
        """The method; where none was named, k-mers side by side are masked one by one, as in BERT: wider masks hide no more."""
        return self.method or ("randommask" if self.overlaps else "iid")

    @property
    def overlaps(self) -> bool:
        """Whether k-mers overlap: so they do where nothing else is said."""
        return self.overlap is not False

    def schedule(self) -> MaskSchedule:
        """The widening schedule that the options name, scaled to the steps."""
        try:
            return MaskSchedule(
                k=self.k,
                widths=integers_of("--widths", self.widths),
                milestones=integers_of("--milestones", self.milestones),
                total_steps=self.steps,
            )
        except UserError:
            raise
        except ValueError as error:
            raise UserError(str(error)) from error


class Job(NamedTuple):
    """Everything that a run needs, built before its folder is made."""

    config: PretrainConfig
    device: torch.device
    genome: Genome
    parts: Parts
    windows: Any  # by number: of a genome or a stream
    held_out: GenomeWindows


def pretrain(config: PretrainConfig) -> Result:
    """Pretrain a BERT on DNA k-mers, with a mask that widens, and evaluate it on held-out DNA."""
    return in_all_processes(lambda: _pretrain(config))


def _pretrain(config: PretrainConfig) -> Result:
    began = time.monotonic()
    run, config, processes = begin_together(
        config,
        command="pretrain",
        may_change=("device", "workers", "checkpoint_every", "keep_checkpoints", "cache"),
    )
    if run is not None and config.overlaps != (run.config.get("overlap") is not False):
        raise UserError(
            "--no-overlap is given, but the run to resume has overlapping k-mers, and k-mers side by side would change its "
            "result. Leave --no-overlap out, or start a new run."
        )
    if config.cache is not None and processes.count > 1:
        processes.by_main(lambda: build_job(config).device)  # makes the cache, which the others then read
    job = build_job(config)
    run = open_run(run, processes, make=lambda: _made(job.config))
    with run, threads(job.config.threads):
        processes.by_main(lambda: _check(run, job))
        _fit(run, job, processes, began=began)
        return delivered(run, push_to_hub=config.push_to_hub) if processes.main else None


def _made(config: PretrainConfig) -> RunFolder:
    name = f"randommask-pretrain-{config.method}-seed-{config.seed}"
    return RunFolder.create(
        config.out,
        default_name=name,
        package="randommask",
        command="pretrain",
        config=stored_config(config),
        given=config.written,
    )


def stored_config(config: PretrainConfig) -> dict[str, Any]:
    """What a run folder keeps; overlapping k-mers are not told, as in runs that knew no others, so that their digests stay."""
    return {name: value for name, value in plain_config(config).items() if name != "overlap" or value is False}


def _check(run: RunFolder, job: Job) -> None:
    """Write which DNA is trained on and which is held out, or compare it with what the run began with."""
    split = {
        "records": list(job.genome.names),
        "content_hash": job.genome.content_hash,
        "training": [list(stretch) for stretch in job.parts.training],
        "held_out": [list(stretch) for stretch in job.parts.held_out],
    }
    check_split(run, split, place=job.config.dataset or ", ".join(job.config.genome) or "the sample")


def build_job(config: PretrainConfig, read: Callable[..., Dna] = read_dna) -> Job:
    """Read the DNA (by `read`) and divide it; write nothing.

    Raises:
        UserError: anything wrong with files, device, or options that do not fit the DNA.
    """
    device = choose_device(config.device)
    if device.type == "cuda" and device.index not in (None, 0):
        raise UserError(
            f"--device is {config.device!r}, but the Trainer takes the first visible one. Set CUDA_VISIBLE_DEVICES={device.index} "
            "and use --device cuda."
        )
    share_of_batch(config.batch_size)
    schedule = config.schedule()
    tokens = config.tokens or _TOKENS[config.size]
    assert schedule.widths is not None
    assert schedule.milestones is not None
    widening = config.masking in _WITH_SCHEDULE
    config = dataclasses.replace(
        config,
        method=config.masking,
        widths=",".join(map(str, schedule.widths)) if widening else None,
        milestones=",".join(map(str, schedule.milestones)) if widening else None,
        tokens=tokens,
        learning_rate=config.learning_rate or _LEARNING_RATES[config.size],
        threads=config.threads or (1 if config.size == "tiny" else None),
    )
    return Job(config, device, *read(config, tokens=tokens))


def _fit(run: RunFolder, job: Job, processes: Processes, *, began: float) -> None:
    """Train from the newest checkpoint, or from the start, to the end; the first process evaluates, saves, draws, prints."""
    from randommask.training import pretraining
    from randommask.training.evaluation import log_frequencies, masked_losses
    from randommask.training.quiet import quiet_transformers

    config = job.config
    with quiet_transformers():
        model, collator = model_and_collator(config)
        checkpoint = last_checkpoint(run, processes)
        placement = pretraining.Placement(job.device, config.precision, config.workers)
        every = config.checkpoint_every or max(1, config.steps // 10)
        pretraining.pretrain(
            model,
            job.windows,
            collator=collator,
            optimisation=optimisation_of(config),
            placement=placement,
            watch=pretraining.Watch(
                run.log, run.checkpoints, max(1, config.steps // 100), every, keep=config.keep_checkpoints
            ),
            resume_from=checkpoint,
        )
        if not processes.main:
            return
        rows = masked_losses(
            model,
            evenly(job.held_out, config.evaluation_windows),
            collator.tokenizer,
            widths=(config.k, config.k + 8),
            frequencies=log_frequencies(job.genome, job.parts.training, k=config.k),
            autocast=placement.autocast,
        )
        model.save_pretrained(run.model)
        collator.tokenizer.save_pretrained(run.model)
    some = [job.windows[number] for number in range(min(256, len(job.windows)))]
    expected = pretraining.expected_by_phase(some, collator)
    report(run, job, rows=rows, expected=expected, seconds=time.monotonic() - began)


def model_and_collator(config: PretrainConfig) -> tuple[Any, Any]:
    """A model at its start, and the collator of the chosen method with its tokenizer."""
    from randommask.collator import RandomMaskCollator
    from randommask.models.masked_bert import MaskedBert
    from randommask.models.presets import bert_config
    from randommask.models.starts import start_weights
    from randommask.tokenizer import KmerTokenizer

    assert config.tokens is not None
    positions = config.tokens + 2  # [CLS] and [SEP]
    model = MaskedBert(
        bert_config(config.size, k=config.k, positions=max(512, positions), hidden_dropout=config.dropout)
    )
    start_weights(model, config.start, k=config.k, seed=config.seed)
    masking = METHODS[config.masking](config.schedule())
    if config.probability is not None:
        masking = masking._replace(probability=config.probability)
    tokenizer = KmerTokenizer(k=config.k, overlap=config.overlaps, model_max_length=positions)
    return model, RandomMaskCollator(tokenizer, **masking._asdict(), seed=config.seed, accumulation=config.accumulation)


def optimisation_of(config: PretrainConfig) -> Any:
    """Steps and optimizer of the options."""
    from randommask.training.pretraining import Optimisation

    assert config.learning_rate is not None
    return Optimisation(
        config.steps,
        config.batch_size,
        accumulation=config.accumulation,
        learning_rate=config.learning_rate,
        warm_up_share=config.warm_up,
        beta2=config.beta2,
        weight_decay=config.weight_decay,
    )


def evenly(windows: GenomeWindows, most: int) -> list[Any]:
    """At most `most` windows, spread evenly over all."""
    count = min(most, len(windows))
    return [windows[number * len(windows) // count] for number in range(count)]
