"""Where a step of a foreign loop belongs: against the driver's own order, written out."""

import pytest

from imwa.integrations.turns import Place, place_of
from imwa.plan import Plan


def written_out(plan, own):
    return [
        Place(episode, replica, step)
        for episode in range(plan.episodes)
        for replica in own
        for step in range(plan.border(episode), plan.border(episode + 1))
    ]


@pytest.mark.parametrize(("steps", "episodes"), [(1, 1), (7, 3), (10, 3), (12, 4), (5, 5)])
@pytest.mark.parametrize("own", [range(0, 1), range(0, 3), range(2, 4)])
def test_every_place_of_the_loop_is_the_drivers(steps, episodes, own):
    plan = Plan(steps=steps, episodes=episodes, replicas=4)
    expected = written_out(plan, own)
    assert [place_of(plan, position, own=own) for position in range(len(expected))] == expected


def test_reading_ahead_of_the_end_goes_on_with_the_last_replica():
    plan = Plan(steps=4, episodes=2, replicas=2)
    assert [place_of(plan, position, own=range(2)) for position in (7, 8, 9)] == [
        Place(1, 1, 3),
        Place(1, 1, 4),
        Place(1, 1, 5),
    ]
