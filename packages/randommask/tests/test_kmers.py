import hashlib

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randommask.alphabet import base_codes, bases
from randommask.kmers import any_in_window, codes_of_ids, kmer_ids, kmer_vocabulary, vocabulary
from randommask.tokenizer import vocabulary_text
from reference import kmers as twin

# First 16 digits of the SHA-256 of DNABERT's published vocab.txt.
PUBLISHED = {3: "868b0b1ca9c6dfe7", 4: "a78f8d49dfd18288", 5: "3d422649f2193de4", 6: "d8f61c247fc10f9b"}


@pytest.mark.parametrize("k", PUBLISHED)
def test_vocabulary_file_is_dnaberts_by_sha256(k):
    assert hashlib.sha256(vocabulary_text(k).encode()).hexdigest()[:16] == PUBLISHED[k]


@pytest.mark.parametrize("k", range(1, 9))
def test_vocabulary_and_sizes(k):
    assert vocabulary(k) == twin.tokens(k)
    assert len(vocabulary(k)) == [9, 21, 69, 261, 1029, 4101, 16389, 65541][k - 1] == kmer_vocabulary(k).stop


def test_ids_of_the_page():
    expected = {"AAAAAA": 5, "ACGTAC": 727, "TTTTTT": 1370, "CATGCA": 2173, "GATTAC": 3159, "GGGGGG": 4100}
    for kmer, number in expected.items():
        assert kmer_ids(base_codes(kmer), 6).tolist() == [number]


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("k", range(1, 9))
def test_ids_equal_the_twin(k, overlap):
    generator = numpy.random.default_rng(k)
    for length in (0, 1, k - 1, k, k + 1, 40, 131):
        sequence = "".join(generator.choice(list("ACGTACGTACGTacgtuN"), length))
        found = kmer_ids(base_codes(sequence), k, overlap=overlap)
        assert found.dtype == numpy.int64
        assert found.tolist() == twin.ids(sequence, k, 1 if overlap else k), (sequence, k)


@pytest.mark.parametrize("k", [3, 4, 6, 8])
def test_blocks_join_without_a_seam(k, monkeypatch):
    sequence = "".join(numpy.random.default_rng(0).choice(list("ACGTN"), 300, p=[0.24, 0.25, 0.25, 0.25, 0.01]))
    expected = twin.ids(sequence, k)
    monkeypatch.setattr("randommask.kmers._BLOCK", 64)
    assert kmer_ids(base_codes(sequence), k).tolist() == expected
    rows = numpy.stack([base_codes(sequence[:50]), base_codes(sequence[50:100]), base_codes(sequence[100:150])])
    assert kmer_ids(rows, k).tolist() == [twin.ids(sequence[i : i + 50], k) for i in (0, 50, 100)]
    assert kmer_ids(base_codes(sequence), k, overlap=False).tolist() == twin.ids(sequence, k, k)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("k", range(1, 9))
def test_rows_and_their_slices_equal_the_twin(k, overlap):
    letters = numpy.random.default_rng(k).choice(list("ACGTN"), (7, 45), p=[0.24, 0.25, 0.25, 0.25, 0.01])
    codes = base_codes("".join(letters.reshape(-1))).reshape(7, 45)
    for part in (slice(0, 45), slice(3, 40), slice(0, k)):
        expected = [twin.ids("".join(row[part]), k, 1 if overlap else k) for row in letters]
        assert kmer_ids(codes[:, part], k, overlap=overlap).tolist() == expected
    space = numpy.full((7, 60), -1, dtype=numpy.int64)
    tokens = 45 - k + 1 if overlap else 45 // k
    kmer_ids(codes, k, overlap=overlap, out=space[:, 2 : 2 + tokens])
    assert space[:, 2 : 2 + tokens].tolist() == kmer_ids(codes, k, overlap=overlap).tolist()
    assert (space[:, :2] == -1).all()
    assert (space[:, 2 + tokens :] == -1).all()


def test_sliding_by_one_base():
    ids = kmer_ids(base_codes("GATTACAGATCC"), 6)
    digits = base_codes("GATTACAGATCC")[6:]
    for before, digit, after in zip(ids[:-1], digits, ids[1:], strict=True):
        assert after == 5 + (before - 5) % 4**5 * 4 + digit


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ACGTacgtuNRx-", max_size=60), st.integers(1, 8))
def test_any_text_equals_the_twin(sequence, k):
    assert kmer_ids(base_codes(sequence), k).tolist() == twin.ids(sequence, k)


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ACGT", min_size=8, max_size=60), st.integers(1, 8))
def test_ids_give_the_bases_back(sequence, k):
    assert bases(codes_of_ids(kmer_ids(base_codes(sequence), k), k)) == sequence
    whole = len(sequence) // k * k
    assert bases(codes_of_ids(kmer_ids(base_codes(sequence), k, overlap=False), k, overlap=False)) == sequence[:whole]


def test_unknown_windows_decode_to_n_where_no_neighbour_shows_the_base():
    sequence = "GATTACANGATTACA"
    assert bases(codes_of_ids(kmer_ids(base_codes(sequence), 6), 6)) == sequence
    masked = kmer_ids(base_codes("GATTACAGATTACA"), 6)
    masked[2] = 4
    assert bases(codes_of_ids(masked, 6)) == "GATTACAGATTACA"
    masked[2:8] = 4  # six of them hide one base
    assert bases(codes_of_ids(masked, 6)) == "GATTACANATTACA"


def test_kmers_that_disagree_are_named():
    ids = kmer_ids(base_codes("GATTACA"), 6)
    ids[1] = 5
    with pytest.raises(ValueError, match="6-mer at token 0 and a neighbour disagree about base 2"):
        codes_of_ids(ids, 6)
    with pytest.raises(ValueError, match="Token id 4101 is outside"):
        codes_of_ids(numpy.array([4101]), 6)


@pytest.mark.parametrize("k", [0, 9, 2.5, True])
def test_k_out_of_range_is_named(k):
    with pytest.raises(ValueError, match=f"k is {k!r}"):
        kmer_ids(base_codes("ACGT"), k)


def test_codes_of_another_type_are_refused():
    with pytest.raises(ValueError, match="int64"):
        kmer_ids(numpy.zeros(8, dtype=numpy.int64), 3)


def test_any_in_window():
    flags = numpy.random.default_rng(0).random(40) < 0.2
    for size in range(1, 9):
        assert any_in_window(flags, size).tolist() == [bool(flags[i : i + size].any()) for i in range(41 - size)]
