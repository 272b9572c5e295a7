"""What a novel class name is, what a list of them is, and which names are refused.

A novel class is a name that stands in for classes nobody has seen yet: SAR compares its text
embedding with those of the base classes, and needs no image of it. Names come from people, from
files and from language models, so every one passes `clean_name` before anything else sees it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simprompt.clip.same_text import canonical_text
from simprompt.errors import SimpromptError
from simprompt.utils.files.atomic import write_json

MAX_CHARACTERS = 80
MAX_WORDS = 10  # longer than the longest class name of the eleven datasets; sentences are longer

QUOTES = "\"'`´\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a"
_PATH = re.compile(r"(^|[/\\])\.{1,2}([/\\]|$)|^[/~\\]|\\|^[A-Za-z]:[/\\]|://|\x00")
_MARKUP = re.compile(r"[<>{}\[\]|]")
_SPACE = re.compile(r"[\s_]+")


TWICE = "stands in the list twice"
EARLIER = "comes from an earlier source already"
IS_BASE = "is a base class"
IS_NEW = "is one of the task's real new classes"
IS_HIDDEN = "may not be seen while settings are chosen"
STUDY_ONLY = "for study only"  # what marks a warning as the gravest
ELSEWHERE = (TWICE, EARLIER, IS_BASE, IS_NEW, IS_HIDDEN)


_NEEDS = "needs"  # how the reason of a name that is too long begins


class NovelNameError(SimpromptError):
    """A name, a list or a source of novel classes that cannot be used."""


@dataclass(frozen=True)
class Dropped:
    """A name that was left out of a list, and why."""

    name: str
    reason: str

    @property
    def refused(self) -> bool:
        """Left out for what it is; the others stand elsewhere already."""
        return self.reason not in ELSEWHERE

    @property
    def too_long(self) -> bool:
        """Left out because the prompt with this name is longer than the model's context."""
        return self.reason.startswith(f"{_NEEDS} ")


@dataclass(frozen=True)
class NovelList:
    """Names of novel classes and where they are from.

    Attributes:
        names: the names, cleaned, unique by `name_key`, none of them a base class.
        source: the specification that made the list, such as `bundled:150+wordnet:50`.
        provenance: how the names came about, as plain JSON values; per part for a mixed list.
        requested: how many names were asked for; a source may have fewer.
        dropped: names the source offered that were left out, with the reason.
        overlap: exact matches (by `name_key`) with the task's real new classes, where those were
            given; they are not in `names` unless the list was made to keep them.
        leaks: the list was made from the real new classes: fit for a study, not for a result.
    """

    names: tuple[str, ...]
    source: str
    provenance: dict[str, Any] = field(default_factory=dict)
    requested: int = 0
    dropped: tuple[Dropped, ...] = ()
    overlap: tuple[str, ...] = ()
    leaks: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """The hash of the names in their order: two runs with the same hash used the same list."""
        return hash_names(self.names)

    @property
    def sees_new(self) -> str | None:
        """What must be said of a list that holds real new classes; None of any other."""
        if not (self.leaks or set(self.overlap) & set(self.names)):
            return None
        return (
            f"The novel names ({self.source}) hold real new classes. They are {STUDY_ONLY}: no "
            "result made with them is a result on unseen classes."
        )

    @property
    def left_out_as_too_long(self) -> str | None:
        """How many names do not fit the prompt of the method; None if all do."""
        long = [item.name for item in self.dropped if item.too_long]
        if not long:
            return None
        return (
            f"{len(long)} novel names were left out, because the method's prompt with them is "
            f"longer than the model's context: {', '.join(map(shown, long[:3]))}"
            f"{', ...' if len(long) > 3 else ''}. SAR uses the other {len(self)}."
        )

    def summary(self) -> str:
        """One line for a log or a result: source, size, overlap, hash."""
        sentences = [f"{len(self)} novel names from {self.source}"]
        if self.requested > len(self):
            sentences.append(f"{self.requested} asked for")
        if self.overlap:
            name_set = set(self.names)
            kept_count = sum(name in name_set for name in self.overlap)
            removed = len(self.overlap) - kept_count
            for count, treatment in ((removed, "removed"), (kept_count, "left in")):
                if count:
                    sentences.append(f"{count} of the real new classes {treatment}")
        return f"{', '.join(sentences)} [{self.sha256[:12]}]"

    def to_json(self) -> dict[str, Any]:
        """The list as plain JSON values; `from_json` reads them back."""
        return {
            "names": list(self.names),
            "source": self.source,
            "sha256": self.sha256,
            "requested": self.requested,
            "overlap": list(self.overlap),
            "leaks": self.leaks,
            "dropped": [[item.name, item.reason] for item in self.dropped],
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> NovelList:
        """Read `to_json`'s dictionary; a hash that does not fit the names is an error."""
        names = tuple(value["names"])
        if "sha256" in value and value["sha256"] != hash_names(names):
            raise NovelNameError(
                f"The list from {value.get('source', 'an unknown source')!r} was changed after it "
                "was stored: its hash does not fit its names. Read it with `file:PATH`, which "
                "takes any list, or make it again."
            )
        return cls(
            names=names,
            source=value.get("source", "file"),
            provenance=dict(value.get("provenance", {})),
            requested=int(value.get("requested", len(names))),
            dropped=tuple(Dropped(*item) for item in value.get("dropped", [])),
            overlap=tuple(value.get("overlap", [])),
            leaks=bool(value.get("leaks", False)),
        )

    def save(self, path: str | Path) -> None:
        """Write the list as JSON; the file is there whole or not at all."""
        write_json(Path(path), self.to_json())

    def limit(self, n: int) -> NovelList:
        """The first `n` names of the list."""
        return replace(self, names=self.names[:n])


def name_key(name: str) -> str:
    """The form two names are compared in: `Sweet_Pea`, `sweet pea` and `SWEET-PEA` are one class.

    Case, accents, hyphens, underscores, punctuation and repeated spaces are taken away; letters
    of any script and digits stay. Plurals stay apart: `glasses` is not `glass`. What is one text
    for CLIP has one key, `AT&amp;T` and `AT&T` too.
    """
    decomposed = unicodedata.normalize("NFKD", canonical_text(name)).casefold()
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() else " " for c in letters).split())


