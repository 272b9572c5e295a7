"""Names from WordNet: siblings and cousins of the base classes' meanings.

A base class is looked up among WordNet's nouns; where it has several meanings, the one is taken
that has most in common with the other base classes. Its relatives are the meanings reached by
going up to a common ancestor and down again: two steps to a sibling, four to a cousin. Ancestors
are left out (a `dog` is no class beside a `beagle`), and so is what stands below a base class.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from simprompt.novel.names import NovelNameError, name_key
from simprompt.novel.nouns import Noun, Synset, synsets
from simprompt.novel.sources import Offer, Request

DISTANCE = 4  # cousins
FARTHEST = 8  # how far it goes by itself when there are too few names
DEPTH = 5  # below `artifact` and `organism`, under which everything would be a relative


def wordnet(request: Request) -> Offer:
    """Siblings and cousins of the base classes, the nearest first, all base classes in turn.

    Settings: `distance` (steps up and down together; by default 4, and farther where that gives
    too few), `depth` (how far below WordNet's root a common ancestor has to be, 5).
    """
    depth = request.setting("depth", DEPTH)
    distance = request.setting("distance", DISTANCE)
    if distance < 2 or depth < 0:
        raise NovelNameError(
            f"wordnet cannot use distance={distance}, depth={depth}. A sibling is at distance 2; "
            "the root is at depth 0."
        )
    meanings = look_up(request.base)
    if not meanings:
        raise NovelNameError(
            f"WordNet knows none of the {len(request.base)} base classes as a noun, such as "
            f"{', '.join(request.base[:3])}. Use bundled names, vocabulary or llm for these."
        )
    avoid = {name_key(name) for name in request.avoid}
    limit = distance if "distance" in request.settings else max(distance, FARTHEST)
    names: list[str] = []
    reached = 0
    enough = request.n + request.n // 2  # some may turn out to be real new classes
    for reached in range(2, limit + 1):
        if reached > distance and len(names) >= enough:
            reached -= 1
            break
        names += _ring(meanings, reached, depth, request.seed, avoid | set(map(name_key, names)))
    provenance = {
        "database": "WordNet 3.0",
        "distance": reached,
        "depth": depth,
        "seed": request.seed,
        "base_found": len(meanings),
        "base_unknown": [name for name in request.base if name not in meanings],
    }
    return Offer(names, provenance)


def look_up(names: Sequence[str]) -> dict[str, int]:
    """The meaning of each name that WordNet knows, as a position in `synsets()`.

    A name is tried as it is, without what stands in brackets, in the singular, and by its last
    word (`green iguana` -> `iguana`).
    """
    candidates = {name: meanings for name in names if (meanings := _meanings(name)[0])}
    # How many base classes could stand below a meaning: what is shared by many is the topic.
    shared: Counter[int] = Counter()
    for meanings in candidates.values():
        shared.update(set().union(*(_ancestors(meaning) for meaning in meanings)))

    def agreement(meaning: int) -> float:
        """Levels of the hierarchy that the meaning shares with the other classes, on average."""
        above = [a for a in _ancestors(meaning) if _depth(a) >= DEPTH - 1]
        return sum(shared[a] - 1 for a in above) / max(1, len(candidates) - 1)

    chosen = {}
    for name, meanings in candidates.items():
        # A rarer meaning has to share one level more for every place it stands further down.
        best_rank = max(range(len(meanings)), key=lambda rank: agreement(meanings[rank]) - rank)
        phrase_meanings = _meanings(name)[1]
        # The last word alone may mislead: a `Japanese Chin` is no chin.
        if phrase_meanings or agreement(meanings[best_rank]) > 0:
            chosen[name] = meanings[best_rank]
    return chosen


def _ring(
    meanings: dict[str, int], distance: int, depth: int, seed: int, avoid: set[str]
) -> list[str]:
    """Names at exactly this distance, one for each base class in turn, commoner nouns first."""
    rng = random.Random(f"{seed} {distance}")
    table = synsets()
    excluded = set().union(*(_ancestors(meaning) for meaning in meanings.values()))
    queues = []
    for meaning in dict.fromkeys(meanings.values()):
        ring = sorted(_relatives(meaning, distance, depth) - excluded)
        rng.shuffle(ring)
        ring.sort(key=lambda relative: -max(noun.count for noun in table[relative].nouns))
        queues.append(ring)
    rng.shuffle(queues)
    below_base = set(meanings.values())
    names: list[str] = []
    for turn in range(max((len(queue) for queue in queues), default=0)):
        for queue in queues:
            if turn < len(queue) and not below_base & _ancestors(queue[turn]):
                name = _name(table[queue[turn]], avoid)
                if name:
                    avoid.add(name_key(name))
                    names.append(name)
    return names


def _relatives(meaning: int, distance: int, depth: int) -> set[int]:
    """Meanings with a name whose way to `meaning` over a common ancestor is this long."""
    table = synsets()
    relatives: set[int] = set()
    for up, ancestors in enumerate(_levels_up(meaning)):
        down = distance - up
        if up == 0 or down < 1:
            continue
        level = {a for a in ancestors if _depth(a) >= depth}
        for _ in range(down):
            level = {child for parent in level for child in _children()[parent]}
        relatives |= {relative for relative in level if table[relative].nouns}
    return relatives - {meaning}


def _name(synset: Synset, avoid: set[str]) -> str | None:
    """The commonest noun of a meaning; a noun that mostly means something else comes last."""
    good = [noun for noun in synset.nouns if name_key(noun.text) not in avoid]
    if len(good) < len(synset.nouns):  # a synonym of a base class is no other class
        return None

    def order(noun: Noun) -> tuple[bool, int]:
        return (noun.sense > 1, -noun.count)

    return min(good, key=order).text if good else None


def _meanings(name: str) -> tuple[list[int], bool]:
    """Positions of all meanings of a name, the commonest first, and if the whole name was found."""
    plain = name_key(name.partition("(")[0]) or name_key(name)
    words = plain.split()
    for start in range(len(words)):
        form = " ".join(words[start:])
        for candidate in (form, *_singulars(form)):
            if candidate in _index():
                return _index()[candidate], start == 0
    return [], False


def _singulars(form: str) -> list[str]:
    """Possible singulars of an English plural; the index says which one is a word."""
    rules = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("es", ""), ("s", ""))
    return [form[: -len(end)] + ending for end, ending in rules if form.endswith(end)]


@cache
def _index() -> dict[str, list[int]]:
    index: dict[str, list[tuple[int, int]]] = {}
    for position, synset in enumerate(synsets()):
        for noun in synset.nouns:
            index.setdefault(name_key(noun.text), []).append((noun.sense, position))
    return {key: [position for _, position in sorted(items)] for key, items in index.items()}


@cache
def _children() -> list[list[int]]:
    children: list[list[int]] = [[] for _ in synsets()]
    for position, synset in enumerate(synsets()):
        for parent in synset.parents:
            children[parent].append(position)
    return children


@cache
def _depths() -> list[int]:
    """Steps to the root, by the shortest way; parents stand before their children."""
    depths: list[int] = []
    for synset in synsets():
        depths.append(1 + min((depths[parent] for parent in synset.parents), default=-1))
    return depths


def _depth(position: int) -> int:
    return _depths()[position]


@cache
def _ancestors(meaning: int) -> frozenset[int]:
    """The meaning itself and all above it."""
    return frozenset(ancestor for level in _levels_up(meaning) for ancestor in level)


def _levels_up(meaning: int) -> Iterator[set[int]]:
    """The meaning, its parents, their parents and so on to the root."""
    level = {meaning}
    while level:
        yield level
        level = {parent for position in level for parent in synsets()[position].parents}
