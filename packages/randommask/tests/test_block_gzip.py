"""Block gzip as bgzip writes it: read right, whole or not at all."""

import gzip

import pytest

from randommask.alphabet import bases
from randommask.data.block_gzip import END_BLOCK, lacks_end
from randommask.data.tables import read_table
from randommask.genome.cache import cached_genome
from randommask.genome.fasta import read_fasta
from reference.block_gzip import END, blocks
from scarce_common_utils.errors import UserError

TEXT = b">one x\n" + b"ACGTTGCA\n" * 40 + b">two\nGATTACA\n"
RECORDS = [("one", "ACGTTGCA" * 40), ("two", "GATTACA")]
TABLE = b"sequence,label\n" + b"ACGTTGCA,1\nGATTACAG,0\n" * 20


@pytest.mark.parametrize("size", [7, 64, 65280])
def test_a_block_gzip_fasta_is_read_right(tmp_path, size):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(b"".join(blocks(TEXT, size=size)))
    assert gzip.decompress(path.read_bytes()) == TEXT  # the writer's file is gzip
    assert [(record.name, bases(record.codes)) for record in read_fasta(path)] == RECORDS


def test_cut_at_any_block_boundary_it_is_refused(tmp_path):
    members = blocks(TEXT, size=48)
    assert len(members) > 5
    path = tmp_path / "a.fa.gz"
    for count in range(1, len(members)):
        path.write_bytes(b"".join(members[:count]))
        gzip.decompress(path.read_bytes())  # gzip sees nothing wrong
        with pytest.raises(
            UserError, match=r"a.fa.gz is gzip in blocks \(bgzip\) without its end block, so it was cut"
        ):
            list(read_fasta(path))
    with pytest.raises(UserError, match="without its end block"):
        cached_genome([path], folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_cut_anywhere_else_it_is_refused_too(tmp_path):
    whole = b"".join(blocks(TEXT, size=200))
    path = tmp_path / "a.fa.gz"
    for length in range(2, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a.fa.gz (ends within a gzip stream|is gzip in blocks)"):
            list(read_fasta(path))


def test_a_table_in_blocks(tmp_path):
    path = tmp_path / "a.csv.gz"
    members = blocks(TABLE, size=100)
    path.write_bytes(b"".join(members))
    assert len(read_table(path).labels) == 40
    path.write_bytes(b"".join(members[:3]))
    with pytest.raises(UserError, match=r"a.csv.gz is gzip in blocks .* was cut short"):
        read_table(path)


def test_plain_gzip_needs_no_end_block():
    assert END_BLOCK == END
    assert not lacks_end(gzip.compress(TEXT), gzip.compress(TEXT))
    assert lacks_end(blocks(TEXT, size=64)[0], b"")
    assert not lacks_end(b"", b"")
