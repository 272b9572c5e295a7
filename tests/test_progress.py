"""Progress: what is told is heard by the one who listens, and drawn in a terminal only."""

from __future__ import annotations

import io
import sys
from contextlib import suppress

import pytest

from simprompt.progress import listening, pace, tell, watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_the_innermost_listener_hears():
    outer, inner = [], []
    tell("nobody listens", 0, 1)
    with listening(lambda *told: outer.append(told)):
        tell("a", 0, 2)
        with suppress(ZeroDivisionError), listening(lambda *told: inner.append(told)):
            tell("b", 1, 2)
            tell("b", 1 // 0, 2)
        tell("a", 2, 2)
    tell("nobody listens", 1, 1)
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
    with watched(quiet) as board:
        board.show("runs", "runs", 2, 4)
        tell("images of [zoo]", 0, 7)
        tell("images of [zoo]", 3, 7)
        board.show("runs", "zoo coop", 3, 4)
        if drawn:
            assert [line.completed for line in board.lines] == [3, 3]
            assert all("left" in line.fields["pace"] for line in board.lines)
        print("a result")
        tell("images of [zoo]", 7, 7)
        assert [line.description for line in board.lines] == ["zoo coop"], "what is made goes"
    assert ("zoo coop" in shown.getvalue()) == drawn
    assert bool(shown.getvalue()) == drawn
    assert out.getvalue() == "a result\n"


def test_a_log_file_gets_a_plain_line_now_and_then(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    clock = iter(range(0, 1000, 4))  # seconds, at each look
    monkeypatch.setattr("simprompt.progress.time.perf_counter", lambda: float(next(clock)))
    with watched():
        for done in range(11):
            tell("images", done, 10)
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 4  # forty seconds
    assert all(line.startswith("images: ") and "of 10" in line for line in lines)
    for quiet in ({"quiet": True}, {"lines": False}):
        log.truncate(0)
        with watched(**quiet):
            for done in range(11):
                tell("images", done, 10)
        assert not log.getvalue().strip("\0")
