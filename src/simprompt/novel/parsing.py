"""Reading a language model's answer: names out of JSON, half of it, lists or prose around them.

Nothing here fails: an answer without names gives an empty list. What comes out is raw text;
`names.clean_name` judges it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import suppress

from simprompt.utils.files.parsing import json_value

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:\(?\d{1,4}\s*[.):\-]\s*|[-*•–+]\s+)(?P<text>\S.*)$")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_COLON = re.compile(r"\s*:")
_OPENING = re.compile(r"[\[{]")
# `["a` or `{"names": ["a`, not a bracket in a sentence
_JSON = re.compile(r'\[\s*(?:"|\{\s*(?:"|$))|\{\s*(?:"|$)|\[\s*$')
_GLOSS = re.compile(r"\s+[-–—]{1,2}\s+.*$|:\s.*$")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
MOST = 1_000_000  # characters of an answer that are read; a thousand names are 20,000
MOST_TRIES = 100  # brackets that may begin the JSON in an answer
LONGEST = 300  # characters of a line that is one name, with what explains it
_NAME_KEYS = ("name", "class", "class_name", "label", "title")


def parse_names(text: str) -> list[str]:
    """The names in an answer, in order.

    Understood, in this order of trust: JSON (an array of strings or of objects with a name, at the
    top or anywhere inside an object), JSON that breaks off, numbered or bulleted lines with prose
    around them, plain lines, one line with commas. The time grows with the length of the text, of
    which `MOST` characters are read.
    """
    text = _THOUGHT.sub("", text[:MOST]).lstrip("\ufeff").strip()
    fences = [inner.strip() for inner in _FENCE.findall(text)]
    for candidate in [*fences, text]:
        names = _from_json(candidate)
        if names:
            return names
    unfenced = "\n".join(fences) or text
    return [] if _JSON.match(unfenced) else _from_lines(unfenced)


def message_text(body: str) -> str:
    """The model's words in the body of a chat-completion answer, be it whole or broken off.

    A body that is JSON but no chat completion gives an empty text.
    """
    try:
        value = json_value(body)
    except (ValueError, RecursionError):
        return _broken_message(body)
    try:
        message = value["choices"][0]["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""
    if isinstance(content, list):  # parts, as some servers send them
        content = "".join(block.get("text", "") for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""


def _broken_message(body: str) -> str:
    """What had arrived of `content` when the connection broke."""
    start = re.search(r'"content"\s*:\s*"', body)
    if start is None:
        return ""
    inside = body[start.end() :]
    closed = re.match(r'((?:[^"\\]|\\.)*)"', inside, re.DOTALL)
    inside = closed[1] if closed else inside
    # The break may stand inside an escape such as \u00e9: take characters off until it reads.
    for cut_length in range(7):
        try:
            return str(json.loads(f'"{inside[: len(inside) - cut_length]}"', strict=False))
        except ValueError:
            continue
    return ""


def _from_json(text: str) -> list[str]:
    decoder = json.JSONDecoder(strict=False)
    for opening in itertools.islice(_OPENING.finditer(text), MOST_TRIES):
        try:
            value, _ = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            if _JSON.match(text, opening.start()):
                return _from_broken_json(text[opening.start() :])
            continue
        names = max(_string_lists(value), key=len, default=[])
        if names:
            return names
    return []


def _from_broken_json(text: str) -> list[str]:
    """Every closed string of the last array that opens, without the keys of objects in it."""
    names: list[str] = []
    at = text.find("[") + 1
    while at and (at := text.find('"', at)) >= 0 and (match := _STRING.match(text, at)):
        at = match.end()
        if not _COLON.match(text, at):
            with suppress(ValueError):
                names.append(str(json.loads(f'"{match[1]}"', strict=False)))
    return names


def _string_lists(value: object) -> Iterator[list[str]]:
    """All lists of names inside a JSON value, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            names = [item for item in map(_name_of, value) if item is not None]
            if names:
                yield names
            else:
                waiting += reversed(value)
        elif isinstance(value, dict):
            waiting += reversed(value.values())


def _name_of(item: object) -> str | None:
    if isinstance(item, dict):
        item = next((item[key] for key in _NAME_KEYS if key in item), None)
    return item if isinstance(item, str) else None


def _from_lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    short = [line for line in lines if len(line) <= LONGEST]
    items = [match["text"] for line in short if (match := _ITEM.match(line))]
    if len(items) >= 2 or (items and len(lines) == 1):
        return [_without_gloss(item) for item in items]
    separated = [line for line in lines if line.count(",") >= 2]
    if separated:  # one line with commas, perhaps after an announcement with a colon
        names = []
        for line in separated:
            entries = line.rpartition(": ")[2].split(",")
            names += [re.sub(r"^(?:and|or)\s+", "", entry.strip()).rstrip(".") for entry in entries]
        return [name for name in names if name]
    # Plain lines: sentences, announcements and courtesies are not names.
    return [line.strip() for line in short if not re.search(r"[:.!?]\s*$|[.!?]\s", line)]


def _without_gloss(item: str) -> str:
    """`**Maine Coon** - a large cat` -> `Maine Coon`."""
    bold = _BOLD.match(item.strip())
    return (bold[1].rstrip(":") if bold else _GLOSS.sub("", item)).strip()
