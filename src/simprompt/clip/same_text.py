"""Which class names are one text for CLIP, so that it cannot tell them apart.

The tower reads token ids. Before them comes OpenAI's cleaning (`tokenizer.clean`): case, Unicode
forms, HTML entities and full-width letters are gone then. Characters that nobody sees would still
make tokens; `prompt_text`, through which every name goes into a prompt, takes them away. So

- names with equal `canonical_text` are one text in every model, and can be compared before one is
  known;
- with a model at hand its token ids decide, which may be equal for more names.

`class_names` checks a list of names wherever one is given, `match_names` finds names in another
list. An exported folder carries a copy of this file, so it reads names as the package does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

from simprompt.clip.tokenizer import clean
from simprompt.errors import SimpromptError

LONGEST_NAME = 1000
"""Characters of a class name. A text tower reads 77 tokens, which are fewer characters than that;
cleaning and encoding a name of a megabyte would take minutes."""

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
# Joiners shape letters of some scripts; between Latin ones they do nothing.
_JOINERS = re.compile("(?<![^\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u024f])")


class Encoder(Protocol):
    """A model's tokenizer, as `clip.tokenizer` has it or an exported folder."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: list[int]) -> str:
        """Token ids -> text."""


def class_names(names: Any, what: str = "classes", *, empty: bool = False) -> tuple[str, ...]:
    """A list of class names as a tuple.

    Args:
        what: the argument's name, for errors.
        empty: accept a list without names.

    Raises:
        SimpromptError: `names` is not a list (a single text, a set, a mapping) or is empty; an
            entry is not a text, is empty or is longer than `LONGEST_NAME`.
    """
    single = isinstance(names, str | bytes | bytearray | Mapping | Set)
    if single or not isinstance(names, Iterable):
        raise SimpromptError(
            f"{what} has to be a list of names, such as ['cat', 'dog']; got {names!r:.100}."
        )
    listed_names = tuple(names)
    if not listed_names and not empty:
        raise SimpromptError(f"{what} is empty. Give at least one class name to choose from.")
    for position, name in enumerate(listed_names):
        check_name(name, f"{what}[{position}]")
    return listed_names


def check_name(name: Any, where: str) -> None:
    """Check one class name.

    Args:
        where: how the error begins, such as "classes[3]" or "names.txt, line 4".

    Raises:
        SimpromptError: as `class_names`.
    """
    if isinstance(name, str) and len(name) > LONGEST_NAME:
        raise SimpromptError(
            f"{where} has {len(name):,} characters, and a class name has {LONGEST_NAME:,} at most; "
            f"it begins with {name[:40]!a}. Shorten the name."
        )
    if not isinstance(name, str) or not prompt_text(name).strip():
        raise SimpromptError(
            f"{where} has to be a class name, a text that is not empty; got {name!r:.100}."
        )


def visible(text: str) -> str:
    """`text` without characters that show nothing: zero-width ones, byte order marks, soft
    hyphens, marks of direction, variation selectors."""
    return _JOINERS.sub("", _UNSEEN.sub("", text))


def prompt_text(name: str) -> str:
    """A class name as it stands in a prompt: without unseen characters, blanks for underscores."""
    return visible(name).replace("_", " ")


def canonical_text(name: str) -> str:
    """The text that a tokenizer sees of a class name.

    >>> plain("AT&amp;T"), plain("Sweet_Pea\\u200b"), plain("ＡＢＣ")
    ('at&t', 'sweet pea', 'abc')
    """
    text = prompt_text(name)
    if text.isascii() and text.isprintable() and "&" not in text:  # ftfy, skipped, is slow
        return " ".join(text.lower().split())
    # an entity may stand for an unseen character
    return " ".join(visible(clean(text)).replace("\u200c", "").replace("\u200d", "").split())


