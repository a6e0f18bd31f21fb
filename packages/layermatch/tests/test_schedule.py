from math import cos, pi

import pytest

from layermatch import cosine_factor, half_life_momentum


def test_cosine_7_16():
    assert cosine_factor(0, 100) == 1.0
    assert cosine_factor(100, 100) == pytest.approx(0.19509, abs=1e-5)
    assert cosine_factor(37, 100) == pytest.approx(cos(7 * pi * 37 / 1600), abs=1e-15)
    values = [cosine_factor(step, 50) for step in range(51)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("steps", "momentum"), [(600, 0.8909), (2000, 0.9659), (10_000, 0.9931), (100_000, 0.99931), (2**20, 0.999934)]
)
def test_half_life_of_one_percent_as_on_the_method_page(steps, momentum):
    found = half_life_momentum(steps)
    assert found == pytest.approx(momentum, rel=2e-5, abs=5e-5)
    assert found ** (0.01 * steps) == pytest.approx(0.5)


@pytest.mark.parametrize(("steps", "share"), [(0, 0.01), (10, 0.0), (10, -1.0)])
def test_values_out_of_range_are_named(steps, share):
    with pytest.raises(ValueError, match=f"steps is {steps} and share {share}"):
        half_life_momentum(steps, share=share)
