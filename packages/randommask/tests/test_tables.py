import bz2
import gzip
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randommask.data.splits import fresh_rows, repeated, split_by_sequence
from randommask.data.tables import read_table
from randommask.sample import GENOME, SPLICE_JUNCTIONS, sample_path
from scarce_common_utils.errors import UserError


def write(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "sequence,label\nacgt,1\nGGNN,0\n",
        "\ufefflabel,extra,sequence\r\n1,x,ACGT\r\n\r\n0,,ggnn",
        "sequence\tlabel\nACGT\t1\nGGNN\t0\n",
        'sequence,label\n"ACGT","1"\n" GGNN ", 0 \n',
        gzip.compress(b"sequence,label\nACGT,1\nGGNN,0\n"),
    ],
)
def test_layouts(tmp_path, content):
    assert read_table(write(tmp_path, content)) == (["ACGT", "GGNN"], ["1", "0"])


def test_a_column_may_be_called_like_dna_where_the_others_are_there(tmp_path):
    path = write(tmp_path, "sequence,label,ACGTACGT\nACGT,1,2\nGG,0\n")
    assert read_table(path) == (["ACGT", "GG"], ["1", "0"])


def test_other_column_names(tmp_path):
    path = write(tmp_path, "dna,site\nACGT,EI\n")
    assert read_table(path, sequence_column="dna", label_column="site") == (["ACGT"], ["EI"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a.csv is empty"),
        ("sequence,label\n", r"a.csv has a header and no rows"),
        ("seq,label\nACGT,1\n", r"no column 'sequence'; its header line has 'seq', 'label'\. .*--sequence-column seq"),
        ("sequence,y\nACGT,1\n", r"no column 'label'; its header line has 'sequence', 'y'\. .*--label-column NAME"),
        ("sequence,label\nACGT,1\nACGT,\n", r"a.csv, line 3: the column 'label' is empty"),
        ("sequence,label\nACGT,1\nACGT\n", r"a.csv, line 3: the column 'label' is empty"),
        ("sequence,label\n,1\n", r"a.csv, line 2: the column 'sequence' is empty"),
        ("sequence,label\nACGT,1\nMKVLE,0\n", r"a.csv, line 3: 'L' is no letter of DNA"),
        ("sequence,label\nACGT,1\nACGT,1,x\n", r"a.csv, line 3: the row has 3 cells, but the header line has 2"),
        ("ACGTACGT,1\nACGT,0\n", r"first line of .*a.csv seems to be data; add a header line such as sequence,label"),
        ("label\tnnacgtuu\n1\tACGT\n", r"first line of .*a.csv seems to be data; add a header line"),
        ("ACGTACG,1\n", r"no column 'sequence'; its header line has 'ACGTACG', '1'"),
        ("ACGTACGTX,1\n", r"no column 'sequence'; its header line has 'ACGTACGTX', '1'"),
        (b"sequence,label\nACGT,\xff\n", r"a.csv, line 2: no text in UTF-8"),
        (gzip.compress(b"sequence,label\nACGT,1\n" * 99)[:40], r"ends within a gzip stream"),
        (b"\x1f\x8bnonsense and more nonsense", r"is damaged"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path, content))


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match=r"none.csv does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)


def test_the_sample_is_what_its_readme_says():
    table = read_table(sample_path(SPLICE_JUNCTIONS))
    assert len(table.labels) == 3190
    assert len(set(table.sequences)) == 3005
    assert {name: table.labels.count(name) for name in ("EI", "IE", "N")} == {"EI": 767, "IE": 768, "N": 1655}
    assert set(map(len, table.sequences)) == {60}
    assert sample_path(GENOME).stat().st_size == 259_267
    assert "CC BY 4.0" in (sample_path(GENOME).parent / "README.md").read_text()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ACGT", min_size=1, max_size=3), min_size=3, max_size=60), st.integers(0, 99))
def test_no_sequence_stands_on_two_sides(sequences, seed):
    if len(set(sequences)) < 3:
        with pytest.raises(ValueError, match="distinct sequences cannot be divided into 3"):
            split_by_sequence(sequences, shares=(0.8, 0.1, 0.1), seed=seed)
        return
    sides = split_by_sequence(sequences, shares=(0.8, 0.1, 0.1), seed=seed)
    assert sorted(row for side in sides for row in side) == list(range(len(sequences)))
    assert all(sides)
    letters = [{sequences[row] for row in side} for side in sides]
    assert sum(map(len, letters)) == len(set.union(*letters))
    assert split_by_sequence(sequences, shares=(0.8, 0.1, 0.1), seed=seed) == sides


def test_sides_have_their_shares():
    table = read_table(sample_path(SPLICE_JUNCTIONS))
    sides = split_by_sequence(table.sequences, shares=(0.8, 0.1, 0.1), seed=0)
    assert [len(side) for side in sides] == pytest.approx([2552, 319, 319], abs=8)
    other = split_by_sequence(table.sequences, shares=(0.8, 0.1, 0.1), seed=1)
    assert other != sides
    assert len({table.labels[row] for row in sides[2]}) == 3


def test_rows_without_repeats_are_the_first_of_each_sequence_that_is_new():
    rows = ["A", "C", "C", "G", "T", "A", "T"]
    slow = [
        place
        for place, one in enumerate(rows)
        if rows.index(one) == place and one not in ["G", "G"] and one not in ["C", "N"]
    ]
    assert fresh_rows(rows, ["G", "G"], ["C", "N"]) == slow == [0, 4]
    assert fresh_rows(rows, rows) == []


def test_repeated_rows_are_counted():
    assert repeated(["A", "C", "A"], ["A", "G"]) == 2


ROWS = "sequence,label\nACGT,1\nggnn,0\n"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tables_are_known_by_their_bytes(tmp_path, pack):
    path = tmp_path / "plain_name"
    path.write_bytes(pack(ROWS.encode()))
    assert read_table(path) == (["ACGT", "GGNN"], ["1", "0"])
    path.write_bytes(pack(ROWS.encode())[:-9])
    with pytest.raises(UserError, match=r"plain_name ends within a \w+ stream, so it was cut short"):
        read_table(path)
    harmed = bytearray(pack(ROWS.encode() * 50))
    harmed[12:40] = b"\xff" * 28
    path.write_bytes(bytes(harmed))
    with pytest.raises(UserError, match=r"plain_name (is damaged: its \w+ stream|ends within)"):
        read_table(path)


def test_zstandard_is_refused_by_name(tmp_path):
    path = tmp_path / "t.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 20)
    with pytest.raises(UserError, match=r"t.zst is compressed by zstd, which is not read here"):
        read_table(path)


def test_parquet_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t"
    parquet.write_table(pyarrow.table({"label": [1, 0], "sequence": ["ACGT", "ggnn"], "more": [1.5, 2.5]}), path)
    assert read_table(path) == (["ACGT", "GGNN"], ["1", "0"])
    assert read_table(path, label_column="more").labels == ["1.5", "2.5"]
    with pytest.raises(UserError, match=r"t has no column 'labels'; its header line has 'label', 'sequence', 'more'"):
        read_table(path, label_column="labels")
    parquet.write_table(pyarrow.table({"label": [1, None], "sequence": ["ACGT", "ACG"]}), path)
    with pytest.raises(UserError, match=r"t, row 2: the column 'label' is empty"):
        read_table(path)
    parquet.write_table(pyarrow.table({"label": [1, 2], "sequence": ["ACGT", "MKL"]}), path)
    with pytest.raises(UserError, match=r"t, row 2: 'L' is no letter of DNA"):
        read_table(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"t is damaged: no parquet"):
        read_table(path)


def test_a_column_named_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has 2 columns 'label'\. Rename all but one"):
        read_table(write(tmp_path, "sequence,label,label\nACGT,1,0\n"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 60), st.sampled_from([None, gzip, bz2, lzma]))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path_factory, noise, kind, place, packer):
    """Fuzz: a good table with noise put into it, or noise alone, compressed or cut."""
    path = tmp_path_factory.mktemp("fuzz") / "f.csv"
    good = ROWS.encode()
    raw = [noise, good[:place] + noise + good[place:], good[:place], b"\xef\xbb\xbf" + good.replace(b"\n", b"\r\n")][
        kind
    ]
    path.write_bytes(raw if packer is None else packer.compress(raw)[: -(place % 5) or None])
    sentence, table = "", None
    try:
        table = read_table(path)
    except UserError as error:
        sentence = str(error)
    assert (table is None) == ("f.csv" in sentence)
    assert len(sentence.splitlines()) <= 1
    if table is not None:
        assert len(table.sequences) == len(table.labels) > 0
        assert all(set(sequence) <= set("ACGTURYSWKMBDHVN") for sequence in table.sequences)
