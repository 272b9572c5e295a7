"""Which class names are one text for CLIP, so that it cannot tell them apart.

The tower reads token ids. Before them comes OpenAI's cleaning (`tokenizer.clean`): case, Unicode
forms, HTML entities and full-width letters are gone then. Characters that nobody sees would still
make tokens; `spelled`, through which every name goes into a prompt, takes them away. So

- names with equal `plain` forms are one text in every model, and can be compared before one is
  known;
- with a model at hand its token ids decide, which may be equal for more names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from simprompt.clip.tokenizer import Tokenizer, clean
from simprompt.errors import SimpromptError

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
# Joiners shape letters of some scripts; between Latin ones they do nothing.
_JOINERS = re.compile("(?<![^\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u024f])")


def visible(text: str) -> str:
    """`text` without characters that show nothing: zero-width ones, byte order marks, soft
    hyphens, marks of direction, variation selectors."""
    return _JOINERS.sub("", _UNSEEN.sub("", text))


def spelled(name: str) -> str:
    """A class name as it stands in a prompt: without unseen characters, blanks for underscores."""
    return visible(name).replace("_", " ")


def plain(name: str) -> str:
    """The text that a tokenizer sees of a class name.

    >>> plain("AT&amp;T"), plain("Sweet_Pea\\u200b"), plain("ＡＢＣ")
    ('at&t', 'sweet pea', 'abc')
    """
    text = spelled(name)
    if text.isascii() and text.isprintable() and "&" not in text:  # ftfy, skipped, is slow
        return " ".join(text.lower().split())
    # an entity may stand for an unseen character
    return " ".join(visible(clean(text)).replace("\u200c", "").replace("\u200d", "").split())


def repeated(names: Sequence[str], tokenizer: Tokenizer | None = None) -> list[list[int]]:
    """Places of names that are one text: each list has two or more, in order.

    Args:
        tokenizer: of the model, where one is known.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(plain(name), []).append(place)
    if tokenizer is not None:
        tokens: dict[tuple[int, ...], list[int]] = {}
        for own in places.values():
            ids = tuple(tokenizer.encode(spelled(names[own[0]])))
            tokens.setdefault(ids, []).extend(own)
        return [sorted(own) for own in tokens.values() if len(own) > 1]
    return [own for own in places.values() if len(own) > 1]


def check_apart(names: Sequence[str], tokenizer: Tokenizer) -> None:
    """Whether a model can tell these class names apart.

    Raises:
        SimpromptError: two are one text for it, or one is none at all.
    """
    for name in names:
        if not tokenizer.encode(spelled(name)):
            raise SimpromptError(
                f"The class name {name!a} is no text for this model, whose tokenizer knows none of "
                "its characters. Give it a word; folders and labels are renamed with --names."
            )
    for own in repeated(names, tokenizer):
        same = [names[place] for place in own]
        if len({*same}) == 1:
            raise SimpromptError(f"The class {same[0]!r} is there twice; name each class once.")
        text = tokenizer.decode(list(tokenizer.encode(spelled(same[0])))).strip()
        raise SimpromptError(
            f"The classes {listed(same)} are one text for this model, {text!r}, so it cannot tell "
            "them apart. Name each class once; folders and labels are renamed or joined with "
            "--names."
        )


def listed(names: Sequence[str]) -> str:
    """Names for a message: "'US' and 'us'"; escaped where they would look alike, six at most."""
    seen = {unicodedata.normalize("NFC", visible(name)) for name in names}
    alike = len(seen) < len(set(names)) or not all(name.isprintable() for name in names)
    shown = [ascii(name) if alike else repr(name) for name in names]
    if len(shown) > 6:
        shown = [*shown[:5], f"{len(shown) - 5} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
