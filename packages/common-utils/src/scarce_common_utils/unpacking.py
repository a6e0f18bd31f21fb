"""Whether a file was made to fill the memory: it unpacks to over 256 MiB, and to over a hundred times of what it holds.

DNA packs four to one, tables of it ten to one, images in arrays up to a few tens; zeros pack a thousand to one by gzip and without bound
by repetition in parquet. What a reader holds of a small file is bounded so: 256 MiB, or a hundred times the file.
"""

from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final

from scarce_common_utils.errors import UserError

ALWAYS: Final = 2**28  # bytes that any file may unpack to
RATIO: Final = 100
LOOKED_INTO: Final = 2**26  # bytes of a parquet file up to which repetition is counted; larger ones would be read twice


def refuse_bomb(path: Path, *, packed: int, unpacked: int) -> None:
    """Refuse what unpacks to too much.

    Args:
        path: named in the error.
        packed: bytes of the file.
        unpacked: bytes that came of it so far, or that it declares.

    Raises:
        UserError: more than `ALWAYS` and more than `RATIO` times `packed`.
    """
    if unpacked > max(ALWAYS, RATIO * packed):
        raise UserError(
            f"{path} has {packed} bytes and unpacks to {unpacked / 2**20:.0f} MiB or more, over {RATIO} times as much: it may have been "
            "made to fill the memory. If you trust it, unpack it, and give the plain file."
        )


class Measured(BufferedIOBase):
    """A file that is unpacked while it is read, refused as soon as `refuse_bomb` would.

    Args:
        file: gives what is unpacked.
        path: for the error.
        packed: bytes of the packed file.
    """

    def __init__(self, file: Any, *, path: Path, packed: int) -> None:
        self._file, self._path, self._packed, self._unpacked = file, path, packed, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As the file's."""
        piece: bytes = self._file.read(size)
        self._unpacked += len(piece)
        refuse_bomb(self._path, packed=self._packed, unpacked=self._unpacked)
        return piece


def refuse_parquet_bomb(path: Path, source: Any, *, packed: int) -> None:
    """Refuse a parquet file whose pages unpack to too much, or that says one long value again and again.

    Repetition is counted in files of up to `LOOKED_INTO` bytes, from dictionaries and the places in them, so that nothing is laid out.

    Args:
        path: for the error.
        source: the file's path, or an open file of its bytes.
        packed: its bytes.

    Raises:
        UserError: as `refuse_bomb`; there are more rows than bytes, and over a million.
        pyarrow.ArrowException, OSError: it is no parquet file.
    """
    import pyarrow
    from pyarrow import compute, parquet

    with parquet.ParquetFile(source) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
    # Of the groups alone: to ask for a column of a footer that is damaged can end the process (pyarrow 26: std::terminate).
    declared = sum(max(0, group.total_byte_size) for group in groups)
    refuse_bomb(path, packed=packed, unpacked=declared)
    rows = sum(group.num_rows for group in groups)
    if rows > max(1_000_000, packed):
        raise UserError(
            f"{path} has {packed} bytes and says that it holds {rows} rows: it may have been made to fill the memory."
        )
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    if packed > LOOKED_INTO or rows * declared <= ALWAYS or not texts:
        return
    if hasattr(source, "seek"):
        source.seek(0)
    with parquet.ParquetFile(source, read_dictionary=texts) as file:
        unpacked = 0
        for number in range(len(groups)):
            for name in texts:
                for chunk in _leaves(file.read_row_group(number, columns=[name])):
                    if not pyarrow.types.is_dictionary(chunk.type):
                        unpacked += chunk.nbytes
                        continue
                    lengths = compute.binary_length(chunk.dictionary).cast(pyarrow.int64())  # pyright: ignore[reportAttributeAccessIssue]  (made when pyarrow is loaded)
                    unpacked += compute.sum(lengths.take(chunk.indices)).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]  (as above)
                    refuse_bomb(path, packed=packed, unpacked=unpacked)


def _leaves(table: Any) -> list[Any]:
    """Chunks of the one column of a table; of a column within others its own."""
    import pyarrow

    chunks = list(table.column(0).chunks)
    while chunks and (pyarrow.types.is_struct(chunks[0].type) or pyarrow.types.is_list(chunks[0].type)):
        parts = [chunk.flatten() for chunk in chunks]  # of a struct its fields, of a list its values
        chunks = [one for part in parts for one in part] if isinstance(parts[0], list) else parts
    return chunks
