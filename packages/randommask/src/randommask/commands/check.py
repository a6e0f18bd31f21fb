"""`randommask check FILE`: what is in DNA or in a labelled table, and what `pretrain` or `finetune` with these options would cost here.

A FASTA file is looked at for `pretrain`, a CSV, TSV or parquet table for `finetune`; options are those of the command in question, with
its defaults. Nothing is written.
"""

import dataclasses
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from randommask.commands.check_dna import check_dna
from randommask.commands.check_table import check_table
from randommask.commands.finetune import FINETUNE_HINTS, FinetuneConfig
from randommask.commands.pretrain import PRETRAIN_HINTS, PretrainConfig
from scarce_common_utils.command_line import Operands
from scarce_common_utils.errors import UserError

CHECK_HINTS = (
    FINETUNE_HINTS | PRETRAIN_HINTS | {"data_path": "FILE, without a flag", "train_data_file": "FILE, without a flag"}
)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(FinetuneConfig, PretrainConfig):  # pyright: ignore[reportIncompatibleVariableOverride]  (either one's alone is used)
    """Options of `randommask check`: those of the run that it looks ahead at, but for where that writes and goes on."""

    files: Annotated[
        tuple[str, ...],
        Operands(
            "FILE",
            "FASTA files, or one CSV, TSV or parquet of labelled sequences; by default the built-in chromosome 22",
        ),
    ] = ()
    genome: tuple[str, ...] = ()
    train: str | None = None
    out: Path | None = None
    resume: Path | None = None
    config: Path | None = None
    licence: str | None = None
    push_to_hub: str | None = None

    def __post_init__(self) -> None:
        """What fits together is known once the kind of the files is."""


def check(config: CheckConfig) -> dict[str, Any]:
    """Look at DNA or labelled sequences before a run: counts, lengths, N, labels, repeats, and what the run will cost here."""
    if config.dataset is not None:
        raise UserError("--dataset is a stream without an end to look at. Give files: randommask check FILE")
    tables = [
        name for name in config.files if not _first_bytes(Path(name)).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b">")
    ]
    if not tables:
        return check_dna(_of(config, PretrainConfig, command="pretrain", genome=config.files))
    if len(config.files) > 1:
        raise UserError(
            f"{tables[0]} is a table, and {len(config.files)} files are given. Give one; --dev and --test name the others."
        )
    return check_table(_of(config, FinetuneConfig, command="finetune", train=tables[0]))


def _of(config: CheckConfig, kind: type, *, command: str, **operands: Any) -> Any:
    """The configuration of the run: what was given, and the command's own defaults.

    Raises:
        UserError: an option of the other command was given, or options do not fit together.
    """
    known = {field.name for field in dataclasses.fields(kind)}
    given = config.given - {"files"}
    strange = sorted(given - known)
    if strange:
        what = "FASTA" if command == "pretrain" else "labelled tables"
        raise UserError(
            f"--{strange[0].replace('_', '-')} is no option of `randommask {command}`, which is for {what}. Leave it out."
        )
    return kind(**{name: getattr(config, name) for name in given}, **operands, given=given)


def _first_bytes(path: Path) -> bytes:
    """Of the file, unpacked where it is gzip; what cannot be unpacked is told by who reads it whole.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file. Give FASTA files, or a CSV, TSV or parquet table.")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        if not head.startswith(b"\x1f\x8b"):
            return head
        with gzip.open(path) as unpacked:
            return unpacked.read(4096)
    except (OSError, EOFError, zlib.error):
        return b""
