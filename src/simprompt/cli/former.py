"""Spellings of earlier releases: a command line with one is answered with the new one."""

from __future__ import annotations

from collections.abc import Sequence

from simprompt.errors import SimpromptError
from simprompt.utils.terminal import say

VERBS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("table",): ("report",),
    ("features",): ("encode",),
    ("data", "list"): ("list", "datasets"),
    ("data", "download"): ("download",),
    ("data", "check"): ("check",),
    ("models", "list"): ("list", "models"),
    ("models", "download"): ("download",),
    ("models", "show"): ("show",),
    ("methods", "list"): ("list", "methods"),
    ("novel", "list"): ("list", "novel-names"),
    ("novel", "generate"): ("novel-names",),
    ("study", "list"): ("list", "studies"),
}
"""Verbs with another name; the longest that begins a command line counts."""

GONE: dict[tuple[str, ...], str] = {
    ("push",): "`simprompt export PROMPT --to hub --out USER/NAME` uploads a prompt",
    ("bench",): "`python -m benchmarks NAME` measures speed, in a clone of the repository",
    ("novel", "inspect"): "`python -m benchmarks.novel_lab inspect`, in a clone of the repository",
    ("novel", "compare"): "`python -m benchmarks.novel_lab compare`, in a clone of the repository",
    ("novel", "select"): "`python -m benchmarks.novel_lab select`, in a clone of the repository",
}
"""Verbs that cannot be rewritten, and what does their work."""

IMAGES = {"--names": "--rename"}
EXECUTION = {"--log": "--tracker"}
OPTIONS: dict[str, dict[str, str]] = {
    "learn": {**IMAGES, "--new-images": "--new-test-images"},
    "predict": {"--unknown": "--reject-below", "--batch": "--batch-size"},
    "serve": {"--batch": "--batch-size", "--in-flight": "--max-concurrent"},
    "export": {"--check": "--int8-eval"},
    "run": {**IMAGES, **EXECUTION},
    "tune": {"--by": "--metric", "--each": "--per-dataset", "--all-labels": "--all-base-images"},
    "study": {**EXECUTION, "--runs": "--runs-dir"},
    "report": {"--output": "--out", "--picture": "--plot", "--digits": "--decimals"},
    "check": {**IMAGES, "--root": "--data-root", "--most": "--limit"},
    "encode": {**IMAGES, "--root": "--data-root", "--batch": "--batch-size"},
    "download": {"--root": "--data-root"},
    "novel-names": {"--n": "--count", "--base": "--base-classes", "--new": "--new-classes"},
}
"""Options with another name, by the present verb."""

VALUES: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {
    "export": {("--to", "head"): ("--to", "linear")},
    "report": {("--against", "published"): ("--published",)},
    "study": {("--preset", "smoke"): ("--smoke",), ("--preset", "full"): ()},
    "run": {("--batch-runs", "auto"): ("--train-together",), ("--batch-runs", "off"): ()},
    "tune": {("--batch-runs", "auto"): ("--train-together",), ("--batch-runs", "off"): ()},
}
VALUES["study"] |= VALUES["run"]
"""Options with a value that are written in another way."""


def current(words: Sequence[str]) -> list[str]:
    """The words of a command line in their present spelling; a note on stderr says what changed.

    Raises:
        SimpromptError: a verb that is gone, with what does its work.
    """
    command_line = list(words)
    start = next(
        (i for i, word in enumerate(command_line) if not word.startswith("-")), len(command_line)
    )
    verb = tuple(command_line[start : start + 2])
    for length in (2, 1):
        if verb[:length] in GONE:
            raise SimpromptError(
                f"There is no `simprompt {' '.join(verb[:length])}` any more: "
                f"{GONE[verb[:length]]}."
            )
        if present := VERBS.get(verb[:length]):
            command_line[start : start + length] = present
            break
    first_option = start + 1
    if first_option <= len(command_line):
        command_line[first_option:] = _options(command_line[start], command_line[first_option:])
    if command_line != list(words):
        say(f"simprompt: this is written `simprompt {' '.join(command_line)}` now.", err=True)
    return command_line


def _options(verb: str, words: Sequence[str]) -> list[str]:
    """The options of a verb in their present spelling; nothing behind a bare `--` is one."""
    names, values = OPTIONS.get(verb, {}), VALUES.get(verb, {})
    command_line: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        name, equals, value = word.partition("=")
        if word == "--":
            return [*command_line, *words[position:]]
        following = value if equals else words[position + 1] if position + 1 < len(words) else ""
        if (name, following) in values:
            command_line += values[name, following]
            position += 1 if equals else 2
            continue
        command_line.append(f"{names.get(name, name)}{equals}{value}" if name in names else word)
        position += 1
    return command_line
