"""Help: each verb has a group and an example, whose options the verb has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from simprompt.cli.examples import EXAMPLES
from simprompt.cli.main import VERBS, app

ROOT = Path(__file__).parents[1]


def verbs() -> Iterator[tuple[str, object]]:
    """The verbs that do something, with their parents' names."""

    def below(command, path: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        for name, child in command.commands.items():
            if hasattr(child, "commands"):
                yield from below(child, (*path, name))
            else:
                yield " ".join((*path, name)), child

    yield from below(get_command(app), ())


def test_every_verb_has_examples():
    assert [name for name, _ in verbs()] == list(dict.fromkeys(name for name, _ in verbs()))
    assert {name for name, _ in verbs()} == EXAMPLES.keys()


def check(line: str) -> str:
    """The verb of a line as a shell has it; every option in it is one of the verb's."""
    words = shlex.split(line, comments=True)
    words = words[1 : next((i for i, w in enumerate(words) if w in (">", "|")), len(words))]
    path: list[str] = []
    command = get_command(app)
    while hasattr(command, "commands"):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    context = command.context_class(command, info_name=" ".join(path))
    _, left, _ = command.make_parser(context).parse_args(words)
    assert left == []
    return " ".join(path)


@pytest.mark.parametrize("verb", EXAMPLES)
def test_a_verb_understands_its_examples(verb):
    assert {check(line) for line in EXAMPLES[verb]} == {verb}


def lines_of_pages() -> Iterator[tuple[str, str]]:
    """Every line of a page's fenced blocks that calls simprompt with a verb, by the page's name."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:bash|sh|console|text)\n(.*?)^```", text, re.M | re.S):
            for line in re.findall(r"^(?:\$ )?(simprompt [a-z].*)", block, re.M):
                yield page.relative_to(ROOT).as_posix(), line


@pytest.mark.parametrize(("page", "line"), sorted(set(lines_of_pages())))
def test_what_pages_call_is_understood(page, line):
    check(line)


def test_pages_call_much():
    assert len(set(lines_of_pages())) > 50
    with pytest.raises(Exception, match="No such option"):
        check("simprompt learn images --new-names x.txt")


@pytest.mark.parametrize("verb", EXAMPLES)
def test_help_shows_the_examples(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(CliRunner().invoke(app, [*verb.split(), "--help"]).stdout.split())
    for line in EXAMPLES[verb]:
        assert " ".join(line.split()) in shown


def test_help_is_in_groups():
    shown = CliRunner().invoke(app, ["--help"]).stdout
    places = [shown.index(f" {group} ") for group in VERBS]
    assert places == sorted(places)


def test_a_verb_that_is_nearly_right_is_named():
    said = CliRunner().invoke(app, ["lern"])
    assert said.exit_code == 2
    assert "learn" in said.output
