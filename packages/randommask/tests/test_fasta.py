import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randommask.alphabet import bases
from randommask.genome.fasta import read_fasta
from randommask.genome.store import read_genome
from scarce_common_utils.errors import UserError

TEXT = b">one first record\nACGT\nacgu\n\n>two\r\nNNRY\r\nAC GT\r\n>empty\n>three\nGATTACA"
RECORDS = [("one", "ACGTACGT"), ("two", "NNNNACGT"), ("three", "GATTACA")]


def read(path):
    return [(record.name, bases(record.codes)) for record in read_fasta(path)]


@pytest.mark.parametrize("piece", [1 << 24, 7, 1])
def test_records_whatever_the_size_of_the_pieces(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("randommask.genome.fasta._PIECE", piece)
    path = tmp_path / "a.fa"
    path.write_bytes(TEXT)
    assert read(path) == RECORDS
    path.write_bytes(b"\xef\xbb\xbf\n\n" + TEXT + b"\n")
    assert read(path) == RECORDS


def test_gzip_and_block_gzip_are_known_by_their_bytes(tmp_path):
    path = tmp_path / "no_suffix"
    path.write_bytes(gzip.compress(TEXT))
    assert read(path) == RECORDS
    # Block gzip is several gzip members one after the other, with an empty one at its end.
    path.write_bytes(gzip.compress(TEXT[:20]) + gzip.compress(TEXT[20:]) + gzip.compress(b""))
    assert read(path) == RECORDS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a.fa is empty\. Give a FASTA file"),
        (b"\n \n", r"a.fa is empty"),
        (b"ACGT\n", r"a.fa, line 1: a FASTA file begins with '>', this one with 'ACGT'"),
        (b"\n\n@read\nACGT\n", r"a.fa, line 3: a FASTA file begins with '>', this one with '@read'"),
        (b">a\nACGT\n>b\nACG\nMKVLAAGE\n", r"a.fa, line 5: 'L' is no letter of DNA"),
        (b">a\nACGT\n>b\nACGT*\n", r"a.fa, line 4: '\*' is no letter of DNA"),
        (b">a\nAC\n>\nAC\n", r"a.fa, line 3: a record has no name"),
        (b">a\nAC\n>b\nAC\n>a\nAC\n", r"a.fa, line 5: the name 'a' stands in line 1 too"),
        (b"\x00\x01\x02", r"a.fa, line 1: a FASTA file begins with '>'"),
    ],
)
@pytest.mark.parametrize("piece", [1 << 24, 5])
def test_what_is_no_fasta_is_refused_by_file_and_line(tmp_path, monkeypatch, content, message, piece):
    monkeypatch.setattr("randommask.genome.fasta._PIECE", piece)
    path = tmp_path / "a.fa"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize("piece", range(1, 8))
def test_a_sign_of_a_record_within_a_line_begins_none(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("randommask.genome.fasta._PIECE", piece)
    path = tmp_path / "a.fa"
    path.write_bytes(b">a\nACGT>b\nAC\n")
    with pytest.raises(UserError, match=r"a.fa, line 2: '>' is no letter of DNA"):
        read(path)


def test_a_cut_or_damaged_gzip_is_refused(tmp_path):
    path = tmp_path / "a.fa.gz"
    whole = gzip.compress(b">a\n" + b"ACGTTGCA" * 4000)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a.fa.gz ends within a gzip stream"):
        read(path)
    path.write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"a.fa.gz ends within a gzip stream"):
        read(path)
    path.write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
    with pytest.raises(UserError, match=r"a.fa.gz is damaged"):
        read(path)


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match=r"missing.fa does not exist"):
        read(tmp_path / "missing.fa")
    with pytest.raises(UserError, match=r"is a folder\. Name the FASTA files in it"):
        read(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.text("ACGTNacgtnURY", max_size=50)), max_size=5, unique_by=lambda p: p[0]
    ),
    st.integers(1, 60),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_any_layout_of_lines_reads_the_same(tmp_path_factory, records, width, end, last_break):
    path = tmp_path_factory.mktemp("fasta") / "a.fa"
    text = end.join(
        line
        for name, letters in records
        for line in (f">{name} x", *(letters[i : i + width] for i in range(0, len(letters), width)))
    )
    path.write_text(text + (end if last_break else ""), newline="")
    expected = [(str(name), letters) for name, letters in records if letters]
    if not records:
        with pytest.raises(UserError, match="empty"):
            read(path)
        return
    plain = str.maketrans("acgtnURYury", "ACGTNTNNTNN")
    assert read(path) == [(name, letters.translate(plain)) for name, letters in expected]


def test_several_files_are_one_genome(tmp_path):
    for name, text in (("a.fa", ">a\nACGT\n>b\nGG\n"), ("b.fa", ">c\nTTTT\n")):
        (tmp_path / name).write_text(text)
    genome = read_genome([tmp_path / "a.fa", tmp_path / "b.fa"])
    assert genome.names == ("a", "b", "c")
    assert genome.starts == (0, 4, 6, 10)
    assert bases(genome.codes) == "ACGTGGTTTT"
    (tmp_path / "lower.fa").write_text(">a\nac\ngu\n>b\nGg\n")
    assert read_genome([tmp_path / "lower.fa", tmp_path / "b.fa"]).content_hash == genome.content_hash
    assert read_genome([tmp_path / "a.fa"]).content_hash != genome.content_hash
    with pytest.raises(UserError, match="the record 'a' stands in"):
        read_genome([tmp_path / "a.fa", tmp_path / "lower.fa"])
    (tmp_path / "none.fa").write_text(">a\n>b\n")
    with pytest.raises(UserError, match="no record with a base"):
        read_genome([tmp_path / "none.fa"])
