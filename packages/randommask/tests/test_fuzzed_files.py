"""A few hundred made-up files, of FASTA and tables: each read right, or refused in one sentence that names file and line."""

import contextlib

import pytest

from fuzzed_files import fasta, table
from randommask.alphabet import bases
from randommask.data.labelled import read_labelled
from randommask.data.tables import read_table
from randommask.genome.fasta import read_fasta
from randommask.genome.sequences import read_sequences
from reference.fasta import records
from scarce_common_utils.errors import UserError


def attempt(read, path):
    """What was read, or the sentence of refusal, which is one line and names the file."""
    try:
        return read(path), None
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence, sentence
    assert str(path) in sentence, sentence
    return None, sentence


def check_fasta(path, seed, monkeypatch):
    raw, inside = fasta(seed)
    path.write_bytes(raw)
    monkeypatch.setattr("randommask.genome.fasta._PIECE", (1 << 24, 1, 7, 64)[seed % 4])
    found, refused = attempt(lambda path: [(one.name, bases(one.codes)) for one in read_fasta(path)], path)
    expected, line = (None, None) if inside is None else records(inside)
    if expected is not None:
        assert found == expected, refused
    else:
        assert refused is not None, found
        if inside is not None:  # letters before the place where a packed file is damaged may be refused first
            assert (f"{path}, line {line}:" in refused) if line else ("line" not in refused), refused
    attempt(read_sequences, path)


def check_table(path, seed):
    raw, expected, line = table(seed)
    path.write_bytes(raw)
    found, refused = attempt(read_table, path)
    if expected is not None:
        assert list(zip(*found, strict=True)) == expected, refused
    elif line is not None:
        assert refused is not None, found
        assert f"{path}, line {line}:" in refused
    attempt(read_sequences, path)
    for task in ("classes", "regression"):
        with contextlib.suppress(UserError):
            read_labelled(path, dev=path, test=path, task=task)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_fasta_files(tmp_path, monkeypatch, start):
    for seed in range(start, start + 50):
        check_fasta(tmp_path / f"{seed}.fa", seed, monkeypatch)


# Besides the first hundred those in which a run over 10,000 found a hint of two lines: a line break within a name of a column.
@pytest.mark.parametrize("seeds", [range(50), range(50, 100), (2098, 2344, 2857)], ids=str)
def test_tables(tmp_path, seeds):
    for seed in seeds:
        check_table(tmp_path / f"{seed}.csv", seed)


def test_one_row_makes_no_regression(tmp_path):
    """Found by these files: its spread is no number, and training began."""
    path = tmp_path / "one.csv"
    path.write_text("sequence,label\nACGTACGT,0.5\n")
    with pytest.raises(UserError, match=r"All training rows have the label '0.5'. A regression needs several"):
        read_labelled(path, dev=path, test=path, task="regression")
