import pytest
import torch

from layermatch.views.vectors import noisy_views


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_is_noise_and_dropped_features_of_each_numbers_own():
    vectors = 5.0 + torch.randn(2000, 4, generator=generator(1))
    noisy = noisy_views(vectors, generator=generator(), noise=0.5)
    added = noisy - vectors
    assert added.std(dim=0) == pytest.approx(torch.full((4,), 0.5), abs=0.03)
    assert added.mean(dim=0) == pytest.approx(torch.zeros(4), abs=0.05)
    assert abs(torch.corrcoef(added.T) - torch.eye(4)).max() < 0.1
    dropped = noisy_views(vectors, generator=generator(), noise=0.5, dropout=0.25)
    kept = dropped != 0
    assert torch.equal(dropped[kept], noisy[kept])
    assert (~kept).float().mean(dim=0) == pytest.approx(torch.full((4,), 0.25), abs=0.04)
    assert abs(torch.corrcoef(kept.float().T) - torch.eye(4)).max() < 0.1


def test_without_noise_and_dropout_it_is_the_vector_and_with_all_dropped_nothing():
    vectors = torch.randn(7, 3, generator=generator(1))
    assert torch.equal(noisy_views(vectors, generator=generator(), noise=0.0), vectors)
    assert not noisy_views(vectors, generator=generator(), noise=1.0, dropout=1.0).any()


def test_it_is_a_function_of_the_generator_and_leaves_what_it_was_given():
    vectors = torch.randn(7, 3, generator=generator(1))
    before, state = vectors.clone(), torch.get_rng_state()
    first = noisy_views(vectors, generator=generator(), noise=1.0, dropout=0.5)
    assert torch.equal(first, noisy_views(vectors, generator=generator(), noise=1.0, dropout=0.5))
    assert not torch.equal(first, noisy_views(vectors, generator=generator(2), noise=1.0, dropout=0.5))
    assert torch.equal(vectors, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("noise", "dropout"), [(-0.1, 0.0), (float("nan"), 0.0), (0.1, -0.1), (0.1, 1.1)])
def test_values_out_of_range_are_named(noise, dropout):
    with pytest.raises(ValueError, match=f"noise is {noise} and dropout {dropout}"):
        noisy_views(torch.zeros(1, 1), generator=generator(), noise=noise, dropout=dropout)
