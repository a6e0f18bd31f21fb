"""Figures are PNG files with something on them; tables align; badges go grey."""

import json
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta

import numpy
from PIL import Image

from scarce_common_utils.badges import badge_colour, write_badge
from scarce_common_utils.figures import bar_figure, interval_figure, line_figure, table


def inked(path) -> float:
    return float((numpy.asarray(Image.open(path).convert("L")) < 250).mean())


def test_each_kind_draws(tmp_path):
    lines = {"a": ([0, 1, 2], [1.0, 2.0, 3.0]), "b": ([0, 1, 2], [1.0, 2.0, 3.0]), "empty": ([], [])}
    words = {"x_label": "step", "caption": "Test accuracy, 1 seed"}
    made = [
        line_figure(tmp_path / "deep" / "line.png", lines, y_label="accuracy [%]", **words),
        bar_figure(
            tmp_path / "bar.png",
            {"a": [1.0, None], "b": [2.0, 3.0]},
            groups=["x", "y"],
            y_label="accuracy [%]",
            **words,
        ),
        interval_figure(tmp_path / "interval.png", {"a": (1.0, 0.5), "b": (-1.0, None)}, **words),
    ]
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert 0.005 < inked(path) < 0.5


def test_table_aligns_words_left_and_numbers_right():
    text = table(["arm", "accuracy", "note"], [["fixmatch", 9.5, "x"], ["sup", 10.25, None]])
    assert text.splitlines() == [
        "arm       accuracy  note",
        "--------  --------  ----",
        "fixmatch      9.50  x",
        "sup          10.25  -",
    ]


def test_badges(tmp_path):
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert badge_colour("brightgreen", now - timedelta(days=29), now) == "brightgreen"
    assert badge_colour("brightgreen", now - timedelta(days=31), now) == "lightgrey"
    endpoint, svg = write_badge(
        tmp_path, "imwa-speed", label="imwa <speed>", message="4 of 4 bars", colour="brightgreen"
    )
    assert json.loads(endpoint.read_text()) == {
        "schemaVersion": 1,
        "label": "imwa <speed>",
        "message": "4 of 4 bars",
        "color": "brightgreen",
    }
    assert "imwa <speed>" in "".join(ElementTree.parse(svg).getroot().itertext())
