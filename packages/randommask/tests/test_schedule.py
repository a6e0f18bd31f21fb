from fractions import Fraction

import pytest

from randommask.schedule import MaskSchedule, Phase

# Page 1.1: first step of each phase.
TABLE = {
    480_000: (0, 30_000, 100_000, 200_000, 300_000),
    10_000: (0, 625, 2_084, 4_167, 6_250),
    2_000: (0, 125, 417, 834, 1_250),
    100: (0, 7, 21, 42, 63),
}


@pytest.mark.parametrize("total_steps", TABLE)
def test_first_step_of_each_phase_is_that_of_the_page(total_steps):
    schedule = MaskSchedule.scaled(total_steps=total_steps)
    assert schedule.phases() == tuple(map(Phase, (6, 8, 10, 12, 14), TABLE[total_steps]))
    for width, first in zip((6, 8, 10, 12, 14), TABLE[total_steps], strict=True):
        assert schedule.width(first) == width
        if first:
            assert schedule.width(first - 1) == width - 2


@pytest.mark.parametrize("total_steps", [1, 3, 7, 16, 97, 1000, 479_999])
def test_widths_equal_exact_fractions(total_steps):
    schedule = MaskSchedule.scaled(total_steps=total_steps)
    for step in {*range(0, total_steps, max(1, total_steps // 97)), total_steps, 3 * total_steps}:
        share = Fraction(step, total_steps)
        expected = [
            width
            for width, milestone in zip((6, 8, 10, 12, 14), (0, 30_000, 100_000, 200_000, 300_000), strict=True)
            if share >= Fraction(milestone, 480_000)
        ][-1]
        assert schedule.width(step) == expected


def test_default_is_the_working_schedule_and_scaled_is_the_same_thing():
    assert MaskSchedule().phases() == tuple(map(Phase, (6, 8, 10, 12, 14), TABLE[480_000]))
    assert MaskSchedule.scaled(total_steps=2_000) == MaskSchedule(total_steps=2_000)


def test_past_the_end_the_last_width_holds():
    assert MaskSchedule.scaled(total_steps=100).width(10**9) == 14


def test_other_k_and_odd_widths():
    assert [phase.width for phase in MaskSchedule(k=3).phases()] == [3, 5, 7, 9, 11]
    assert MaskSchedule(widths=(6, 20), milestones=(0, 240_000), total_steps=10).width(5) == 20
    assert MaskSchedule(widths=(6, 20), milestones=(0, 240_000), total_steps=10).width(4) == 6


def test_a_short_run_leaves_phases_out():
    assert MaskSchedule.scaled(total_steps=3).phases() == ((6, 0), (10, 1), (14, 2))


def test_uniform_draws_from_the_first_width_up_to_the_phases():
    schedule = MaskSchedule(total_steps=100, uniform=True)
    assert schedule.draw_from(0) == range(6, 7)
    assert schedule.draw_from(99) == range(6, 15)
    assert MaskSchedule(total_steps=100).draw_from(99) == 14


@pytest.mark.parametrize("step", [-1, 1.0, True])
def test_a_negative_step_raises(step):
    with pytest.raises(ValueError, match=f"step is {step!r}"):
        MaskSchedule().width(step)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"widths": ()}, r"widths are \(\)"),
        ({"widths": (0, 2, 4, 6, 8)}, r"widths are \(0, 2"),
        ({"widths": (6, 8)}, "2 widths"),
        ({"milestones": (1, 2, 3, 4, 5)}, r"milestones are \(1,"),
        ({"milestones": (0, 2, 2, 4, 5)}, r"milestones are \(0, 2, 2"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"total_steps": 1.5}, "total_steps is 1.5"),
        ({"widths": (8, 6), "milestones": (0, 5), "uniform": True}, r"widths are \(8, 6\)"),
    ],
)
def test_values_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskSchedule(**arguments)