def match_names(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """The index in `known` of each wanted name, None where there is none. Names match if they are
    one text (`canonical_text`).

    `known` may hold a text several times, as ImageNet's classes do: the second wanted name of that
    text gets the second index, so that a list matches itself one to one.

    >>> match_names(["Sweet_Pea", "zebra", "apple"], ["apple", "sweet pea"])
    [1, None, 0]
    """
    if tuple(wanted) == tuple(known):
        return list(range(len(known)))
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(known):
        indices.setdefault(canonical_text(name), []).append(index)
    uses: dict[str, int] = {}
    matches: list[int | None] = []
    for name in wanted:
        text = canonical_text(name)
        candidates = indices.get(text)
        if candidates is None:
            matches.append(None)
            continue
        count = uses.get(text, 0)
        uses[text] = count + 1
        matches.append(candidates[min(count, len(candidates) - 1)])
    return matches


def all_known(wanted: Sequence[str], known: Sequence[str]) -> bool:
    """Whether every wanted name is one text with a known one."""
    return None not in match_names(wanted, known)


def new_names(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names that are one text with none of `known`, in order."""
    matches = match_names(names, known)
    return tuple(name for name, index in zip(names, matches, strict=True) if index is None)


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """The first name of each text, in order.

    >>> unique_names(["apple", "pear", "Apple"])
    ('apple', 'pear')
    """
    first_names: dict[str, str] = {}
    for name in names:
        first_names.setdefault(canonical_text(name), name)
    return tuple(first_names.values())


def repeated(names: Sequence[str], tokenizer: Encoder | None = None) -> list[list[int]]:
    """Places of names that are one text: each list has two or more, in order.

    Args:
        tokenizer: of the model, where one is known.
    """
    positions: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        positions.setdefault(canonical_text(name), []).append(position)
    if tokenizer is not None:
        tokens: dict[tuple[int, ...], list[int]] = {}
        for group in positions.values():
            ids = tuple(tokenizer.encode(prompt_text(names[group[0]])))
            tokens.setdefault(ids, []).extend(group)
        return [sorted(group) for group in tokens.values() if len(group) > 1]
    return [group for group in positions.values() if len(group) > 1]


def check_apart(names: Sequence[str], tokenizer: Encoder) -> None:
    """Whether a model can tell these class names apart.

    Raises:
        SimpromptError: two are one text for it, or one is none at all.
    """
    for name in names:
        if not tokenizer.encode(prompt_text(name)):
            raise SimpromptError(
                f"The class name {name!a} is no text for this model, whose tokenizer knows none of "
                "its characters. Give it a word; folders and labels are renamed with --rename."
            )
    for group in repeated(names, tokenizer):
        names_of_group = [names[position] for position in group]
        if len({*names_of_group}) == 1:
            raise SimpromptError(
                f"The class {names_of_group[0]!r} is there twice; name each class once."
            )
        text = tokenizer.decode(list(tokenizer.encode(prompt_text(names_of_group[0])))).strip()
        raise SimpromptError(
            f"The classes {join_names(names_of_group)} are one text for this model, {text!r}: it "
            "cannot tell "
            "them apart. Name each class once; folders and labels are renamed or joined with "
            "--rename."
        )


def unread(names: Sequence[str], tokenizer: Encoder) -> list[tuple[str, str]]:
    """Names with characters that a tokenizer does not know, and the rest that it reads.

    The tokenizers of small models drop digits and accents without an error. A character is lost if
    another one of its kind in its place gives the same tokens. Hyphens, apostrophes and other
    punctuation between words do not count.
    """
    pairs = []
    for name in names:
        text = canonical_text(name)
        doubtful = {sign for sign in text if not ("a" <= sign <= "z" or sign in _BETWEEN)}
        if not doubtful:
            continue
        ids = tokenizer.encode(text)
        dropped_signs = {
            sign for sign in doubtful if tokenizer.encode(_with_other(text, sign)) == ids
        }
        if dropped_signs:
            remaining = "".join(" " if sign in dropped_signs else sign for sign in text)
            pairs.append((name, " ".join(remaining.split()).strip(_BETWEEN)))
    return pairs


_BETWEEN = " -'’.,/()!?:;\"&_"


def _with_other(text: str, sign: str) -> str:
    """The text with a neighbour of a character in its place: 7 for 6, è for é."""
    neighbour = chr(ord(sign) ^ 1)
    return text.replace(sign, neighbour if neighbour.isprintable() else sign * 2)


def unread_warning(names: Sequence[str], tokenizer: Encoder) -> list[str]:
    """At most one sentence on names of which `unread` loses a part, for the user."""
    pairs = unread(names, tokenizer)
    if not pairs:
        return []
    examples = [f"{name!r:.60} is read as {remaining!r:.60}" for name, remaining in pairs[:5]]
    if len(pairs) > 5:
        examples.append(f"{len(pairs) - 5} more")
    return [
        f"This model's tokenizer does not know some characters: {', '.join(examples)}. Write such "
        "names in words (two-door for 2-door), or take a model that reads them, such as "
        "ViT-B-16/openai."
    ]


def join_names(names: Sequence[str]) -> str:
    """Names for a message: "'US' and 'us'"; escaped where they would look alike, six at most."""
    spellings = {unicodedata.normalize("NFC", visible(name)) for name in names}
    alike = len(spellings) < len(set(names)) or not all(name.isprintable() for name in names)
    quoted = [ascii(name) if alike else repr(name) for name in names]
    if len(quoted) > 6:
        quoted = [*quoted[:5], f"{len(quoted) - 5} more"]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}" if len(quoted) > 1 else quoted[0]
