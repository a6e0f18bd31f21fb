import pytest

from randommask import METHODS, MaskSchedule
from randommask.methods import default_probability


def test_methods_are_the_arms_of_the_page():
    schedule = MaskSchedule(total_steps=100)
    assert {name: METHODS[name](schedule) for name in METHODS} == {
        "randommask": (schedule, 0.025, None),
        "uniform": (MaskSchedule(total_steps=100, uniform=True), 0.025, None),
        "dnabert": (6, 0.025, None),
        "constant": (14, 0.025, None),
        "constant_share": (schedule, None, 0.15),
        "iid": (1, 0.15, None),
    }


@pytest.mark.parametrize(("k", "probability"), [(3, 0.05), (4, 0.0375), (5, 0.03), (6, 0.025)])
def test_probability_by_k(k, probability):
    assert default_probability(k) == pytest.approx(probability, rel=1e-12)
    assert METHODS["dnabert"](MaskSchedule(k=k)) == (k, default_probability(k), None)
