"""Poisoned parquet and arrow files: strings said again a million times, images that are paths, types that are pickles, footers that lie."""

import io
import json
from pathlib import Path
from random import Random
from typing import Any

from faults.payloads import Poison, evil_pickle
from faults.watching import MARK


def written(table: Any, **options: Any) -> bytes:
    """A table of pyarrow as a parquet file."""
    from pyarrow import parquet

    found = io.BytesIO()
    parquet.write_table(table, found, **options)
    return found.getvalue()


def _read(content: bytes) -> Any:
    from pyarrow import parquet

    return parquet.read_table(io.BytesIO(content))


def repeated(content: bytes, draw: Random, outside: Path) -> bytes:
    """A column of letters, or of images, in which one long value is said so often that it takes 2 GiB; the file has some kB."""
    import numpy
    import pyarrow

    rows, length = draw.choice([(2**20, 2**11), (2**11, 2**20)])
    table = _read(content)
    text = b"A" * length
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pyarrow.types.is_struct(column.type):
            columns[name] = pyarrow.StructArray.from_arrays(
                [_dictionary(pyarrow.array([text]), rows), pyarrow.nulls(rows, pyarrow.string())], ["bytes", "path"]
            )
        elif pyarrow.types.is_string(column.type):
            columns[name] = _dictionary(pyarrow.array([text.decode()]), rows)
        else:
            columns[name] = pyarrow.array(numpy.zeros(rows, dtype=numpy.int64))
    return written(pyarrow.table(columns), store_schema=False)


def _dictionary(values: Any, rows: int) -> Any:
    import numpy
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(numpy.zeros(rows, dtype=numpy.int32)), values)


def pickled_type(content: bytes, draw: Random, outside: Path) -> bytes:
    """Columns of a type whose description is a pickle (pyarrow below 14.0.1 loaded it), and a set's features as class paths."""
    import pyarrow

    table = _read(content)
    evil = evil_pickle(b"", draw, outside)
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil}
    features = {
        "info": {
            "features": {name: {"_type": draw.choice(["os.system", f"{MARK}.Model"])} for name in table.column_names}
        }
    }
    schema = pyarrow.schema([field.with_metadata(kind) for field in table.schema])
    if draw.random() < 0.5:
        schema = schema.with_metadata({b"huggingface": json.dumps(features).encode()})
    return written(table.cast(schema))


def elsewhere(content: bytes, draw: Random, outside: Path) -> bytes:
    """Images that are paths of other files: devices that never end, other people's, addresses."""
    import pyarrow

    table = _read(content)
    path = draw.choice(
        ["/dev/stdin", "/dev/zero", "/dev/tty", "/etc/passwd", "http://127.0.0.1:9/x.png", str(outside), "../x"]
    )
    name = next((name for name in table.column_names if pyarrow.types.is_struct(table.column(name).type)), None)
    if name is None:
        return content[:-8] + b"\xff\xff\xff\x7fPAR1"
    values = pyarrow.array([{"bytes": None, "path": path}] * len(table), type=table.column(name).type)
    return written(table.set_column(table.column_names.index(name), name, values))


def footer(content: bytes, draw: Random, outside: Path) -> bytes:
    """Bytes of the footer are others, or its length is."""
    raw = bytearray(content)
    if draw.random() < 0.2:
        raw[-8:-4] = draw.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])
    else:
        size = min(int.from_bytes(raw[-8:-4], "little"), len(raw) - 8)
        for _ in range(draw.choice([1, 2, 8])):
            raw[len(raw) - 8 - draw.randrange(1, size)] = draw.choice([0, 0x7F, 0x80, 0xFF, draw.randrange(256)])
    return bytes(raw)


PARQUET = (
    Poison("one value a million times", repeated, seconds=10.0, costly=True),
    Poison("a type that is a pickle", pickled_type, refused=False),
    Poison("paths in place of images", elsewhere),
    Poison("a footer that lies", footer, refused=False),
    Poison("a pickle", evil_pickle),
)
