"""`randommask embed MODEL FILE -o OUT`: one vector a sequence from a pretrained encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy

from randommask.commands.output import AUTOCAST, model_and_file, placed, refuse_used_file, write_new
from randommask.genome.sequences import STANDARD, Sequences, read_sequences
from scarce_common_utils.command_line import Operands, Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.options import Precision
from scarce_common_utils.progress import Progress
from scarce_common_utils.run_folder import to_stderr

EMBED_HINTS = {
    "output_dir": "--output, a file",
    "out": "--output (-o), a file",
    "model_name_or_path": "MODEL, without a flag",
    "data_path": "FILE, without a flag",
    "per_device_eval_batch_size": "--batch-size",
}
_SUFFIXES = (".npz", ".npy", ".parquet")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Options of `randommask embed`."""

    words: Annotated[
        tuple[str, ...],
        Operands("MODEL FILE", "A model's folder, then a FASTA file or a table; - is standard input"),
    ] = ()
    output: Annotated[
        Path | None,
        Option("New file: .npz (names, embeddings), .npy (embeddings) or .parquet (name, embedding)", short="-o"),
    ] = None
    pooling: Annotated[Literal["mean", "cls"], Option("Mean over the tokens, or the state of [CLS]")] = "mean"
    layer: Annotated[
        int | None,
        Option("Layer whose states are taken: 0 for the embeddings, 1, ...; by default the last", at_least=0),
    ] = None
    sequence_column: Annotated[str, Option("Of a table: the column of letters")] = "sequence"
    name_column: Annotated[
        str | None, Option("Of a table: the column of names; by default rows are numbered from 1")
    ] = None
    batch_size: Annotated[int, Option("Sequences, or pieces of long ones, a batch", at_least=1)] = 64
    trust_remote_code: Annotated[bool, Option("Run the code that the folder of MODEL brings along")] = False
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    precision: Annotated[Precision, Option("Numbers of the forward pass: bf16 and fp16 by autocast")] = "float32"
    given: frozenset[str] = frozenset()


def embed(config: EmbedConfig) -> dict[str, Any]:
    """Write one vector a sequence, from a pretrained encoder's states."""
    folder, file = model_and_file(config.words, "embed")
    out = _checked_output(config.output)
    from randommask.training.embedding import embeddings, layers_of
    from randommask.training.loading import cut_into_pieces, load_encoder

    sequences = read_sequences(file, sequence_column=config.sequence_column, name_column=config.name_column)
    loaded = placed(load_encoder(folder, trust_remote_code=config.trust_remote_code), config.device)
    if config.layer is not None and config.layer > layers_of(loaded):
        raise UserError(
            f"--layer is {config.layer}, but {folder} has the layers 0 (embeddings) to {layers_of(loaded)}."
        )
    if config.pooling == "cls" and not loaded.specials.front:
        raise UserError(
            f"--pooling is cls, but the tokenizer of {folder} puts no token in front of a sequence. Leave --pooling out."
        )
    pieces = cut_into_pieces(sequences.letters, loaded)
    empty = sorted({int(owner) for owner, ids in zip(pieces.owners, pieces.ids, strict=True) if not len(ids)})
    if empty:
        raise UserError(
            f"{file}: {len(empty)} of {len(sequences.names)} sequences are too short to hold a token, the first is "
            f"{sequences.names[empty[0]]!r} with {len(sequences.letters[empty[0]])} bases. Take them out."
        )
    with Progress(len(pieces.ids), "pieces", label="randommask embed") as bar:
        found = embeddings(
            loaded,
            pieces,
            pooling=config.pooling,
            layer=config.layer,
            batch_size=config.batch_size,
            autocast=AUTOCAST[config.precision],
            advance=bar.advance,
        )
    write_new(out, lambda opened: _write(opened, out, sequences, found))
    cut = len(pieces.ids) - len(sequences.names)
    more = f"; longer ones in {cut} more pieces of at most {loaded.specials.most} tokens" if cut else ""
    to_stderr(f"randommask: {found.shape[0]} sequences x {found.shape[1]} numbers{more}: {out}")
    return {"output": out, "sequences": found.shape[0], "numbers": found.shape[1], "pieces": len(pieces.ids)}


def _checked_output(path: Path | None) -> Path:
    if path is None or path == STANDARD:
        raise UserError("-o is missing: embeddings are no text. Name a new file that ends in .npz, .npy or .parquet.")
    if path.suffix not in _SUFFIXES:
        raise UserError(f"-o is {path}, whose ending says no kind of file. Let it end in .npz, .npy or .parquet.")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401  (only whether it is there)
        except ImportError as error:
            raise UserError(
                f"-o is {path}, a parquet file, which pyarrow writes. Install it: pip install 'randommask[parquet]'"
            ) from error
    refuse_used_file(path)
    return path


def _write(opened: BinaryIO, path: Path, sequences: Sequences, found: numpy.ndarray) -> None:
    if path.suffix == ".npy":
        numpy.save(opened, found)
    elif path.suffix == ".npz":
        numpy.savez(opened, names=numpy.array(sequences.names), embeddings=found)
    else:
        _write_parquet(opened, sequences, found)


def _write_parquet(opened: BinaryIO, sequences: Sequences, found: numpy.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    values: Any = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.reshape(-1)), found.shape[1])
    parquet.write_table(pyarrow.table({"name": pyarrow.array(sequences.names), "embedding": values}), opened)
