"""Neighbours of k-mer embeddings against loops over letters, their chance levels, and the pictures."""

import itertools
import sys

import pytest
import torch

from randommask.analysis.embeddings import (
    Purity,
    bases_at,
    chance,
    flatten,
    hamming_distances,
    kmer_rows,
    nearest_neighbours,
    neighbour_purity,
    telling_place,
)
from randommask.kmers import vocabulary
from randommask.models.starts import kmer_sums
from reference import neighbours as twin
from scarce_common_utils.errors import UserError


def drawn(rows, width, seed=0):
    return torch.randn((rows, width), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("k", "width", "seed"), [(1, 3, 0), (2, 4, 1), (3, 5, 2), (3, 2, 3)])
def test_purity_is_that_of_the_slow_twin(k, width, seed):
    rows = drawn(4**k, width, seed)
    assert tuple(neighbour_purity(rows, k=k)) == pytest.approx(twin.purity(rows.double().tolist(), k), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_chance_is_the_mean_over_all_pairs(k):
    assert tuple(chance(k)) == pytest.approx(twin.chance(k), rel=1e-12)


def test_o_chance_of_six_is_that_of_the_paper_page():
    assert chance(6).purity == pytest.approx(18 / 4095)
    assert chance(6).distance == pytest.approx(4.5 * 4096 / 4095)


def test_random_embeddings_stand_at_chance():
    found, level = neighbour_purity(drawn(4**6, 64, 5), k=6), chance(6)
    for share, expected in zip(found[:2], level[:2], strict=True):
        spread = (expected * (1 - expected) / 4**6) ** 0.5
        assert abs(share - expected) < 6 * spread
    assert found.distance == pytest.approx(level.distance, abs=0.15)


def test_sums_of_place_and_base_vectors_have_purity_one():
    rows = kmer_rows(kmer_sums(4, 32, generator=torch.Generator().manual_seed(0)), k=4)
    assert neighbour_purity(rows, k=4).purity == 1.0


def test_embeddings_of_rotations_have_shifted_neighbours():
    names = twin.kmers(3)
    least = [min(name[place:] + name[:place] for place in range(3)) for name in names]
    rows = torch.eye(64)[[names.index(name) for name in least]]  # a rotation is a move by one base
    assert neighbour_purity(rows + 1e-3 * drawn(64, 64), k=3).shift_purity > 0.9  # AAA, TTT, CCC, GGG have no other


def test_scale_of_a_row_does_not_matter_and_blocks_agree(monkeypatch):
    rows = drawn(256, 8)
    before = nearest_neighbours(rows)
    scaled = rows * torch.rand(256, 1, generator=torch.Generator().manual_seed(1)).add(0.5)
    assert torch.equal(before, nearest_neighbours(scaled))
    monkeypatch.setattr("randommask.analysis.embeddings._BLOCK", 7)
    assert torch.equal(before, nearest_neighbours(rows))


def test_distances_and_bases_are_those_of_the_letters():
    names = vocabulary(3)[5:]
    for a, b in itertools.product(range(0, 64, 5), range(64)):
        expected = sum(x != y for x, y in zip(names[a], names[b], strict=True))
        assert int(hamming_distances(torch.tensor(a), torch.tensor(b), k=3)) == expected
    for place in range(3):
        assert ["ATCG"[code] for code in bases_at(place, k=3).tolist()] == [name[place] for name in names]


def test_pca_keeps_distances_of_a_plane_and_tells_its_share():
    plane = drawn(64, 2, 3).double() * torch.tensor([3.0, 1.0])
    turned, _ = torch.linalg.qr(drawn(9, 9, 4).double())
    found = flatten(plane @ turned[:2] + 5.0)
    assert found.explained is not None
    assert sum(found.explained) == pytest.approx(1.0, abs=1e-6)
    assert found.explained[0] > found.explained[1]
    assert torch.allclose(torch.cdist(found.places, found.places), torch.cdist(plane, plane), atol=1e-6)
    assert torch.allclose(found.places.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-5)
    again = flatten(plane @ turned[:2])
    assert torch.allclose(found.places, again.places, atol=1e-4)  # no sign that flips


def test_the_place_that_is_told_apart():
    places = torch.zeros(64, 2)
    places[:, 1] = bases_at(1, k=3) * 2.0
    assert telling_place(places + 0.1 * drawn(64, 2), k=3) == 1


def test_tsne_repeats_itself_and_is_asked_for_in_one_sentence_where_it_is_missing(monkeypatch):
    rows = drawn(64, 6)
    first, again = (flatten(rows, picture="tsne") for _ in range(2))
    assert first.places.shape == (64, 2)
    assert first.explained is None
    assert torch.equal(first.places, again.places)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        flatten(rows, picture="tsne")


def test_what_cannot_be_looked_at_is_refused():
    with pytest.raises(ValueError, match=r"\(70, 4\), but k = 3 has 69 rows"):
        kmer_rows(torch.zeros(70, 4), k=3)
    with pytest.raises(ValueError, match="60 rows, but k = 3 has 64"):
        neighbour_purity(torch.zeros(60, 4), k=3)
    with pytest.raises(ValueError, match="no finite number"):
        neighbour_purity(torch.full((64, 4), torch.nan), k=3)
    with pytest.raises(ValueError, match="'umap'"):
        flatten(torch.zeros(64, 4), picture="umap")
    with pytest.raises(ValueError, match="3 rows and 2 columns"):
        flatten(torch.zeros(64, 1))
    with pytest.raises(ValueError, match="at least two rows"):
        nearest_neighbours(torch.zeros(1, 4))


def test_all_embeddings_alike_give_numbers_all_the_same():
    found = neighbour_purity(torch.zeros(16, 4), k=2)
    assert isinstance(found, Purity)
    assert flatten(torch.ones(16, 4)).explained == (0.0, 0.0)
