"""The bundled nouns of WordNet 3.0: a graph of what can be drawn, and a plain list of names.

`nouns.tsv.gz` is made by `build.py`, where its format and its rules are described; WordNet's
licence stands beside it.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

# Kinds whose rare nouns still name things; of the other kinds only nouns in use are listed.
_THINGS = {"animal", "artifact", "food", "plant"}
_DRAWN = _THINGS | {"body", "event", "object", "person", "phenomenon", "substance"}
_PLAIN = re.compile(r"[a-z]{2,}(?:[ -][a-z]{2,})?")


@dataclass(frozen=True)
class Noun:
    """A noun in one of its senses.

    Attributes:
        text: as it is written.
        sense: 1 for its most frequent sense.
        count: how often WordNet's tagged corpora use it, in any sense.
    """

    text: str
    sense: int
    count: int


@dataclass(frozen=True)
class Synset:
    """One meaning: the nouns that have it, its kind, and the more general meanings above it.

    `parents` are positions in `synsets()`, all smaller than the synset's own. `nouns` is empty
    for a meaning that only connects others.
    """

    parents: tuple[int, ...]
    kind: str
    nouns: tuple[Noun, ...]


@cache
def synsets() -> tuple[Synset, ...]:
    """All bundled synsets, parents before children; the first is the root."""
    packed = (resources.files("simprompt.novel.nouns") / "nouns.tsv.gz").read_bytes()
    result = []
    for line in gzip.decompress(packed).decode("ascii").split("\n"):
        above, kind, words = line.split("\t")
        nouns = []
        for word in filter(None, words.split("|")):
            text, sense, count = word.rsplit(":", 2)
            nouns.append(Noun(text, int(sense), int(count)))
        parents = tuple(int(number) for number in above.split(",") if number)
        result.append(Synset(parents, kind, tuple(nouns)))
    return tuple(result)


@lru_cache(8)
def noun_list(minimum_count: int = 0) -> tuple[str, ...]:
    """Lower-case nouns of one or two words whose first sense can be drawn, most used first."""
    counts: dict[str, int] = {}
    for synset in synsets():
        if synset.kind in _DRAWN:
            for noun in synset.nouns:
                is_shown = synset.kind in _THINGS or noun.count
                if noun.sense == 1 and is_shown and _PLAIN.fullmatch(noun.text):
                    counts[noun.text] = noun.count
    kept = [noun for noun, count in counts.items() if count >= minimum_count]
    return tuple(sorted(kept, key=lambda noun: (-counts[noun], noun)))
