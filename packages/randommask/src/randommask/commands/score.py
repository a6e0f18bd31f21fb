"""`randommask score MODEL FILE [-o OUT.csv]`: masked log-likelihoods of sequences, as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy

from randommask.alphabet import base_codes, bases, reverse_complement
from randommask.commands.output import AUTOCAST, model_and_file, placed, refuse_used_file, write_new
from randommask.genome.sequences import STANDARD, Sequences, read_sequences
from scarce_common_utils.command_line import Operands, Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import Precision
from scarce_common_utils.progress import Progress
from scarce_common_utils.run_folder import to_stderr

if TYPE_CHECKING:
    from randommask.training.loading import Loaded

SCORE_HINTS = {
    "output_dir": "--output, a file",
    "out": "--output (-o), a file",
    "model_name_or_path": "MODEL, without a flag",
    "data_path": "FILE, without a flag",
    "per_device_eval_batch_size": "--batch-size",
}
COLUMNS = ("name", "bases", "tokens", "log_likelihood", "per_token", "per_base")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Options of `randommask score`."""

    words: Annotated[
        tuple[str, ...],
        Operands("MODEL FILE", "A model's folder, then a FASTA file or a table; - is standard input"),
    ] = ()
    output: Annotated[Path | None, Option("New CSV file; by default, or by -, standard output", short="-o")] = None
    width: Annotated[
        int | None,
        Option(
            "Tokens masked around each scored one; by default 2k - 1 for overlapping k-mers, which hides all its bases, else 1",
            at_least=1,
            unit="tokens",
        ),
    ] = None
    reverse_complement: Annotated[bool, Option("Score both strands and give the mean of the two")] = False
    sequence_column: Annotated[str, Option("Of a table: the column of letters")] = "sequence"
    name_column: Annotated[
        str | None, Option("Of a table: the column of names; by default rows are numbered from 1")
    ] = None
    batch_size: Annotated[int, Option("Masked rows a batch", at_least=1)] = 64
    trust_remote_code: Annotated[bool, Option("Run the code that the folder of MODEL brings along")] = False
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    precision: Annotated[Precision, Option("Numbers of the forward pass: bf16 and fp16 by autocast")] = "float32"
    given: frozenset[str] = frozenset()


def score(config: ScoreConfig) -> dict[str, Any]:
    """Write how likely each sequence is to a masked-language model: the sum over its tokens, and a token, and a base, in nats."""
    folder, file = model_and_file(config.words, "score")
    refuse_used_file(config.output)
    from randommask.training.loading import load_masked
    from randommask.training.scoring import default_width

    sequences = read_sequences(file, sequence_column=config.sequence_column, name_column=config.name_column)
    loaded = placed(load_masked(folder, trust_remote_code=config.trust_remote_code), config.device)
    width = default_width(loaded.reach) if config.width is None else config.width
    if width < loaded.reach:
        raise UserError(
            f"--width is {width}, but the {loaded.reach}-mers of {folder} overlap: masks below {loaded.reach} tokens hide no base. "
            f"Take {default_width(loaded.reach)}, which hides all bases of a token, or leave it out."
        )
    strands = [sequences.letters]
    if config.reverse_complement:
        strands.append([bases(reverse_complement(base_codes(letters))) for letters in sequences.letters])
    table = _table(config, loaded, strands, width=width)
    text = _as_csv(sequences, table)
    if config.output is None or config.output == STANDARD:
        print(text, end="")
    else:
        write_new(config.output, lambda opened: opened.write(text.encode()))
    _tell(config, loaded, table, width=width)
    rows = zip(sequences.names, sequences.letters, table.tolist(), strict=True)
    scored = [dict(zip(COLUMNS, (name, len(letters), *row), strict=True)) for name, letters, row in rows]
    return {"width": width, "sequences": scored}


def _table(config: ScoreConfig, loaded: "Loaded", strands: Sequence[Sequence[str]], *, width: int) -> numpy.ndarray:
    """Float64[N 4]: scored tokens, log-likelihood, a token, a base; the mean over the strands; NaN where nothing is scored."""
    from randommask.training.loading import cut_into_pieces
    from randommask.training.scoring import count_rows, scores

    pieces = [cut_into_pieces(letters, loaded) for letters in strands]
    rows = sum(count_rows(loaded, one, width=width) for one in pieces)
    found = []
    with Progress(rows, "masked rows", label="randommask score") as bar:
        for letters, one in zip(strands, pieces, strict=True):
            got = scores(
                loaded,
                one,
                count=len(letters),
                width=width,
                batch_size=config.batch_size,
                autocast=AUTOCAST[config.precision],
                advance=bar.advance,
            )
            counted = got.bases if hasattr(loaded.tokenizer, "k") else numpy.array([len(text) for text in letters])
            with numpy.errstate(divide="ignore", invalid="ignore"):
                found.append(numpy.stack([got.tokens, got.total, got.total / got.tokens, got.total / counted], axis=1))
    table = numpy.mean(found, axis=0)
    table[table[:, 0] == 0, 1:] = numpy.nan
    return table


def _as_csv(sequences: Sequences, table: numpy.ndarray) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for name, letters, row in zip(sequences.names, sequences.letters, table.tolist(), strict=True):
        cells: list[Any] = ["" if value != value else f"{value:.6f}" for value in row[1:]]
        lines.writerow([name, len(letters), f"{row[0]:g}", *cells])
    return text.getvalue()


def _tell(config: ScoreConfig, loaded: "Loaded", table: numpy.ndarray, *, width: int) -> None:
    scored = table[:, 0] > 0
    strands = ", mean of both strands" if config.reverse_complement else ""
    mean = f", mean {table[scored, 3].mean():.4f} nats a base" if scored.any() else ""
    to_stderr(f"randommask: {len(table)} sequences{mean}, masks {width} tokens wide{strands}")
    if not scored.all():
        to_stderr(f"randommask: {int((~scored).sum())} sequences hold no known token, so their scores are empty")
    if loaded.reach > 1 and width < 2 * loaded.reach - 1:
        to_stderr(
            f"randommask: at width {width} neighbours show some bases of each scored token; {2 * loaded.reach - 1} hides all"
        )
