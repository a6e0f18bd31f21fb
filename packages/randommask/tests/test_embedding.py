import json
import shutil

import numpy
import pytest
import torch
from transformers import AutoModel, BertModel

from encoder_folders import dna, kmer_folder, letter_folder
from randommask.training.embedding import embeddings
from randommask.training.loading import by_length, cut_into_pieces, load_encoder
from scarce_common_utils.errors import UserError

SEQUENCES = [dna(30, 0), dna(9, 1), "ACGTNACGTTGCAACRYGT", dna(75, 2), "NNNNNN"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"kmers": kmer_folder(folder / "kmers"), "letters": letter_folder(folder / "letters")}


def slow(folder, name, *, pooling, layer):
    """Sequence by sequence, piece by piece, in float64."""
    model = (AutoModel if name == "letters" else BertModel).from_pretrained(folder).eval().double()
    loaded = load_encoder(folder)
    pieces = cut_into_pieces(SEQUENCES, loaded)
    front, behind = list(loaded.specials.front), list(loaded.specials.behind)
    sums, counts = [0.0] * len(SEQUENCES), [0] * len(SEQUENCES)
    for ids, owner in zip(pieces.ids, pieces.owners, strict=True):
        with torch.no_grad():
            out = model(input_ids=torch.tensor([[*front, *ids.tolist(), *behind]]), output_hidden_states=True)
        states = out.hidden_states[layer][0]
        rows = states[:1] if pooling == "cls" else states[len(front) : len(front) + len(ids)]
        sums[owner] = sums[owner] + rows.sum(0)
        counts[owner] += len(rows)
    return torch.stack([one / count for one, count in zip(sums, counts, strict=True)]).numpy()


@pytest.mark.parametrize("name", ["kmers", "letters"])
@pytest.mark.parametrize(("pooling", "layer"), [("mean", 2), ("mean", 1), ("mean", 0), ("cls", 2), ("cls", 1)])
def test_embeddings_against_the_slow_twin(folders, name, pooling, layer):
    loaded = load_encoder(folders[name])
    pieces = cut_into_pieces(SEQUENCES, loaded)
    assert len(pieces.ids) > len(SEQUENCES)
    done = []
    found = embeddings(
        loaded, pieces, pooling=pooling, layer=None if layer == 2 else layer, batch_size=3, advance=done.append
    )
    assert found.dtype == numpy.float32
    assert sum(done) == len(pieces.ids)
    numpy.testing.assert_allclose(found, slow(folders[name], name, pooling=pooling, layer=layer), rtol=2e-4, atol=2e-5)
    assert numpy.array_equal(
        found, embeddings(loaded, pieces, pooling=pooling, layer=None if layer == 2 else layer, batch_size=3)
    )


def test_weights_of_another_size_are_refused_by_name(folders, tmp_path):
    folder = shutil.copytree(folders["kmers"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 5}))
    with pytest.raises(
        UserError, match=r"token_type_embeddings.weight has the shape .* and \(5, \d+\) is needed \(1 such\)"
    ):
        load_encoder(folder)


def test_a_long_row_is_cut_evenly_and_batches_go_by_length(folders):
    loaded = load_encoder(folders["kmers"])
    pieces = cut_into_pieces([dna(75, 2), dna(9, 1)], loaded)
    assert [len(ids) for ids in pieces.ids] == [24, 24, 25, 7]
    assert pieces.owners.tolist() == [0, 0, 0, 1]
    assert by_length(pieces.ids).tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layer": 3}, r"layer is 3, but the model has the layers 0 \(embeddings\) to 2"),
        ({"pooling": "max"}, r"pooling is 'max'; choose mean or cls"),
    ],
)
def test_what_cannot_be(folders, words, message):
    loaded = load_encoder(folders["kmers"])
    with pytest.raises(ValueError, match=message):
        embeddings(loaded, cut_into_pieces(SEQUENCES, loaded), **words)
    with pytest.raises(ValueError, match="sequence 1 has no token"):
        embeddings(loaded, cut_into_pieces([dna(9, 1), "AC"], loaded))
