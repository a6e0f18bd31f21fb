import numpy
import pytest

from randommask.alphabet import AMBIGUITY_LETTERS, AMBIGUOUS, FOREIGN, base_codes, bases, reverse_complement


def test_digits_are_those_of_dnabert():
    assert base_codes("ATCG").tolist() == [0, 1, 2, 3]
    assert base_codes("atcg").tolist() == [0, 1, 2, 3]
    assert base_codes("Uu").tolist() == [1, 1]


def test_every_byte_is_defined():
    table = base_codes(bytes(range(256)))
    known = "ATUCG" + AMBIGUITY_LETTERS
    for byte in range(256):
        letter = chr(byte).upper() if byte < 128 else ""
        expected = AMBIGUOUS if letter and letter in AMBIGUITY_LETTERS else FOREIGN
        if letter and letter in "ATUCG":
            expected = {"A": 0, "T": 1, "U": 1, "C": 2, "G": 3}[letter]
        assert table[byte] == expected, byte
    assert len(known) == 16


@pytest.mark.parametrize("byte", range(256))
def test_a_long_text_gives_the_codes_of_its_letters(byte, monkeypatch):
    monkeypatch.setattr("randommask.alphabet._SMALL", 1)
    monkeypatch.setattr("randommask.alphabet._BLOCK", 64)
    letters = bytearray(b"ACGTacgt" * 25)  # three blocks and a bit
    letters[150] = byte
    single = [int(base_codes(bytes([letter]), keep_soft_masked=True)[0]) for letter in letters]
    assert base_codes(bytes(letters)).tolist() == single


def test_a_text_as_long_as_a_chromosome():
    letters = numpy.random.default_rng(0).choice(numpy.frombuffer(b"ACGTacgt", dtype=numpy.uint8), 300_000).tobytes()
    assert base_codes(letters).tolist() == [{65: 0, 84: 1, 67: 2, 71: 3}[letter & 0xDF] for letter in letters]


def test_soft_masked_letters_can_be_unknown():
    assert base_codes("ACGTUacgtuNnx", keep_soft_masked=False).tolist() == [0, 2, 3, 1, 1, 4, 4, 4, 4, 4, 4, 4, 5]
    assert base_codes("acgt" * 10_000, keep_soft_masked=False).min() == AMBIGUOUS


def test_letters_outside_latin_are_foreign_one_code_each():
    assert base_codes("A→ß").tolist() == [0, FOREIGN, FOREIGN]


def test_bases_and_reverse_complement():
    assert bases(base_codes("acgtuNRx")) == "ACGTTNNN"
    assert bases(reverse_complement(base_codes("AACGTN"))) == "NACGTT"
    twice = reverse_complement(reverse_complement(base_codes("GATTACAN")))
    assert numpy.array_equal(twice, base_codes("GATTACAN"))


@pytest.mark.parametrize("pair", ["AT", "CG"])
def test_complement_is_code_xor_one(pair):
    first, second = base_codes(pair)
    assert first ^ 1 == second
