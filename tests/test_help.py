"""Help: each verb has a group and an example, whose options the verb has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from simprompt.cli import VERBS, app
from simprompt.commands.examples import EXAMPLES


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


@pytest.mark.parametrize("verb", EXAMPLES)
def test_a_verb_understands_its_examples(verb):
    command = dict(verbs())[verb]
    for line in EXAMPLES[verb]:
        program, *rest = shlex.split(line)
        path = verb.split()
        assert [program, *rest[: len(path)]] == ["simprompt", *path]
        context = command.context_class(command, info_name=verb)  # type: ignore[attr-defined]
        _, left, _ = command.make_parser(context).parse_args(rest[len(path) :])  # type: ignore[attr-defined]
        assert left == []


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
