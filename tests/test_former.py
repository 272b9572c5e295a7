"""Every spelling of earlier releases is answered with the present one."""

from __future__ import annotations

import shlex

import pytest
import typer

from shell import in_process
from simprompt.cli.former import GONE, OPTIONS, VALUES, VERBS, current
from simprompt.cli.main import app
from simprompt.errors import SimpromptError

COMMANDS = typer.main.get_command(app).commands


def options_of(verb: str) -> set[str]:
    return {o for p in COMMANDS[verb].params for o in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_former_verb_is_rewritten(words, capsys):
    written = current([*words, "x", "--json"])
    assert written == [*VERBS[words], "x", "--json"]
    assert written[0] in COMMANDS
    assert f"simprompt {' '.join(written)}" in capsys.readouterr().err


@pytest.mark.parametrize("words", GONE, ids=" ".join)
def test_a_verb_that_is_gone_names_what_does_its_work(words):
    done = in_process(*words, "x")
    assert done.returncode == 2
    assert GONE[words] in done.stderr
    with pytest.raises(SimpromptError):
        current(words)


@pytest.mark.parametrize(
    ("verb", "old"), [(verb, old) for verb, names in OPTIONS.items() for old in names]
)
@pytest.mark.parametrize("form", ["{} value", "{}=value"])
def test_a_former_option_is_rewritten(verb, old, form):
    new = OPTIONS[verb][old]
    assert current([verb, *form.format(old).split()]) == [verb, *form.format(new).split()]
    assert new in options_of(verb)
    assert old not in options_of(verb)


@pytest.mark.parametrize(
    ("verb", "old"), [(verb, old) for verb, pairs in VALUES.items() for old in pairs]
)
def test_a_former_option_with_a_value_is_rewritten(verb, old):
    new = VALUES[verb][old]
    for words in (list(old), ["=".join(old)]):
        assert current([verb, *words, "--seeds", "1"]) == [verb, *new, "--seeds", "1"]
    assert set(new[:1]) <= options_of(verb)


@pytest.mark.parametrize(
    "line",
    [
        "learn photos --new-classes names.txt",
        "run --dataset icons/animals --set training.lr=0.01 --names=x",
        "predict p a.jpg -- --unknown",
        "--debug report runs",
        "",
        "nonsense --names x",
    ],
)
def test_present_spellings_stay(line, capsys):
    words = shlex.split(line)
    if "--names=x" in words:
        assert current(words)[-1] == "--rename=x"
    else:
        assert current(words) == words
        assert capsys.readouterr().err == ""


def test_a_command_of_an_earlier_release_runs(tmp_path):
    done = in_process("methods", "list", "--json")
    assert done.returncode == 0
    assert "simprompt list methods --json" in done.stderr
    assert done.stdout == in_process("list", "methods", "--json").stdout
