"""Files that were made to mislead or to fill the memory: nothing of them is run, and the refusal is a sentence."""

import bz2
import gzip
import json
import lzma
import pickle

import pytest
import torch

from encoder_folders import kmer_folder, letter_folder
from randommask.commands.dna import _local
from randommask.data.tables import read_table
from randommask.genome.cache import cached_genome
from randommask.genome.fasta import read_fasta
from randommask.genome.sequences import read_sequences
from randommask.tokenizer import KmerTokenizer
from randommask.training.encoders import is_kmer_folder, pretrained_classifier
from randommask.training.loading import load_encoder, load_masked
from scarce_common_utils.errors import UserError

ROWS = b"ACGTTGCA,1\nGATTACAG,0\n"
EVIL = "open('run', 'w')\nclass Model: pass\nclass KmerTokenizer: pass\n"


@pytest.fixture
def small(monkeypatch):
    """The limit of what may be unpacked at 64 kB."""
    monkeypatch.setattr("scarce_common_utils.unpacking.ALWAYS", 2**16)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=lambda pack: pack.__module__)
def test_tables_that_unpack_to_a_hundred_times_their_size_are_refused(small, tmp_path, pack):
    path = tmp_path / "a.csv"
    path.write_bytes(pack(b"sequence,label\n" + ROWS * 60_000))
    for read in (read_table, read_sequences):
        with pytest.raises(
            UserError, match=r"a.csv has \d+ bytes and unpacks to 1 MiB or more, over 100 times as much"
        ):
            read(path)


def test_a_genome_that_unpacks_to_a_hundred_times_its_size_is_refused(small, tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(b">one\n" + b"A" * 2**20))
    with pytest.raises(UserError, match=r"a.fa.gz has \d+ bytes and unpacks to 1 MiB or more"):
        list(read_fasta(path))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=lambda pack: pack.__module__)
def test_streams_end_to_end_are_read_whole_or_refused(tmp_path, pack):
    """Python's own readers take what is behind a stream for nothing where its first bytes are damaged."""
    path = tmp_path / "a.csv"
    first, second = pack(b"sequence,label\n" + ROWS), pack(ROWS)
    path.write_bytes(first + second + bytes(4))
    assert len(read_table(path).labels) == 4
    path.write_bytes(first + b"\0" * 4 + second)
    assert len(read_table(path).labels) == 4
    path.write_bytes(first + b"x" + second[1:])
    with pytest.raises(UserError, match=r"a.csv is damaged: its (bzip2|xz) stream cannot be read"):
        read_table(path)
    for length in (1, 5, len(second) - 1):
        path.write_bytes(first + second[:length])
        with pytest.raises(UserError, match=r"a.csv (ends within a|is damaged)"):
            read_table(path)


def test_parquet_that_says_one_value_again_and_again_is_refused(small, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow comes with the extra parquet")
    from pyarrow import parquet

    places = pyarrow.array([0] * 1000, pyarrow.int32())
    letters = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(["ACGT" * 250]))
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"sequence": letters, "label": ["0", "1"] * 500}), path, store_schema=False)
    with pytest.raises(UserError, match=r"a.parquet has \d+ bytes and unpacks to 1 MiB or more"):
        read_table(path)
    with pytest.raises(UserError, match=r"a.parquet has \d+ bytes and unpacks to 1 MiB or more"):
        _local([path], flag="--dataset")
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"--dataset names .*a.parquet, which cannot be read as parquet"):
        _local([path], flag="--dataset")


def test_a_cache_that_misleads_is_made_anew(tmp_path):
    (tmp_path / "a.fa").write_text(">one\nACGTACGT\n")
    cached_genome([tmp_path / "a.fa"], folder=tmp_path / "cache")
    header = next((tmp_path / "cache").glob("*.json"))
    for text in ("[" * 100_000, json.dumps(json.loads(header.read_text()) | {"starts": [0, 1e400]})):
        header.write_text(text)
        said = []
        assert cached_genome([tmp_path / "a.fa"], folder=tmp_path / "cache", tell=said.append).starts == (0, 8)
        assert "is damaged, so it is made anew" in said[0]


@pytest.fixture(params=["k-mers", "letters"])
def folder(request, tmp_path, monkeypatch):
    """A model's folder, every Python file of which writes a file when run."""
    monkeypatch.chdir(tmp_path)
    made = kmer_folder(tmp_path / "model") if request.param == "k-mers" else letter_folder(tmp_path / "model")
    for name in (*(path.name for path in made.glob("*.py")), "evil.py"):
        (made / name).write_text(EVIL)
    yield made
    assert not (tmp_path / "run").exists(), "the folder's code was run"


def edit(file, **more):
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def all_ways(folder):
    load_encoder(folder)
    tokenizer = load_masked(folder).tokenizer
    pretrained_classifier(folder, labels=["0", "1"], dropout=0.0, seed=0)
    return tokenizer


def test_code_of_a_known_kind_is_not_run(folder):
    edit(folder / "config.json", auto_map={"AutoModel": "evil.Model", "AutoModelForMaskedLM": "evil.Model"})
    tokenizer = all_ways(folder)
    assert type(tokenizer).__module__.partition(".")[0] in ("randommask", "transformers")
    if is_kmer_folder(folder):
        assert type(tokenizer) is KmerTokenizer  # ours, and not that of the folder's tokenizer.py


def test_code_of_an_unknown_kind_needs_the_option(folder):
    auto = dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"), "evil.Model"
    )
    edit(folder / "config.json", auto_map=auto, model_type="evil")
    for load in (
        load_encoder,
        load_masked,
        lambda path: pretrained_classifier(path, labels=["0"], dropout=0.0, seed=0),
    ):
        with pytest.raises(
            UserError, match=r"needs code that it brings along, and that is not run.*give --trust-remote-code"
        ):
            load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", pickle.dumps(print)),
        ("config.json", b"[" * 100_000),
        ("config.json", b"[]"),
        ("config.json", {"__class__": "os.system"}),
        ("config.json", {"hidden_size": "../../x"}),
        ("tokenizer_config.json", {"__class__": "os.system"}),
    ],
    ids=str,
)
def test_what_transformers_stumbles_over_is_a_sentence(folder, name, content):
    if isinstance(content, dict):
        edit(folder / name, **content)
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{folder}, which cannot be loaded|{folder}, whose"):
        load_encoder(folder)
    with pytest.raises(UserError, match=rf"{folder}, which cannot be loaded|{folder}, whose"):
        pretrained_classifier(folder, labels=["0", "1"], dropout=0.0, seed=0)


def test_what_is_packed_is_unpacked_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("randommask.data.tables._PIECE", 7)
    raw = b"sequence,label\n" + ROWS
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        path = tmp_path / "a.csv"
        path.write_bytes(pack(raw[:20]) + pack(raw[20:]))
        assert read_table(path).sequences == ["ACGTTGCA", "GATTACAG"]


def test_a_pickle_among_the_trainers_files_is_a_sentence(tmp_path):
    from randommask.training.pretraining import pickles_refused

    torch.save({"a": print}, tmp_path / "scheduler.pt")
    with pytest.raises(UserError, match=rf"{tmp_path} holds a file with more than tensors"), pickles_refused(tmp_path):
        torch.load(tmp_path / "scheduler.pt", weights_only=True)
