"""The plan: integers only, every step once for every replica."""

import itertools
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imwa.plan import Entry, Plan


def test_ten_steps_in_three_episodes_are_3_3_4():
    plan = Plan(steps=10, episodes=3, replicas=1)
    assert [plan.border(e + 1) - plan.border(e) for e in range(3)] == [3, 3, 4]
    assert plan.entry(2) == Entry(episode=2, replica=0, start=6, stop=10)


@given(st.integers(1, 10**18), st.integers(1, 50), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_borders_cover_every_step_once(steps, episodes, replicas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = Plan(steps=steps, episodes=episodes, replicas=replicas)
    borders = [plan.border(e) for e in range(plan.episodes + 1)]
    assert (borders[0], borders[-1]) == (0, steps)
    lengths = [b - a for a, b in itertools.pairwise(borders)]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    entries = [plan.entry(position) for position in range(len(plan))]
    assert [(entry.episode, entry.replica) for entry in entries] == [
        (e, m) for e in range(plan.episodes) for m in range(replicas)
    ]


def test_more_episodes_than_steps_are_as_many_as_steps():
    with pytest.warns(UserWarning, match="episodes is 7, but the run has 5 steps"):
        plan = Plan(steps=5, episodes=7, replicas=2)
    assert plan.episodes == 5
    assert len(plan) == 10


@pytest.mark.parametrize("name", ["steps", "episodes", "replicas"])
@pytest.mark.parametrize("value", [0, -3, 2.0, True, "4"])
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        Plan(**{"steps": 4, "episodes": 2, "replicas": 2, name: value})
