"""What the text tower is taught: WordNet's nouns with their meanings, adjectives, and compounds."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

# WordNet's lexicographer files of what a photograph can show: animal, artifact, body,
# communication (signs), event, food, object, person, phenomenon, plant, place, shape, substance.
SHOWN = {5, 6, 8, 10, 11, 13, 15, 17, 18, 19, 20, 25, 27}
RANKS = ("genus ", "family ", "order ", "class ", "phylum ", "suborder ", "subfamily ", "kingdom ",
         "superfamily ", "subclass ", "division ", "subdivision ", "subphylum ")  # fmt: skip
ROOT = "00001740"  # entity
WORD = re.compile(r"[a-z]+(?:[ '.-][a-z]+){0,3}\.?")


@dataclass
class Sense:
    """One meaning of some words: its kind (the lexicographer file), what is above it, its gloss."""

    words: list[str]
    parents: list[str]
    kind: int
    gloss: str


def _rows(file: Path) -> list[tuple[list[str], str]]:
    lines = (line.partition(" | ") for line in file.read_text(encoding="utf-8").splitlines())
    return [(head.split(), gloss.strip()) for head, _, gloss in lines if head[:1].isdigit()]


@dataclass
class WordNet:
    """The noun database at `folder`; senses are called by their offset, as ImageNet's ids are."""

    folder: Path
    senses: dict[str, Sense] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cells, gloss in _rows(self.folder / "data.noun"):
            count = int(cells[3], 16)
            words = [cells[4 + 2 * i].replace("_", " ") for i in range(count)]
            rest = cells[5 + 2 * count :]
            parents = [rest[i + 1] for i in range(0, len(rest) - 1, 4) if rest[i] in ("@", "@i")]
            self.senses[cells[0]] = Sense(words, parents, int(cells[1]), _first(gloss))

    @cached_property
    def meanings(self) -> dict[str, list[str]]:
        """The senses of each word in lower case, the most frequent first."""
        result = {}
        for line in (self.folder / "index.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                cells = line.split()
                result[cells[0].replace("_", " ")] = cells[-int(cells[2]) :]
        return result

    @cached_property
    def used(self) -> Counter[str]:
        """How often WordNet's tagged texts use a word as a noun."""
        counts: Counter[str] = Counter()
        for line in (self.folder / "cntlist.rev").read_text(encoding="utf-8").splitlines():
            key, _, times = line.split()
            word, _, rest = key.partition("%")
            if rest.startswith("1:"):
                counts[word.replace("_", " ")] += int(times)
        return counts

    def above(self, sense: str) -> set[str]:
        """The sense and all that are more general."""
        found, waiting = {sense}, [sense]
        while waiting:
            for parent in self.senses[waiting.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found

    @cached_property
    def information(self) -> dict[str, float]:
        """Minus the logarithm of the share of leaves below a sense, 0 at the root, 1 at a leaf."""
        inner = {parent for sense in self.senses.values() for parent in sense.parents}
        leaves: Counter[str] = Counter()
        for name in self.senses:
            if name not in inner:
                leaves.update(self.above(name))
        whole = math.log(leaves[ROOT])
        return {name: 1 - math.log(max(1, leaves[name])) / whole for name in self.senses}


class Relations:
    """WordNet's similarity of any sense to a fixed list of senses: the information of the most
    telling sense above both (Resnik 1995), in 0..1."""

    def __init__(self, wordnet: WordNet, known: Sequence[str]) -> None:
        self.wordnet, self.known = wordnet, list(known)
        below: dict[str, list[int]] = defaultdict(list)
        for i, sense in enumerate(known):
            for general in wordnet.above(sense):
                below[general].append(i)
        self.below = {name: np.array(rows) for name, rows in below.items()}

    def to(self, sense: str) -> npt.NDArray[np.float64]:
        """[known]."""
        row = np.zeros(len(self.known))
        for general in self.wordnet.above(sense):
            if general in self.below:
                rows = self.below[general]
                row[rows] = np.maximum(row[rows], self.wordnet.information[general])
        return row

    def sense_of(self, word: str) -> str | None:
        """The meaning of a word that a photograph can show and that lies nearest to one of the
        known senses; the most frequent of equals. `leopard` is an animal here, not its skin."""
        meanings = [m for m in self.wordnet.meanings.get(word, ()) if self._shown(m)]
        return max(meanings, key=lambda m: self.to(m).max()) if meanings else None

    def _shown(self, sense: str) -> bool:
        return self.wordnet.senses[sense].kind in SHOWN


@dataclass(frozen=True)
class Text:
    """What stands in a prompt, the sense that is meant, and what the sentence encoder reads."""

    name: str
    sense: str | None
    gloss: str


def nouns(relations: Relations) -> list[Text]:
    """Every noun of one to four plain words that a photograph can show, with one meaning each."""
    wordnet, found = relations.wordnet, []
    for word in wordnet.meanings:
        if not WORD.fullmatch(word) or len(word) < 3 or word.startswith(RANKS):
            continue
        sense = relations.sense_of(word)
        if sense is None:
            continue
        written = [w for w in wordnet.senses[sense].words if w.lower() == word]
        latin = any(s.lower().startswith(RANKS) for s in wordnet.senses[sense].words)
        if latin or (written and written[0] != word and wordnet.senses[sense].kind in (15, 18)):
            continue  # Paris, Mozart
        found.append(Text(word, sense, f"{word}: {wordnet.senses[sense].gloss}"))
    return found


def adjectives(wordnet: WordNet) -> list[Text]:
    """Adjectives of one word that running text uses, with their first gloss: how things look, are
    made or feel."""
    glosses = {cells[0]: _first(gloss) for cells, gloss in _rows(wordnet.folder / "data.adj")}
    found = []
    for line in (wordnet.folder / "index.adj").read_text(encoding="utf-8").splitlines():
        cells = line.split()
        if line.startswith(" ") or not re.fullmatch(r"[a-z]{3,}", cells[0]):
            continue
        senses = int(cells[2])
        if int(cells[-senses - 1]):  # how many of its senses tagged texts use
            found.append(Text(cells[0], None, f"{cells[0]}: {glosses[cells[-senses]]}"))
    return found


def compounds(
    wordnet: WordNet, things: Sequence[Text], looks: Sequence[Text], count: int
) -> list[Text]:
    """Phrases of two things, or of a look and a thing: no gloss knows them."""
    rng = random.Random(0)
    common = [t.name for t in things if wordnet.used[t.name] > 0]
    plain = [t.name for t in looks]
    found: dict[str, None] = {}
    while len(found) < count:
        one, two, look = rng.choice(common), rng.choice(common), rng.choice(plain)
        form = rng.choice(("{1} {2}", "{1} or {2}", "{0} {1}", "{0} {1} {2}", "{1} with {2}"))
        found[form.replace("{0}", look).replace("{1}", one).replace("{2}", two)] = None
    return [Text(phrase, None, phrase) for phrase in found]


def _first(gloss: str) -> str:
    """A gloss without its examples, its first part."""
    return gloss.split(";")[0].strip()
