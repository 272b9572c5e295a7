"""What a run that saw the new classes says of itself."""

from __future__ import annotations

import pytest

from simprompt.cli import warn
from simprompt.novel.names import STUDY_ONLY, NovelList


@pytest.mark.parametrize(
    ("made", "sees"),
    [
        (NovelList(("pug", "owl"), "wordnet", overlap=("pug",)), True),
        (NovelList(("owl",), "wordnet", overlap=("pug",)), False),  # found and left out
        (NovelList(("pug",), "oracle", leaks=True), True),
        (NovelList((), "none"), False),
    ],
)
def test_a_list_sees_the_new_classes_if_it_holds_one(made, sees):
    assert bool(made.sees_new) is sees
    assert STUDY_ONLY in (made.sees_new or STUDY_ONLY)


def test_warnings_are_on_stderr_and_the_gravest_is_red_in_a_terminal(capsys, monkeypatch):
    sees = NovelList(("pug",), "oracle", leaks=True).sees_new
    results = [{"warnings": [sees, f"small [{i}]"]} for i in range(8)]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    warn.show(results)
    shown = capsys.readouterr()
    assert not shown.out
    first, *others, last = shown.err.splitlines()
    red = "\x1b[1;31m"
    assert first.startswith(f"{red}Warning: {sees}"), "all runs say it, so it comes first"
    assert [red in line for line in others] == [False] * 4
    assert "small [0]" in others[0]
    assert "4 more" in last


def test_no_warning_says_nothing(capsys):
    warn.show([{"warnings": []}, {}])
    assert capsys.readouterr().err == ""