def hash_names(names: Iterable[str]) -> str:
    """SHA-256 of the names, one a line, in UTF-8."""
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()


def shown(name: object, width: int = 60) -> str:
    """A name as it may stand in a message: escaped, so that it cannot reach the terminal raw."""
    text = ascii(name) if not isinstance(name, str) or not name.isprintable() else repr(name)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def clean_name(raw: object, *, any_script: bool = False) -> str:
    """Make a usable class name of what a file or a language model gave, or refuse it.

    Taken away: invisible and direction-changing characters, emoji and other pictures, quotes and
    markdown marks around the name, a full stop at the end, repeated spaces; newlines, tabs and
    underscores become spaces. The letters themselves are never changed.

    Args:
        raw: the name as it came.
        any_script: allow letters that are not Latin (for a CLIP with a multilingual text tower).

    Raises:
        NovelNameError: the name is not text, is empty after cleaning, looks like a path or markup,
            is in another script, or is longer than a class name can be.
    """
    if not isinstance(raw, str):
        raise NovelNameError(f"{shown(raw)} is not text but {type(raw).__name__}")
    name = unicodedata.normalize("NFC", raw)
    if _PATH.search(name.strip()):
        raise NovelNameError(f"{shown(raw)} looks like a path or an address, not a class name")
    words_kept = []
    for character in name:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp", "Zs"):
            words_kept.append(" ")
        elif category not in ("Cf", "Cs", "Co", "Cn", "So", "Sk") and not _emoji_part(character):
            words_kept.append(character)
    name = _SPACE.sub(" ", "".join(words_kept)).strip(QUOTES + " *_#,;:.!?")
    if _PATH.search(name):  # it stood in quotes
        raise NovelNameError(f"{shown(raw)} looks like a path or an address, not a class name")
    if not any(c.isalnum() for c in name):
        raise NovelNameError(f"{shown(raw)} has no letter or digit left after cleaning")
    if _MARKUP.search(name):
        raise NovelNameError(f"{shown(raw)} holds markup characters, which no class name needs")
    if len(name) > MAX_CHARACTERS or len(name.split()) > MAX_WORDS:
        raise NovelNameError(
            f"{shown(raw)} is too long for a class name: {len(name)} characters and "
            f"{len(name.split())} words, at most {MAX_CHARACTERS} and {MAX_WORDS}"
        )
    foreign = [c for c in name if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")]
    if foreign and not any_script:
        raise NovelNameError(
            f"{shown(raw)} is not in Latin letters ({foreign[0]!a}), which an English text "
            "tower cannot read"
        )
    return unicodedata.normalize("NFC", name)


def _emoji_part(character: str) -> bool:
    """Variation selectors, keycap marks and skin tones: what is left of an emoji without it."""
    code = ord(character)
    return 0xFE00 <= code <= 0xFE0F or code == 0x20E3 or 0x1F3FB <= code <= 0x1F3FF


def clean_names(
    raw: Iterable[object],
    *,
    exclude: Mapping[str, str] | None = None,
    limit: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    max_tokens: int = 77,
    any_script: bool = False,
) -> tuple[list[str], list[Dropped]]:
    """Clean names in order and leave out the unusable, the repeated and the excluded.

    Args:
        raw: names as they came.
        exclude: names that must not be in the list, each with the reason to give.
        limit: stop at this many good names.
        count_tokens: the number of tokens of a name in its prompt, where a tokenizer is at hand.
        max_tokens: the text tower's context length, for `count_tokens`.
        any_script: see `clean_name`.

    Returns:
        The good names and what was left out with its reason; duplicates count as left out.
    """
    reasons = {name_key(name): reason for name, reason in (exclude or {}).items()}
    good: list[str] = []
    dropped: list[Dropped] = []
    for item in raw:
        if limit is not None and len(good) >= limit:
            break
        try:
            name = clean_name(item, any_script=any_script)
        except NovelNameError as error:
            printable = isinstance(item, str) and item.isprintable()
            short = isinstance(item, str) and len(item) <= MAX_CHARACTERS
            dropped.append(Dropped(str(item) if printable and short else shown(item), str(error)))
            continue
        key = name_key(name)
        if key in reasons:
            dropped.append(Dropped(name, reasons[key]))
        elif count_tokens is not None and (tokens := count_tokens(name)) > max_tokens:
            dropped.append(Dropped(name, too_long(tokens, max_tokens)))
        else:
            reasons[key] = TWICE
            good.append(name)
    return good, dropped


def too_long(tokens: int, most: int) -> str:
    """The reason to leave out a name whose prompt is longer than the model's context."""
    return f"{_NEEDS} {tokens} tokens, at most {most} fit"


def overlap(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """The names that match one of `others` exactly, by `name_key`."""
    keys = {name_key(other_name) for other_name in others}
    return [name for name in names if name_key(name) in keys]
