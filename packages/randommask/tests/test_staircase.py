"""Phases of a loss beside their floors: which lines count, and what the jumps are."""

import pytest

from randommask.analysis.staircase import Line, Step, log_lines, staircase

PHASES = [Step(6, 0, 1.0), Step(8, 10, 2.0), Step(10, 30, 2.5)]


def test_a_line_reaches_back_to_the_one_before_and_nothing_is_no_loss():
    metrics = [{"step": 4, "loss": 8.0}, {"step": 9, "loss": None}, {"step": 14, "loss": 7.0}, {"step": 19}]
    assert log_lines(metrics) == [Line(0, 5, 8.0), Line(10, 15, 7.0)]


def test_a_perfect_model_jumps_by_the_floors_difference():
    floors = {0: 1.0, 1: 2.0, 2: 2.5}
    lines = [Line(at, at + 1, floors[(at >= 10) + (at >= 30)]) for at in range(50)]
    found = staircase(lines, PHASES, total_steps=50)
    assert [(phase.first, phase.stop, phase.lines) for phase in found] == [(0, 10, 10), (10, 30, 20), (30, 50, 20)]
    assert [phase.excess for phase in found] == [0.0, 0.0, 0.0]
    assert [(phase.jump, phase.floor_jump) for phase in found] == [(None, None), (1.0, 1.0), (0.5, 0.5)]


def test_a_model_at_the_ceiling_does_not_jump():
    found = staircase([Line(at, at + 1, 8.3) for at in range(50)], PHASES, total_steps=50)
    assert [phase.jump for phase in found[1:]] == [0.0, 0.0]
    assert [phase.floor_jump for phase in found[1:]] == [1.0, 0.5]


def test_lines_over_a_boundary_are_in_no_phase():
    lines = [Line(0, 8, 5.0), Line(8, 16, 99.0), Line(16, 24, 3.0), Line(24, 32, 99.0), Line(32, 40, 4.0)]
    found = staircase(lines, PHASES, total_steps=50)
    assert [phase.lines for phase in found] == [1, 1, 1]
    assert [(phase.opening, phase.closing) for phase in found] == [(5.0, 5.0), (3.0, 3.0), (4.0, 4.0)]


def test_opening_and_closing_are_means_of_three_lines():
    lines = [Line(at, at + 1, float(at)) for at in range(10)]
    (phase,) = staircase(lines, [Step(6, 0, 1.0)], total_steps=10)
    assert (phase.opening, phase.closing, phase.excess) == (1.0, 8.0, 7.0)
    (few,) = staircase(lines[:2], [Step(6, 0, 1.0)], total_steps=10)
    assert (few.opening, few.closing) == (0.0, 1.0)


def test_the_jump_begins_where_the_phase_before_ended():
    lines = [Line(0, 5, 9.0), Line(5, 10, 4.0), Line(10, 20, 6.0), Line(20, 30, 5.0)]
    found = staircase(lines, PHASES, total_steps=50)
    assert found[1].jump == 2.0


def test_a_run_half_way_has_phases_without_a_loss():
    found = staircase([Line(0, 5, 3.0)], PHASES, total_steps=50)
    assert [phase.closing for phase in found] == [3.0, None, None]
    assert [phase.jump for phase in found] == [None, None, None]
    assert found[1].floor_jump == 1.0
    assert staircase([], PHASES, total_steps=50)[0].lines == 0


@pytest.mark.parametrize("firsts", [[], [1, 2], [0, 0], [0, 5, 4]])
def test_phases_out_of_order_are_refused(firsts):
    with pytest.raises(ValueError, match=r"Phases begin at steps \["):
        staircase([], [Step(6, first, 1.0) for first in firsts], total_steps=9)
