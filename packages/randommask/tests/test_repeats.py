"""Repeats in DNA against a slow twin by letters."""

import numpy
import torch

from randommask.alphabet import base_codes, bases
from randommask.data.repeats import Repeats, differing_labels, other_strand, repeats_by_side
from randommask.genome.fasta import FastaRecord
from randommask.genome.repeats import Repeated, repeated_records, repeated_windows
from randommask.genome.store import Genome, Stretch


def dna(length, seed):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())


def slow_other_strand(letters):
    return "".join({"A": "T", "C": "G", "G": "C", "T": "A"}.get(letter, "N") for letter in reversed(letters))


def genome_of(*letters):
    return Genome.of([FastaRecord(f"r{number}", base_codes(text)) for number, text in enumerate(letters)])


def test_records_that_repeat_one_another_on_either_strand():
    one, other = dna(200, 0), dna(200, 1)
    genome = genome_of(one, other, slow_other_strand(one), other, dna(199, 2))
    assert repeated_records(genome) == [("r2", "r0", True), ("r3", "r1", False)]


def slow_repeated(genome, stretches, windows):
    texts = [bases(genome.codes[start:stop]) for start, stop in stretches]
    same = {index for index, window in enumerate(windows) if any(bases(window) in text for text in texts)}
    turned = {
        index for index, window in enumerate(windows) if any(slow_other_strand(bases(window)) in text for text in texts)
    }
    return len(same), len(turned - same)


def test_windows_in_the_training_dna_as_a_slow_search_finds_them():
    first, second = dna(3000, 3), dna(2000, 4)
    genome = genome_of(first, second)
    stretches = [Stretch(0, 3000), Stretch(3000, 4500)]
    texts = [
        first[100:140],  # as it is
        slow_other_strand(first[2000:2040]),
        second[1480:1520],  # beyond the second stretch's end
        first[2990:3000] + second[:30],  # across two records
        dna(40, 9),
        first[0:39] + ("A" if first[39] != "A" else "C"),  # the last letter differs
        "A" * 40,
        first[2960:3000],  # at the very end
    ]
    windows = [base_codes(text) for text in texts]
    found = repeated_windows(genome, stretches, windows, seconds=60.0)
    assert found == Repeated(8, *slow_repeated(genome, stretches, windows), 4500)
    assert (found.same_strand, found.other_strand) == (2, 1)


def test_a_palindrome_and_a_run_of_one_base_count_once():
    genome = genome_of("A" * 5000 + dna(100, 5))
    half = dna(20, 6)
    palindrome = half + slow_other_strand(half)
    assert repeated_windows(genome, [Stretch(0, 5100)], [base_codes("T" * 40)], seconds=60.0)[1:3] == (0, 1)
    assert repeated_windows(genome_of(palindrome), [Stretch(0, 40)], [base_codes(palindrome)], seconds=60.0)[1:3] == (
        1,
        0,
    )


def test_windows_across_pieces_and_the_end_of_the_time(monkeypatch):
    from randommask.genome import store

    monkeypatch.setattr(store, "_PIECE", 64)
    text = dna(400, 7)
    genome, windows = genome_of(text), [base_codes(text[place : place + 20]) for place in range(0, 380, 7)]
    assert repeated_windows(genome, [Stretch(0, 400)], windows, seconds=60.0)[:3] == (len(windows), len(windows), 0)
    found = repeated_windows(genome, [Stretch(0, 400)], windows, seconds=-1.0)
    assert found.bases == 64 + 19  # one piece, however little time there is
    assert 0 < found.same_strand < len(windows)


def test_short_windows_are_not_looked_up():
    assert repeated_windows(genome_of(dna(100, 8)), [Stretch(0, 100)], [base_codes("A" * 15)], seconds=1.0) is None
    assert repeated_windows(genome_of(dna(100, 8)), [Stretch(0, 100)], [], seconds=1.0) is None


def test_unknown_letters_are_no_base():
    genome = genome_of("A" * 20 + "N" * 20)
    assert repeated_windows(genome, [Stretch(0, 40)], [numpy.zeros(32, dtype=numpy.uint8)], seconds=1.0)[1:3] == (0, 0)


def test_rows_across_sides():
    found = repeats_by_side(
        {"train": ["AAC", "GTT", "ACGT", "CCC"], "dev": ["AAC", "GGG"], "test": ["GGG", "TTA", "TAA", "TTA"]}
    )
    assert found == {
        "within train": Repeats(0, 1),  # GTT turns AAC
        "dev in train too": Repeats(1, 1),  # AAC; GGG turns CCC
        "within test": Repeats(1, 1),  # TTA again; TAA turns TTA
        "test in train too": Repeats(0, 1),
        "test in dev too": Repeats(1, 0),
    }
    assert repeats_by_side({"train": ["ACGT"], "test": ["AAAA"]}) == {}
    assert other_strand("AACN") == "NGTT"


def test_sequences_with_several_labels():
    assert differing_labels(["A", "A", "C", "C", "G"], [0, 1, 2, 2, 0]) == 1
