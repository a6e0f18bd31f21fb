import pytest
import torch

from randommask.training.kmer_regression import Rows, regression_floors
from randommask.training.regression import fit, ranks
from reference import regression as twin


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_the_twin(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(6, (30,), generator=generator).double()  # ties
    y = x + torch.randn(30, generator=generator).double()
    found = fit(y, x)
    assert found.pearson == pytest.approx(twin.pearson(y.tolist(), x.tolist()))
    assert found.spearman == pytest.approx(twin.spearman(y.tolist(), x.tolist()))
    assert found.loss == pytest.approx(sum((a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True)) / 30)
    assert ranks(x).tolist() == twin.ranks(x.tolist())


def test_a_constant_prediction_correlates_with_nothing():
    assert fit(torch.ones(4), torch.arange(4.0))[1:] == (0.0, 0.0)


def test_ridge_floors_of_numbers():
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(4, (400, 30), generator=generator)
    sequences = ["".join("ACGT"[code] for code in row) for row in letters.tolist()]
    targets = (letters[:, 3] == 2).float() * 2 + (letters[:, 9] == 1).float() - 0.5
    parts = [Rows(sequences[a:b], targets[a:b]) for a, b in ((0, 300), (300, 350), (350, 400))]
    floors = regression_floors(*parts)
    assert floors["positional"] > 0.95
    assert abs(floors["kmer"]) < 0.6
