"""Progress: what is told is heard by the one who listens, and drawn in a terminal or a notebook."""

from __future__ import annotations

import io
import re
import sys
import types
import warnings
from contextlib import suppress

import pytest
from PIL import Image

from simprompt.config import Training
from simprompt.data.split import Split
from simprompt.prompt.learn import learn
from simprompt.utils.progress import listening, pace, progress_shown, report_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_the_innermost_listener_hears():
    outer, inner = [], []
    report_progress("nobody listens", 0, 1)
    with listening(lambda *told: outer.append(told)):
        report_progress("a", 0, 2)
        with suppress(ZeroDivisionError), listening(lambda *told: inner.append(told)):
            report_progress("b", 1, 2)
            report_progress("b", 1 // 0, 2)
        report_progress("a", 2, 2)
    report_progress("nobody listens", 1, 1)
    assert outer == [("a", 0, 2), ("a", 2, 2)]
    assert inner == [("b", 1, 2)]


def test_pace_is_the_rate_and_the_time_left():
    assert pace(2.0, 10) == "2.0/s, 0:00:05 left"
    assert pace(0.05, 180) == "3.0/min, 1:00:00 left"
    assert pace(0.0, 10) == ""


@pytest.mark.parametrize(
    ("stderr", "quiet", "drawn"),
    [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)],
)
def test_a_terminal_sees_lines_and_nothing_else_does(stderr, quiet, drawn, monkeypatch):
    shown, out = stderr(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(sys, "stdout", out)
    with progress_shown(quiet) as board:
        board.show("runs", "runs", 2, 4)
        report_progress("images of [zoo]", 0, 7)
        report_progress("images of [zoo]", 3, 7)
        board.show("runs", "zoo coop", 3, 4)
        assert [line.done for line in board.lines.values()] == [3, 3]
        print("a result")
        report_progress("images of [zoo]", 7, 7)
        assert [line.text for line in board.lines.values()] == ["zoo coop"], "what is made goes"
    assert ("zoo coop" in shown.getvalue()) == drawn
    assert ("left" in shown.getvalue()) == drawn
    assert bool(shown.getvalue()) == drawn
    assert out.getvalue() == "a result\n"


@pytest.fixture
def cell(monkeypatch) -> list[list[str]]:
    """A notebook's cell, as Rich and IPython know one: all texts that each of its outputs had."""
    outputs: list[list[str]] = []

    class Shown(list):
        def update(self, data, raw):
            assert raw
            self.append(data["text/plain"])

    def display(data, raw, display_id):
        assert raw
        assert display_id is True
        outputs.append(Shown([data["text/plain"]]))
        return outputs[-1]

    module = types.ModuleType("IPython.display")
    monkeypatch.setattr(module, "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return outputs


def test_a_notebook_sees_one_output_that_changes(cell, monkeypatch, capsys):
    clock = iter(range(1000))  # a look every 0.1 s
    monkeypatch.setattr("simprompt.utils.progress.time.perf_counter", lambda: next(clock) / 10)
    with progress_shown() as board:
        board.show("runs", "runs", 1, 2)
        for done in range(31):
            report_progress("images of [zoo]", done, 30)
        print("a result")
        board.show("runs", "runs", 2, 2)
    (texts,) = cell
    assert any("images of [zoo] ━━━" in text and "/30" in text for text in texts)
    assert "runs" in texts[-1]
    assert "2/2" in texts[-1]
    assert "zoo" not in texts[-1], "what is made goes"
    assert not re.search("\x1b|<", "".join(texts)), "plain text"
    assert capsys.readouterr() == ("a result\n", "")


def test_a_notebook_is_not_redrawn_at_each_step(cell):
    with progress_shown():
        for done in range(1001):
            report_progress("images", done, 1000)
    (texts,) = cell
    assert len(texts) < 100
    assert texts[-1] == ""


def test_a_notebook_sees_nothing_of_what_is_quiet(cell, capsys):
    with progress_shown(quiet=True):
        report_progress("images", 0, 2)
        report_progress("images", 2, 2)
    assert cell == []
    assert capsys.readouterr() == ("", "")


def test_learning_in_a_notebook_shows_how_far_it_is(cell, make_clip, capsys):
    pictures = Split(("a", "b"), (0, 1), ("cat", "dog"), lambda item: Image.new("RGB", (8, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(make_clip(), pictures, training=Training(epochs=3), progress=False)
        assert cell == []
        learn(make_clip(), pictures, training=Training(epochs=3))
    (texts,) = cell
    assert "image features" in texts[0], "the images are encoded first"
    assert any("epochs learned" in text and "3/3" in text for text in texts)
    assert capsys.readouterr() == ("", "")


def test_a_log_file_gets_a_plain_line_now_and_then(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    clock = iter(range(0, 1000, 4))  # seconds, at each look
    monkeypatch.setattr("simprompt.utils.progress.time.perf_counter", lambda: float(next(clock)))
    with progress_shown():
        for done in range(11):
            report_progress("images", done, 10)
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 4  # forty seconds
    assert all(re.fullmatch(r"images: \d+ of 10 [\d.]+/min, 0:00:\d\d left", x) for x in lines)
    for quiet in ({"quiet": True}, {"lines": False}):
        log.truncate(0)
        with progress_shown(**quiet):
            for done in range(11):
                report_progress("images", done, 10)
        assert not log.getvalue().strip("\0")


def test_a_log_file_hears_of_the_whole_and_of_its_part(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("simprompt.utils.progress.time.perf_counter", lambda: float(next(clock)))
    with progress_shown() as board:
        board.show("runs", "runs", 2, 4)
        board.show("runs", "zoo CoOp", 3, 4)
        for done in range(4):
            report_progress("epochs", done, 9)
        board.show("runs", "zoo CoOp+SAR", 4, 4)
    assert capsys.readouterr().err.splitlines() == [
        "zoo CoOp: 3 of 4 5.0/min, 0:00:12 left; epochs: 1 of 9 15.0/min, 0:00:32 left",
        "zoo CoOp+SAR: 4 of 4 5.0/min, 0:00:00 left",
    ]
