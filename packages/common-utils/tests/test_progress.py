"""Without a terminal, progress is a plain line now and then with rate and time left."""

from scarce_common_utils import progress
from scarce_common_utils.progress import Progress


def test_plain_lines_hold_rate_and_time_left(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 5.0)
    with Progress(100, "steps", label="imwa", start=40) as bar:
        now[0] += 4
        bar.advance(10, loss=0.25)  # too early for a line
        now[0] += 4
        bar.advance(10, loss=0.5)
        now[0] += 2
        bar.advance(40)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "imwa: 60/100 steps, 2.5 steps/s, 16 s left, loss 0.5",
        "imwa: 100/100 steps, 6 steps/s, 10 s",
    ]


def test_short_work_says_one_line_and_failed_work_none(capsys):
    with Progress(2, "steps", label="imwa") as bar:
        bar.advance(2)
    assert capsys.readouterr().err.count("\n") == 1
    try:
        with Progress(2, "steps", label="imwa") as bar:
            raise KeyError
    except KeyError:
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress(4, "steps", label="layermatch") as bar:
        bar.advance(4, loss=0.25)
    assert "layermatch" in capsys.readouterr().err
