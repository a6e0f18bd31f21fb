"""Figures of a pretraining run, read back as matplotlib artists before they become PNGs."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import randommask.training.report as report
from randommask.training.evaluation import MaskedLoss
from randommask.training.pretraining import Expected
from randommask.training.report import draw_pretraining, spread
from scarce_common_utils.run_folder import RunFolder

TITLE = "randommask pretrain, randommask, tiny, seed 3"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Axes by file name, of a run whose two held-out losses are all but equal."""
    kept, figure = {}, report.figure

    @contextmanager
    def keeping(path, **words):
        with figure(path, **words) as axes:
            kept[path.name] = axes
            yield axes

    monkeypatch.setattr(report, "figure", keeping)
    run = RunFolder.create(tmp_path / "run", default_name="x", package="randommask", command="pretrain", config={})
    for step in range(100):
        run.log(step, loss=8.3 - 0.004 * step, masked_share=0.1 + 0.001 * step)
    rows = [MaskedLoss(6, 7.85, 1.1, 7.97, 0.13, 900), MaskedLoss(14, 7.86, 3.1, 7.98, 0.27, 1900)]
    expected = [Expected(0, 6, 1.1, 0.13, 0.13), Expected(40, 14, 3.1, 0.27, 0.27)]
    draw_pretraining(run, rows=rows, expected=expected, title=TITLE)
    return kept


def test_held_out_points_of_near_losses_are_told_apart(drawn):
    points = [line for line in drawn["loss.png"].lines if line.get_linestyle() == "None"]
    assert [list(point.get_ydata()) for point in points] == [[7.85], [7.86]]
    assert len({point.get_marker() for point in points}) == 2
    assert len({point.get_color() for point in points}) == 2
    boxes = [point.get_window_extent() for point in points]
    assert not boxes[0].overlaps(boxes[1])


def test_labels_hold_the_values_and_do_not_overlap(drawn):
    axes = drawn["loss.png"]
    names = [text for text in axes.texts if not text.get_text().startswith("width")]
    assert {"\u25cf held out, width 6: 7.85", "\u25c6 held out, width 14: 7.86"} <= {name.get_text() for name in names}
    boxes = [name.get_window_extent() for name in names]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    places = {name.get_text(): name.get_position()[1] for name in names}
    assert places["floor"] == pytest.approx(3.1 / axes.get_ylim()[1])  # nothing is near, so it stays at its line


@pytest.mark.parametrize(("name", "what"), [("loss.png", "loss"), ("masked_share.png", "share of masked tokens")])
def test_titles_stay_on_one_line(drawn, name, what):
    assert drawn[name].get_title(loc="left") == f"{TITLE}: {what}"
    title = drawn[name]._left_title
    assert title.get_window_extent().width < drawn[name].figure.bbox.width


@given(st.lists(st.floats(0, 1), max_size=8))
def test_spread_keeps_order_gap_and_mean(heights):
    placed = spread(heights, gap=0.1)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for lower, upper in pairwise(order):
        assert placed[upper] - placed[lower] >= 0.1 - 1e-6
    assert sum(placed) == pytest.approx(sum(heights), abs=1e-6)
