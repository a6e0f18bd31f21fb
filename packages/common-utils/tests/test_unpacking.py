"""Files that were made to fill the memory are refused while they are unpacked, and before what they say is laid out."""

import io
import subprocess
import sys

import pytest

from scarce_common_utils import unpacking
from scarce_common_utils.errors import UserError
from scarce_common_utils.unpacking import Measured, refuse_bomb, refuse_parquet_bomb


@pytest.fixture
def small(monkeypatch):
    """The limit at 64 kB."""
    monkeypatch.setattr(unpacking, "ALWAYS", 2**16)


def test_the_limit_is_256_mib_or_a_hundred_times_the_file(tmp_path):
    path = tmp_path / "x.gz"
    refuse_bomb(path, packed=10, unpacked=2**28)
    refuse_bomb(path, packed=2**22, unpacked=100 * 2**22)
    with pytest.raises(UserError, match=r"x.gz has 10 bytes and unpacks to 256 MiB or more, over 100 times as much"):
        refuse_bomb(path, packed=10, unpacked=2**28 + 1)
    with pytest.raises(UserError, match="unpacks to 400 MiB"):
        refuse_bomb(path, packed=2**22, unpacked=100 * 2**22 + 1)


def test_a_measured_file_is_read_as_it_is_and_no_further_than_the_limit(small, tmp_path):
    content = bytes(range(256)) * 300
    file = Measured(io.BytesIO(content), path=tmp_path / "a.fa.gz", packed=10)
    assert file.read(1000) + file.read(60_000) == content[:61_000]
    with pytest.raises(UserError, match=r"a.fa.gz has 10 bytes"):
        file.read(10_000)


def parquet_of(columns, **options):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow comes with an extra")
    from pyarrow import parquet

    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content, **options)
    return content.getvalue()


def test_one_value_said_again_and_again_is_counted(small, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow comes with an extra")
    text = "A" * 1000
    places = pyarrow.array([0] * 1000, pyarrow.int32())
    repeated = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array([text]))
    raw = parquet_of({"sequence": repeated, "label": list(range(1000))}, store_schema=False)
    assert len(raw) < 10_000
    with pytest.raises(UserError, match=r"a.parquet has \d+ bytes and unpacks to 1 MiB or more"):
        refuse_parquet_bomb(tmp_path / "a.parquet", io.BytesIO(raw), packed=len(raw))
    image = pyarrow.StructArray.from_arrays([repeated, pyarrow.nulls(1000, pyarrow.string())], ["bytes", "path"])
    raw = parquet_of({"image": image}, store_schema=False)
    with pytest.raises(UserError, match="unpacks to 1 MiB or more"):
        refuse_parquet_bomb(tmp_path / "a.parquet", io.BytesIO(raw), packed=len(raw))


def test_plain_tables_pass_and_rows_without_bytes_do_not(small, tmp_path):
    words = {"sequence": [f"{number:06d}" for number in range(3000)], "list": [["a", "b"]] * 3000}
    raw = parquet_of(words)
    path = tmp_path / "a.parquet"
    path.write_bytes(raw)
    refuse_parquet_bomb(path, str(path), packed=len(raw))
    raw = parquet_of({"label": [0] * 1_000_001})
    with pytest.raises(UserError, match=r"says that it holds 1000001 rows"):
        refuse_parquet_bomb(path, io.BytesIO(raw), packed=len(raw))


FOOTERS = """
import io, sys
import pyarrow
from pyarrow import parquet
from scarce_common_utils.unpacking import refuse_parquet_bomb

whole = io.BytesIO()
parquet.write_table(pyarrow.table({"sequence": ["ACGT", None, "GG"], "label": [1, 2, 3]}), whole)
raw = whole.getvalue()
size = int.from_bytes(raw[-8:-4], "little")
for place in range(len(raw) - 8 - size, len(raw) - 8):
    for bit in range(8):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << bit
        try:
            refuse_parquet_bomb("a.parquet", io.BytesIO(damaged), packed=len(raw))
        except (pyarrow.ArrowException, OSError, ValueError):
            pass
"""


def test_no_damaged_footer_ends_the_process():
    """Found by the fuzz: asked for a column of some of these, pyarrow 26 ends the process, where an error is to come."""
    pytest.importorskip("pyarrow", reason="pyarrow comes with an extra")
    ended = subprocess.run([sys.executable, "-c", FOOTERS], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-300:]
