import math

import numpy
import pytest
import torch
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from encoder_folders import K, dna, kmer_folder, letter_folder
from randommask.training.loading import cut_into_pieces, load_masked
from randommask.training.scoring import default_width, maskable, masked_rows, scores, windows
from reference.pseudo_likelihood import log_likelihood

SEQUENCES = [dna(14, 0), "ACGTNACGTTGCAACRYGT", dna(36, 2), "AC", "NNNNNN", dna(3, 3)]
UNKNOWN = 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "overlapping": kmer_folder(folder / "overlapping"),
        "side by side": kmer_folder(folder / "side", overlap=False),
        "letters": letter_folder(folder / "letters"),
        "usual": kmer_folder(folder / "usual", k=6, start="usual"),
    }


def twin(loaded, model, *, k, width):
    """Each piece of each sequence by itself, unpadded, through the plain model."""
    pieces = cut_into_pieces(SEQUENCES, loaded)
    front, behind = list(loaded.specials.front), list(loaded.specials.behind)
    specials = set(loaded.tokenizer.all_special_ids)

    def predict(row):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*front, *row, *behind]])).logits[0]
        return logits.double().log_softmax(1)[len(front) :].tolist()

    found = numpy.zeros((len(SEQUENCES), 3))
    for ids, owner in zip(pieces.ids, pieces.owners, strict=True):
        found[owner] += log_likelihood(
            ids.tolist(),
            predict,
            k=k,
            width=width,
            mask=loaded.tokenizer.mask_token_id,
            known=lambda i: i not in specials,
        )
    return found


@pytest.mark.parametrize(
    ("name", "k", "width"),
    [("overlapping", K, width) for width in (3, 4, 5, 6, 9)]
    + [("side by side", 1, 1), ("side by side", 1, 3), ("letters", 1, 2)],
)
def test_scores_against_the_slow_twin(folders, name, k, width):
    loaded = load_masked(folders[name])
    plain = (AutoModelForMaskedLM if name == "letters" else BertForMaskedLM).from_pretrained(folders[name]).eval()
    expected = twin(loaded, plain, k=k, width=width)
    pieces = cut_into_pieces(SEQUENCES, loaded)
    assert len(pieces.ids) > len(SEQUENCES) or name == "side by side"  # the long one was cut
    found = scores(loaded, pieces, count=len(SEQUENCES), width=width, batch_size=7)
    numpy.testing.assert_allclose(found.total, expected[:, 0], rtol=1e-5, atol=1e-5)
    alone = scores(loaded, pieces, count=len(SEQUENCES), width=width, batch_size=1)
    numpy.testing.assert_allclose(found.total, alone.total, rtol=1e-5, atol=1e-5)
    assert found.tokens.tolist() == expected[:, 1].tolist()
    if name == "overlapping":
        assert found.bases.tolist() == expected[:, 2].tolist()
    elif name == "side by side":
        assert found.bases.tolist() == (K * expected[:, 1]).tolist()
    if name != "letters":  # shorter than a k-mer; all N
        assert found.total[3:5].tolist() == found.tokens[3:5].tolist() == [0, 0]


@pytest.mark.parametrize("width", [5, 6, 8])
def test_nothing_of_a_scored_token_leaks_through_its_neighbours(folders, width):
    """Whatever a scored token's bases are, the row that it is predicted from stays the same."""
    loaded = load_masked(folders["overlapping"])
    letters = dna(20, 5)
    rows = list(masked_rows(loaded, cut_into_pieces([letters], loaded), width=width))
    assert sorted(place for row in rows for place in row.places.tolist()) == list(range(18))
    for number, row in enumerate(rows):
        for place in row.places.tolist():
            for base in range(place, place + K):
                other = letters[:base] + ("A" if letters[base] != "A" else "G") + letters[base + 1 :]
                changed = list(masked_rows(loaded, cut_into_pieces([other], loaded), width=width))[number]
                assert changed.ids.tolist() == row.ids.tolist()
                assert changed.targets.tolist() != row.targets.tolist()


def test_a_window_of_k_hides_one_base_and_a_narrower_one_is_refused(folders):
    loaded = load_masked(folders["overlapping"])
    found = scores(loaded, cut_into_pieces([dna(20, 5)], loaded), count=1, width=K)
    assert found.tokens[0] == 18
    assert found.bases[0] == 18 + 4  # one a token, and one more in each of the two tokens at either end of the row
    with pytest.raises(ValueError, match=r"width is 2, but overlapping 3-mers share bases: .* Take 5 to hide all"):
        scores(loaded, cut_into_pieces([dna(20, 5)], loaded), count=1, width=2)


def test_a_model_that_knows_nothing_scores_log_of_four_to_the_k(folders):
    loaded = load_masked(folders["usual"])
    found = scores(loaded, cut_into_pieces([dna(40, 7), dna(33, 8)], loaded), count=2)
    assert default_width(loaded.reach) == 11
    numpy.testing.assert_allclose(found.total / found.tokens, -math.log(4**6), atol=0.06)
    numpy.testing.assert_allclose(found.total / found.bases, -math.log(4), atol=0.01)


def test_windows_score_each_token_once_and_are_cut_at_the_ends():
    for reach in (1, 2, 6):
        for width in (reach, 2 * reach - 1, 2 * reach, 3 * reach + 1):
            for tokens in (0, 1, 5, 24):
                found = windows(tokens, width=width, reach=reach)
                assert [place for one in found for place in range(one.start, one.stop)] == list(range(tokens))
                assert all(0 <= one.left <= one.start < one.stop <= one.right <= tokens for one in found)
                assert all(one.right - one.left <= width for one in found)


def test_specials_and_unknown_are_never_scored(folders):
    tokenizer = load_masked(folders["overlapping"]).tokenizer
    assert maskable(numpy.array([0, UNKNOWN, 2, 3, 4, 5, 68]), tokenizer).tolist() == [False] * 5 + [True] * 2
