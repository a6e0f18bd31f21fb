import numpy
import pytest

from randommask.alphabet import base_codes, bases, reverse_complement
from randommask.genome.fasta import FastaRecord
from randommask.genome.held_out import describe_held_out, split_held_out
from randommask.genome.store import Genome, Stretch, known_stretches
from randommask.genome.windows import GenomeWindows
from scarce_common_utils.errors import UserError


def genome(*sequences):
    return Genome.of([FastaRecord(f"r{i}", base_codes(sequence)) for i, sequence in enumerate(sequences)])


def random_sequence(length, seed=0):
    return "".join(numpy.random.default_rng(seed).choice(list("ACGT"), length))


def windows_of(data, stretches=None, **options):
    chosen = [data.record(i) for i in range(len(data.names))] if stretches is None else stretches
    return GenomeWindows(data, chosen, **({"tokens": 10, "k": 6} | options))


def test_long_unknown_runs_split_stretches():
    data = genome("ACGTNNACGTACNGTACGT", "NNNN", "ACNNN")
    records = [data.record(i) for i in range(3)]
    assert known_stretches(data, records, longest_unknown=0, least=1) == [(0, 4), (6, 12), (13, 19), (23, 25)]
    assert known_stretches(data, records, longest_unknown=1, least=1) == [(0, 4), (6, 19), (23, 25)]
    assert known_stretches(data, records, longest_unknown=0, least=5) == [(6, 12), (13, 19)]


def test_strided_windows_cover_each_stretch_once():
    data = genome(random_sequence(47), random_sequence(30, 1), random_sequence(5, 2))
    found = windows_of(data, recipe="strided")
    assert found.full == 15
    pieces = [bases(found[i]) for i in range(len(found))]
    assert [len(piece) for piece in pieces] == [15, 15, 15, 15, 15]  # the rest of 2 bases holds no 6-mer
    assert "".join(pieces) == bases(data.codes)[:45] + bases(data.codes)[47:77]
    longer = windows_of(genome(random_sequence(53)), recipe="strided")
    assert [len(longer[i]) for i in range(len(longer))] == [15, 15, 15, 8]
    with pytest.raises(IndexError):
        longer[4]


def test_non_overlapping_windows_hold_k_bases_a_token():
    assert windows_of(genome(random_sequence(200)), overlap=False).full == 60


def test_drawn_windows_are_a_pure_function_of_seed_and_number():
    data = genome(random_sequence(300))
    first, again, other = (windows_of(data, seed=seed) for seed in (1, 1, 2))
    assert all(numpy.array_equal(first[i], again[i]) for i in (7, 3, 2**39))
    assert any(not numpy.array_equal(first[i], other[i]) for i in range(5))


def test_drawn_windows_never_leave_their_stretch():
    sequence = "A" * 40 + "N" * 3 + "C" * 30 + "N" * 50 + "G" * 7
    data = genome(sequence, "T" * 6)
    found = windows_of(data)
    seen = [bases(found[i]) for i in range(600)]
    assert all(len(set(window)) == 1 and "N" not in window for window in seen)
    assert {window[0] for window in seen} == {"A", "C", "G", "T"}
    assert min(map(len, seen)) == 6
    assert max(map(len, seen)) == 15


def test_lengths_are_those_of_dnaberts_recipe():
    data = genome("A" * 100_000)
    lengths = numpy.array([len(windows_of(data, tokens=95)[i]) for i in range(3000)])
    full = float(numpy.mean(lengths == 100))
    assert abs(full - 0.5) < 0.04
    drawn = lengths[lengths < 100]
    assert drawn.min() == 6
    assert abs(drawn.mean() - 50.2) < 2.5
    assert all(len(windows_of(data, tokens=95, recipe="full")[i]) == 100 for i in range(50))


def test_starts_are_uniform_over_all_stretches():
    data = genome(random_sequence(1006), random_sequence(3006, 1))
    first = bases(data.codes)
    places = numpy.array([first.find(bases(windows_of(data, recipe="full", tokens=20)[i])) for i in range(2000)])
    assert abs(float(numpy.mean(places >= 1006)) - 0.75) < 0.04


def test_other_strand_by_probability():
    data = genome(random_sequence(400))
    plain = windows_of(data)
    always, half = (windows_of(data, reverse_complement_share=share) for share in (1.0, 0.5))
    assert all(numpy.array_equal(always[i], reverse_complement(plain[i])) for i in range(20))
    turned = numpy.mean([not numpy.array_equal(half[i], plain[i]) for i in range(400)])
    assert abs(float(turned) - 0.5) < 0.1


def test_values_out_of_range():
    data = genome("ACGTACGTACGT")
    with pytest.raises(ValueError, match="recipe is 'all'"):
        windows_of(data, recipe="all")
    with pytest.raises(ValueError, match="tokens is 0"):
        windows_of(data, tokens=0)
    with pytest.raises(ValueError, match="reverse_complement_share is 2"):
        windows_of(data, reverse_complement_share=2)
    with pytest.raises(UserError, match="No stretch without long runs of N has 6 bases"):
        windows_of(genome("ACGTNACGT"))


def lengths(stretches):
    return [stop - start for start, stop in stretches]


def test_held_out_is_the_last_tenth_of_long_records():
    data = genome("A" * 100_001, "C" * 100_000, "G" * 250_000)
    parts = split_held_out(data)
    assert parts.held_out == [(90_001, 100_001), (425_001, 450_001)]
    assert lengths(parts.training) == [90_001, 100_000, 225_000]


def test_held_out_is_a_tenth_of_the_records_where_none_is_long():
    data = genome(*["ACGT" * 10] * 25)
    parts = split_held_out(data, seed=3)
    assert (len(parts.training), len(parts.held_out)) == (23, 2)
    assert sorted(parts.training + parts.held_out) == [data.record(i) for i in range(25)]
    assert split_held_out(data, seed=3) == parts
    assert any(split_held_out(data, seed=seed) != parts for seed in range(5))
    assert len(split_held_out(genome("ACGT", "ACGA")).held_out) == 1


def test_held_out_of_a_single_short_record_is_its_last_tenth():
    assert split_held_out(genome("A" * 95)) == ([Stretch(0, 86)], [Stretch(86, 95)])


def test_held_out_by_name():
    data = genome("A" * 100_001, "C" * 10, "G" * 20)
    parts = split_held_out(data, names=["r1"])
    assert parts.held_out == [data.record(1)]
    assert parts.training == [data.record(0), data.record(2)]
    with pytest.raises(UserError, match=r"'r01', but no record is called so; did you mean 'r[01]'"):
        split_held_out(data, names=["r01"])
    with pytest.raises(UserError, match=r"'chrX', but no record is called so; the records are r0, r1, r2"):
        split_held_out(data, names=["chrX"])
    with pytest.raises(UserError, match="all 3 records"):
        split_held_out(data, names=["r0", "r1", "r2"])


def test_what_is_held_out_is_named_five_records_at_most():
    data = genome(*["ACGT" * 300] * 8)
    seven = split_held_out(data, names=[f"r{i}" for i in range(7)])
    assert describe_held_out(data, seven) == ", ".join(f"r{i} (1,200 bases)" for i in range(5)) + " and 2 more"
    five = split_held_out(data, names=[f"r{i}" for i in range(1, 6)])
    assert describe_held_out(data, five) == ", ".join(f"r{i} (1,200 bases)" for i in range(1, 6))
    long = genome("ACGT", "A" * 200_000)
    assert describe_held_out(long, split_held_out(long)) == "r1 from 180,001 to 200,000 (20,000 bases)"
