"""`randommask observe RUN`: a pretraining run looked into: loss against its floors, k-mer embeddings, attention, at each checkpoint."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch

from randommask.commands.pretrain import PretrainConfig, build_job, evenly, model_and_collator
from randommask.commands.words import wrapped
from randommask.genome.store import read_genome
from randommask.genome.windows import GenomeWindows
from scarce_common_utils.checkpoints import checkpoint_step, verify, write_atomically
from scarce_common_utils.command_line import Operands, Option, resumed_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import choose_device
from scarce_common_utils.progress import Progress
from scarce_common_utils.provenance import data_digest_of, stamp, tell_data
from scarce_common_utils.resumption import threads
from scarce_common_utils.run_folder import RunFolder, to_stderr

if TYPE_CHECKING:
    from randommask.analysis.embeddings import Flat
    from randommask.analysis.report import Levels, Look
    from randommask.analysis.staircase import Line, PhaseLoss

OBSERVE_HINTS = {
    "model": "RUN, without a flag: the folder of a run of `randommask pretrain`",
    "genome": "--data",
    "tsne": "--picture tsne",
    "resume": "RUN, without a flag",
}


@dataclass(frozen=True, kw_only=True)
class ObserveConfig:
    """Options of `randommask observe`."""

    run: Annotated[str | None, Operands("RUN", "Run folder of `randommask pretrain`, finished or going on")] = None
    data: Annotated[Path | None, Option("FASTA file to look at; by default the DNA that the run itself holds out")] = (
        None
    )
    windows: Annotated[int, Option("Windows of that DNA to look at, at most", at_least=1)] = 128
    checkpoints: Annotated[int, Option("Checkpoints to look into, evenly spread, the last one always", at_least=1)] = 12
    picture: Annotated[Literal["pca", "tsne"], Option("How the k-mer embeddings are drawn in a plane")] = "pca"
    out: Annotated[
        Path | None, Option("Folder for figures/ and observations.json, written over; by default RUN itself")
    ] = None
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    given: frozenset[str] = frozenset()


class Dna(NamedTuple):
    """What a run is looked at on: windows as training draws them, held-out ones, log frequencies or None, and words for it."""

    drawn: list[Any]
    held_out: list[Any]
    frequencies: torch.Tensor | None
    words: str


class Snapshot(NamedTuple):
    """Weights after `step` steps, from `folder`; None for the start, made again from the options."""

    step: int
    folder: Path | None


class Looking(NamedTuple):
    """What every look at a run shares."""

    config: ObserveConfig
    options: PretrainConfig
    dna: Dna
    phases: "list[PhaseLoss]"
    device: torch.device


def observe(config: ObserveConfig) -> dict[str, Any]:
    """Look inside a pretraining run: its loss against the floors, its k-mer embeddings and its attention."""
    run, options = _run(config)
    device = choose_device(config.device)
    from randommask.training.quiet import quiet_transformers

    with quiet_transformers(), threads(options.threads):
        dna = _dna(config, options, run)
        lines, phases = _staircase(run, options, dna)
        missing: list[str] = []
        if not lines:
            missing.append("metrics.jsonl holds no line yet, so no loss is drawn.")
        snapshots = _snapshots(run, config, options, missing)
        looking = Looking(config, options, dna, phases, device)
        looked = list(_looks(snapshots, looking, missing=missing))
        levels = _levels(options, dna)
        flats = _flats(looked, config)
    looks = [look for look, _ in looked]
    return _report(run, looking, lines=lines, looks=looks, flats=flats, levels=levels, missing=missing)


def _run(config: ObserveConfig) -> tuple[RunFolder, PretrainConfig]:
    """The run folder and the options that it was made with."""
    if config.run is None:
        raise UserError("RUN is missing. Give the folder of a run of `randommask pretrain`.")
    path = Path(config.run)
    if not (path / "config.json").is_file():
        what = "holds no config.json, so it is no run folder" if path.is_dir() else "is no folder"
        raise UserError(f"{path} {what}. Give the folder of a run of `randommask pretrain`.")
    if config.out is not None and config.out.is_file():
        raise UserError(f"--out is {config.out}, which is a file. Name a folder.")
    run = RunFolder.reopen(path, package="randommask", command="pretrain")
    return run, resumed_config(PretrainConfig(), run.config)


def _dna(config: ObserveConfig, options: PretrainConfig, run: RunFolder) -> Dna:
    """The windows to look at; nothing is written.

    Raises:
        UserError: the DNA cannot be read, is not what the run was trained on, or holds no window.
    """
    from randommask.training.evaluation import log_frequencies

    if config.data is not None:
        genome = read_genome([config.data])
        tell_data(genome.content_hash)
        records = [genome.record(index) for index in range(len(genome.names))]
        assert options.tokens is not None
        shared: dict[str, Any] = {
            "tokens": options.tokens,
            "k": options.k,
            "overlap": options.overlaps,
            "longest_unknown": options.longest_unknown,
        }
        drawn = GenomeWindows(genome, records, recipe=options.windows, seed=options.seed, **shared)
        held_out = GenomeWindows(genome, records, recipe="strided", **shared)
        return Dna(_first(drawn), evenly(held_out, config.windows), None, config.data.name)
    try:
        job = build_job(dataclasses.replace(options, device="cpu"))
    except UserError as error:
        raise UserError(f"The DNA of this run cannot be used: {error} Or name other DNA by --data.") from error
    split = run.path / "split.json"
    if split.is_file():
        tell_data(data_digest_of(run.read_json(split.name)))
    if split.is_file() and run.read_json(split.name)["content_hash"] != job.genome.content_hash:
        raise UserError(
            f"The DNA in {', '.join(options.genome) or 'the sample'} is not what {split} was made from (content hash "
            f"{job.genome.content_hash}). Bring it back to what it was, or name DNA by --data."
        )
    frequencies = log_frequencies(job.genome, job.parts.training, k=options.k)
    return Dna(_first(job.windows), evenly(job.held_out, config.windows), frequencies, "the run's held-out DNA")


def _first(windows: GenomeWindows) -> list[Any]:
    return [windows[number] for number in range(min(256, len(windows)))]


def _staircase(run: RunFolder, options: PretrainConfig, dna: Dna) -> "tuple[list[Line], list[PhaseLoss]]":
    from randommask.analysis.staircase import Step, log_lines, staircase
    from randommask.training.pretraining import expected_by_phase

    lines = log_lines(run.metrics())
    expected = expected_by_phase(dna.drawn, model_and_collator(options)[1])
    steps = [Step(phase.width, phase.step, phase.floor) for phase in expected]
    return lines, staircase(lines, steps, total_steps=options.steps)


def _snapshots(run: RunFolder, config: ObserveConfig, options: PretrainConfig, missing: list[str]) -> list[Snapshot]:
    """The start, and the whole checkpoints evenly spread over those that are there; sentences on what is not go to `missing`."""
    found: dict[int, Path] = {}
    for path in sorted(run.checkpoints.glob("step-*")):
        if not path.name.removeprefix("step-").isdigit():
            continue
        try:
            verify(path)
        except (UserError, OSError):
            missing.append(f"checkpoint {path.name} is torn, altered or gone, and passed over.")
        else:
            found[checkpoint_step(path)] = path
    if (run.path / "result.json").is_file() and (run.model / "config.json").is_file():
        found.setdefault(options.steps, run.model)
    if not found:
        missing.append("no whole checkpoint is there yet: only the start is looked into.")
    elif len(found) < 4:
        missing.append(
            f"only {len(found)} checkpoint{'s are' if len(found) > 1 else ' is'} there (after {', '.join(map(str, sorted(found)))} "
            "steps); `randommask pretrain --keep-checkpoints 20` keeps more."
        )
    steps = sorted(found)
    count = min(config.checkpoints, len(steps))
    chosen = [steps[(place + 1) * len(steps) // count - 1] for place in range(count)]
    return [Snapshot(0, None), *(Snapshot(step, found[step]) for step in chosen if step)]


def _looks(snapshots: list[Snapshot], looking: Looking, *, missing: list[str]) -> "Iterator[tuple[Look, torch.Tensor]]":
    """Look into one snapshot after the other; one that vanishes meanwhile, in a run that goes on, is said."""
    with Progress(len(snapshots), "checkpoints", label="randommask") as bar:
        for snapshot in snapshots:
            try:
                model, tokenizer = _weights(snapshot, looking.options)
            except (OSError, ValueError, RuntimeError) as error:
                missing.append(f"the weights of step {snapshot.step} cannot be read ({str(error).splitlines()[0]}).")
                continue
            yield _look(model.to(looking.device), tokenizer, snapshot.step, looking)
            bar.advance(1)


def _weights(snapshot: Snapshot, options: PretrainConfig) -> tuple[Any, Any]:
    model, collator = model_and_collator(options)
    if snapshot.folder is not None:
        model = type(model).from_pretrained(snapshot.folder)
    return model, collator.tokenizer


def _look(model: Any, tokenizer: Any, step: int, looking: Looking) -> "tuple[Look, torch.Tensor]":
    from randommask.analysis.attention import attention_measures
    from randommask.analysis.embeddings import kmer_rows, neighbour_purity
    from randommask.analysis.report import FixedLoss, Look
    from randommask.training.evaluation import masked_losses

    k, dna = looking.options.k, looking.dna
    rows = masked_losses(model, dna.held_out, tokenizer, widths=(k, k + 8), frequencies=dna.frequencies)
    model.set_attn_implementation("eager")  # scaled-dot-product attention keeps no weights
    words = kmer_rows(model.get_input_embeddings().weight, k=k)
    look = Look(
        step,
        [phase.width for phase in looking.phases if phase.first <= max(0, step - 1)][-1],
        neighbour_purity(words, k=k),
        attention_measures(model, dna.held_out, tokenizer),
        [FixedLoss(row.width, row.loss, row.floor, row.ceiling) for row in rows],
    )
    return look, words.detach().cpu().clone()


def _levels(options: PretrainConfig, dna: Dna) -> "Levels":
    from randommask.analysis.attention import row_lengths, uniform_level
    from randommask.analysis.embeddings import chance
    from randommask.analysis.report import Levels

    lengths = row_lengths(dna.held_out, model_and_collator(options)[1].tokenizer)
    return Levels(chance(options.k), uniform_level(lengths, reach=options.k - 1))


def _flats(looked: "list[tuple[Look, torch.Tensor]]", config: ObserveConfig) -> "list[tuple[Look, Flat]]":
    """The embeddings in a plane of those checkpoints that are drawn."""
    from randommask.analysis.embeddings import flatten
    from randommask.analysis.report import panels_of

    chosen = [looked[place] for place in panels_of(len(looked))]
    if config.picture == "tsne":
        to_stderr(f"randommask: t-SNE of {len(chosen)} checkpoints, half a minute each at k = 6")
    return [(look, flatten(words, picture=config.picture)) for look, words in chosen]


def _report(
    run: RunFolder,
    looking: Looking,
    *,
    lines: "list[Line]",
    looks: "list[Look]",
    flats: "list[tuple[Look, Flat]]",
    levels: "Levels",
    missing: list[str],
) -> dict[str, Any]:
    """observations.json, figures and the printed tables."""
    from randommask.analysis import report

    config, options, dna, phases, device = looking
    folder = config.out or run.path
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        **{name: getattr(options, name) for name in ("method", "size", "start", "k", "steps", "seed")},
        "digest": run.digest,
        "data": dna.words,
        "windows": len(dna.held_out),
        "device": device.type,
        **stamp(),
    }
    content = report.observations(run=about, phases=phases, looks=looks, levels=levels, missing=missing)
    write_atomically(folder / "observations.json", (json.dumps(content, indent=1) + "\n").encode())
    title = f"{options.method}, {options.size}, {options.start} start, k = {options.k}, seed {options.seed} (one seed)"
    figures = _figures(folder / "figures", title, looking, lines=lines, looks=looks, flats=flats, levels=levels)
    print(
        f"\n{options.method}, {options.size}, {options.start} start, k = {options.k}, seed {options.seed}; {dna.words}\n"
    )
    print(report.phase_rows(phases))
    print("\n" + report.look_rows(looks, levels))
    print("\n" + report.attention_rows(looks[-1], levels))
    if options.start == "structured":
        print(
            wrapped("The structured start has such neighbours before the first step: their purity is no finding here.")
        )
    for sentence in missing:
        print(wrapped(f"Missing: {sentence}"))
    print(wrapped(f"One seed ({options.seed}) says little."))
    print(f"Figures: {folder / 'figures'}\n" + wrapped("  " + ", ".join(path.name for path in figures)))
    print(f"Numbers: {folder / 'observations.json'}")
    return {"observations": content, "figures": figures}


def _figures(
    folder: Path,
    title: str,
    looking: Looking,
    *,
    lines: "list[Line]",
    looks: "list[Look]",
    flats: "list[tuple[Look, Flat]]",
    levels: "Levels",
) -> list[Path]:
    from randommask.analysis import report

    k, picture = looking.options.k, "PCA" if looking.config.picture == "pca" else "t-SNE"
    return [
        report.draw_staircase(
            folder / "staircase.png", lines=lines, phases=looking.phases, looks=looks, title=f"{title}: loss and floors"
        ),
        report.draw_purity(folder / "purity.png", looks, levels, title=f"{title}: neighbours of k-mer embeddings"),
        report.draw_embeddings(folder / "embeddings.png", flats, k=k, title=f"{title}: k-mer embeddings, {picture}"),
        report.draw_attention(
            folder / "attention.png", looks, levels, title=f"{title}: attention by layer, a dot a head"
        ),
        report.draw_attention_over_training(
            folder / "attention_over_training.png", looks, levels, title=f"{title}: attention, mean of a layer's heads"
        ),
    ]
