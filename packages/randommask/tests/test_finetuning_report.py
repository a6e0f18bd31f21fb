"""Figures of a classifier, read back as matplotlib artists before they become PNGs."""

from contextlib import contextmanager

import matplotlib
import pytest
import torch
from matplotlib.ticker import MaxNLocator

import randommask.training.finetuning_report as report
from randommask.training.classification import Score
from randommask.training.finetuning import Tuned
from randommask.training.finetuning_report import Fresh, Outcome, draw_finetuning, luminance

TITLE = "randommask finetune, a.csv,\ntiny from scratch, seed 3"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Axes by file name."""
    kept, figure = {}, report.figure

    @contextmanager
    def keeping(path, **words):
        with figure(path, **words) as axes:
            kept[path.name] = axes
            yield axes

    monkeypatch.setattr(report, "figure", keeping)
    confusion = torch.tensor([[100, 0, 0, 0], [60, 40, 0, 0], [30, 0, 70, 0], [51, 49, 0, 0]])
    history = [(1.0, 0.7, -0.1), (2.0, 0.5, 0.4), (3.0, 0.6, 0.5)]
    score = Score(0.5, 0.4, confusion)
    outcome = Outcome(Tuned({}, 2, history), score, score, {}, Fresh(0.4, 0.4, 400))
    draw_finetuning(tmp_path, title=TITLE, outcome=outcome, labels=["a", "b", "c", "d"])
    return kept


def test_every_count_stands_out_from_its_cell(drawn):
    axes = drawn["confusion.png"]
    cells = axes.images[0]
    shares = cells.get_array()
    assert len(axes.texts) == 16
    for text in axes.texts:
        column, row = text.get_position()
        ink = luminance(matplotlib.colors.to_rgb(text.get_color()))
        cell = luminance(cells.to_rgba(shares[row][column]))
        assert (max(ink, cell) + 0.05) / (min(ink, cell) + 0.05) >= 4.5  # WCAG's ratio for text
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert colours["100"] == "white"
    assert colours["0"] == "black"


def test_the_confusion_says_what_it_shows(drawn):
    axes = drawn["confusion.png"]
    assert axes.get_title(loc="left") == f"{TITLE}:\ntest rows after the last epoch"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_dev_scores_have_a_panel_each_and_whole_epochs(drawn):
    upper, lower = drawn["dev.png"].figure.axes
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("loss, nats a row", "MCC")
    assert lower.get_xlabel() == "epoch"
    assert list(upper.lines[0].get_ydata()) == [0.7, 0.5, 0.6]
    assert list(lower.lines[0].get_ydata()) == [-0.1, 0.4, 0.5]
    assert lower.get_ylim()[0] < -0.1
    assert isinstance(lower.xaxis.get_major_locator(), MaxNLocator)
    assert all(tick == round(tick) for tick in lower.get_xticks())
    assert drawn["dev.png"].get_title(loc="left") == f"{TITLE}: dev set"
