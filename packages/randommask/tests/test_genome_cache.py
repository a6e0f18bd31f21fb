import gzip
import pickle

import numpy
import pytest

from randommask.alphabet import AMBIGUOUS, bases
from randommask.genome.cache import cached_genome
from randommask.genome.store import Stretch, known_stretches, pieces, read_genome
from randommask.genome.windows import GenomeWindows
from randommask.training.evaluation import log_frequencies
from scarce_common_utils.errors import UserError

FIRST = ">chr1 x\nACGTacgtNNNNACGTTGCA\n>chr2\nGATTACA\n"
SECOND = ">chr3\nTTTTGGGG\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.fa").write_text(FIRST)
    (tmp_path / "b.fa.gz").write_bytes(gzip.compress(SECOND.encode()))
    return [tmp_path / "a.fa", tmp_path / "b.fa.gz"]


def same(one, other):
    return (one.names, one.starts, bases(one.codes)) == (other.names, other.starts, bases(other.codes))


def test_a_mapped_genome_is_the_one_in_memory_and_is_read_once(files, tmp_path, monkeypatch):
    told = []
    first = cached_genome(files, folder=tmp_path / "cache", tell=told.append)
    assert same(first, read_genome(files))
    assert isinstance(first.codes, numpy.memmap)
    assert first.content_hash == read_genome(files).content_hash
    monkeypatch.setattr("randommask.genome.cache.chosen_records", None)  # reading again would fail
    again = cached_genome(files, folder=tmp_path / "cache", tell=told.append)
    assert same(again, first)
    assert told == []
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".codes", ".json"]


def test_options_and_files_have_caches_of_their_own(files, tmp_path):
    folder = tmp_path / "cache"
    everything = cached_genome(files, folder=folder)
    some = cached_genome(files, folder=folder, records=["chr3", "chr1"])
    assert some.names == ("chr1", "chr3")
    upper = cached_genome(files, folder=folder, keep_soft_masked=False)
    assert bases(upper.codes[:8]) == "ACGTNNNN"
    assert (upper.codes[4:8] == AMBIGUOUS).all()
    assert same(cached_genome(files, folder=folder), everything)
    assert len(list(folder.glob("*.codes"))) == 3


def test_a_stale_cache_is_named_and_made_anew(files, tmp_path):
    cached_genome(files, folder=tmp_path / "cache")
    files[0].write_text(FIRST.replace("GATTACA", "GATTACC"))
    told = []
    found = cached_genome(files, folder=tmp_path / "cache", tell=told.append)
    assert same(found, read_genome(files))
    assert len(told) == 1
    assert "a-" in told[0]
    assert "was made from other files, so it is made anew" in told[0]


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda codes, header: codes.write_bytes(codes.read_bytes()[:-3]), "is damaged"),
        (lambda codes, header: codes.write_bytes(b"\x03" + codes.read_bytes()[1:]), "is damaged"),
        (lambda codes, header: codes.unlink(), "is damaged"),
        (lambda codes, header: header.write_text("{"), "is damaged"),
        (lambda codes, header: header.write_text("{}"), "is damaged"),
        (lambda codes, header: header.unlink(), "was left unfinished"),
    ],
    ids=["cut", "flipped", "gone", "no JSON", "empty JSON", "killed before the header"],
)
def test_a_torn_cache_is_named_and_made_anew(files, tmp_path, harm, word):
    folder = tmp_path / "cache"
    cached_genome(files, folder=folder)
    harm(next(folder.glob("*.codes")), next(folder.glob("*.json")))
    told = []
    found = cached_genome(files, folder=folder, tell=told.append)
    assert same(found, read_genome(files))
    assert [word in text for text in told] == [True]


def test_a_bad_source_leaves_no_cache(files, tmp_path):
    files[1].write_bytes(files[1].read_bytes()[:-6])
    with pytest.raises(UserError, match=r"b.fa.gz ends within a gzip stream"):
        cached_genome(files, folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(UserError, match=r"none.fa does not exist"):
        cached_genome([tmp_path / "none.fa"], folder=tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache is .*file, which cannot be written"):
        cached_genome(files[:1], folder=tmp_path / "file")


def test_an_unknown_record_is_refused_with_the_nearest(files, tmp_path):
    for reader in (read_genome, lambda paths, **options: cached_genome(paths, folder=tmp_path / "cache", **options)):
        with pytest.raises(
            UserError, match=r"--records names 'chr33', but no record is called so; did you mean 'chr3'\?"
        ):
            reader(files, records=["chr1", "chr33"])


def test_a_mapped_genome_travels_to_workers_without_its_bases(files, tmp_path):
    genome = cached_genome(files, folder=tmp_path / "cache")
    windows = GenomeWindows(genome, [genome.record(0)], tokens=3, k=3)
    sent = pickle.dumps(windows)
    assert genome.codes[:20].tobytes() not in sent
    again = pickle.loads(sent)
    assert isinstance(again.genome.codes, numpy.memmap)
    assert all(numpy.array_equal(again[number], windows[number]) for number in range(20))
    memory = pickle.loads(pickle.dumps(read_genome(files)))
    assert same(memory, genome)


@pytest.mark.parametrize("piece", [1, 3, 7, 1 << 20])
def test_pieces_change_nothing(files, monkeypatch, piece):
    genome = read_genome(files)
    records = [genome.record(index) for index in range(len(genome.names))]
    expected = log_frequencies(genome, records, k=3)
    stretches = known_stretches(genome, records, longest_unknown=1, least=1)
    digest = genome.content_hash
    monkeypatch.setattr("randommask.genome.store._PIECE", piece)
    again = read_genome(files)
    assert again.content_hash == digest
    assert (
        known_stretches(again, records, longest_unknown=1, least=1)
        == stretches
        == [(0, 8), (12, 20), (20, 27), (27, 35)]
    )
    assert numpy.array_equal(log_frequencies(again, records, k=3), expected)
    found = list(pieces(Stretch(5, 25), overlap=2))
    assert [place for part in found for place in range(part.start, part.stop - 2)] == list(range(5, 23))
