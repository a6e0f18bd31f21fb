"""Where the DNA of a pretraining comes from: FASTA files, or a stream of sequences by the `datasets` library.

Both end as a genome with its training and held-out parts, and training windows by number. Of a stream the genome holds its first
rows alone: those that k-mer frequencies are counted on, and the held-out ones to evaluate on.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from randommask.genome.cache import cached_genome
from randommask.genome.held_out import Parts, split_held_out
from randommask.genome.store import Genome, read_genome
from randommask.genome.streaming import Rows, StreamWindows, sample_stream
from randommask.genome.windows import GenomeWindows
from randommask.sample import GENOME, sample_path
from scarce_common_utils.command_line import Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.run_folder import to_stderr
from scarce_common_utils.unpacking import refuse_parquet_bomb

if TYPE_CHECKING:
    from randommask.commands.pretrain import PretrainConfig

_BUILDERS: Final = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
_PACKED: Final = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """A stream of sequences in place of FASTA files."""

    dataset: Annotated[
        str | None,
        Option(
            "In place of GENOME: a Hugging Face data set, or local csv, tsv, jsonl, parquet or txt files joined by commas, "
            "streamed by `datasets`; --held-out then names a split (or files) to evaluate on, by default one row in ten is held out"
        ),
    ] = None
    dataset_split: Annotated[str, Option("Of --dataset: the split to train on")] = "train"
    dataset_config: Annotated[str | None, Option("Of --dataset: the configuration, where it has several")] = None
    column: Annotated[str, Option("Of --dataset: the column of letters")] = "sequence"
    shuffle_buffer: Annotated[
        int, Option("Of --dataset: rows that each pass draws from; 0 keeps the stream's order", at_least=0, unit="rows")
    ] = 1000


class Dna(NamedTuple):
    """`genome` and its `parts`; training `windows` by number, and `held_out` windows side by side."""

    genome: Genome
    parts: Parts
    windows: Any
    held_out: GenomeWindows


def refuse_two_sources(config: "PretrainConfig") -> None:
    """Refuse options of the one source beside the other.

    Raises:
        UserError: both a genome and a stream, or an option that the source does not have.
    """
    if config.dataset is not None:
        if config.genome:
            raise UserError(f"--dataset is {config.dataset!r} and GENOME is {config.genome[0]}. Give one of the two.")
        for name in ("records", "cache"):
            if getattr(config, name) is not None:
                raise UserError(f"--{name} is for FASTA files, and the DNA comes from --dataset. Leave it out.")
        return
    for field in dataclasses.fields(StreamOptions):
        if field.name in config.given:
            raise UserError(
                f"--{field.name.replace('_', '-')} is for --dataset, which is missing. Give it, or leave this out."
            )


def read_dna(config: "PretrainConfig", *, tokens: int) -> Dna:
    """Read what the options name, and divide it; write nothing but the cache.

    Raises:
        UserError: anything wrong with files, the stream, or options that do not fit the DNA.
    """
    shared: dict[str, Any] = {
        "tokens": tokens,
        "k": config.k,
        "overlap": config.overlaps,
        "longest_unknown": config.longest_unknown,
    }
    drawn: dict[str, Any] = {
        "recipe": config.windows,
        "seed": config.seed,
        "reverse_complement_share": config.reverse_complement,
    }
    if config.dataset is None:
        genome = _genome(config)
        parts = split_held_out(genome, names=names_in(config.held_out), seed=config.seed)
        windows = GenomeWindows(genome, parts.training, **drawn, **shared)
    else:
        training = _rows(config, config.dataset, split=config.dataset_split, shuffle_buffer=config.shuffle_buffer)
        other = None if config.held_out is None else _held_out_rows(config)
        windows = StreamWindows(training, side="training" if other is None else "all", **drawn, **shared)
        genome, parts = sample_stream(
            training, other, full=windows.full, windows=config.evaluation_windows, seed=config.seed
        )
    return Dna(genome, parts, windows, GenomeWindows(genome, parts.held_out, recipe="strided", **shared))


def names_in(text: str | None) -> list[str]:
    """Names joined by commas."""
    return [] if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _genome(config: "PretrainConfig") -> Genome:
    paths = [Path(path) for path in config.genome] or [sample_path(GENOME)]
    chosen: dict[str, Any] = {"records": names_in(config.records), "keep_soft_masked": config.keep_soft_masked}
    if config.cache is None:
        return read_genome(paths, **chosen)
    return cached_genome(paths, folder=config.cache, tell=lambda text: to_stderr(f"randommask: {text}"), **chosen)


def _held_out_rows(config: "PretrainConfig") -> Rows:
    """The split of the data set, or the local files, that --held-out names."""
    assert config.dataset is not None
    assert config.held_out is not None
    if _are_files(config.dataset):
        return _rows(config, config.held_out, split=config.dataset_split, flag="--held-out")
    return _rows(config, config.dataset, split=config.held_out)


def _are_files(name: str) -> bool:
    return any(Path(one).suffix in (*_BUILDERS, *_PACKED) for one in names_in(name))


def _rows(config: "PretrainConfig", name: str, *, split: str, flag: str = "--dataset", shuffle_buffer: int = 0) -> Rows:
    """A split of a data set, or local files, as rows.

    Raises:
        UserError: `datasets` is missing, or finds no such data; what it says is told.
    """
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise UserError(
            "--dataset is streamed by `datasets`, which is not installed. Install it: pip install 'randommask[hf]'"
        ) from error
    local = _are_files(name) or flag == "--held-out"
    try:
        if local:
            source: Any = load_dataset(
                **_local([Path(one) for one in names_in(name)], flag=flag), split="train", streaming=True
            )
        else:
            source = load_dataset(name, config.dataset_config, split=split, streaming=True)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, LookupError, DatasetsError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise UserError(f"{flag} is {name!r}, which cannot be opened as split {split!r} ({reason}).") from error
    return Rows(
        source, config.column, name if local else f"{name}, split {split}", shuffle_buffer, config.keep_soft_masked
    )


def _refuse_parquet(file: Path, *, flag: str) -> None:
    try:
        refuse_parquet_bomb(file, str(file), packed=file.stat().st_size)
    except UserError:
        raise
    except Exception as error:  # pyarrow raises kinds of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{flag} names {file}, which cannot be read as parquet ({reason}).") from error


def _local(files: Sequence[Path], *, flag: str) -> dict[str, Any]:
    """What `datasets.load_dataset` is told of local files of one kind, all of them its split `train`.

    Raises:
        UserError: a file is missing, or the files are of several kinds or of none; it is named.
    """
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UserError(f"{flag} names {missing}, which does not exist. Give the paths of files.")
    kinds = [(Path(file.stem) if file.suffix in _PACKED else file).suffix for file in files]
    for file, kind in zip(files, kinds, strict=True):
        if kind not in _BUILDERS or kind != kinds[0]:
            raise UserError(
                f"{flag} names {file}, which is no {kinds[0] if kinds[0] in _BUILDERS else 'csv, tsv, jsonl, parquet or txt'} file. "
                "Give files of one kind."
            )
    if kinds[0] == ".parquet":
        for file in files:
            _refuse_parquet(file, flag=flag)
    more = {"sep": "\t"} if kinds[0] == ".tsv" else {}
    return {"path": _BUILDERS[kinds[0]], "data_files": [str(file.resolve()) for file in files], **more}
