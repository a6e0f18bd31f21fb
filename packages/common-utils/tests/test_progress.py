"""Without a terminal, progress is a plain line now and then with rate and time left."""

from scarce_common_utils import progress
from scarce_common_utils.progress import Progress


def test_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress(10, "steps", label="imwa", start=4) as bar:
        bar.advance(3, loss=0.5)
        bar.advance(3)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith("imwa: 7/10 steps, ")
    assert "s left" in lines[0]
    assert lines[0].endswith("loss 0.5")
    assert lines[-1].startswith("imwa: 10/10 steps, ")


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
