"""Write the bundled noun graph from WordNet's database files.

    python -m simprompt.novel.nouns.build PATH_TO_WORDNET_DICT

`PATH_TO_WORDNET_DICT` is a folder with `data.noun`, `index.noun` and `cntlist.rev`, such as
Debian's `wordnet-base` installs; their format is in the manual page wndb(5WN).

A synset is kept when it is of a kind that can be drawn or photographed, or stands above one that
is. Left out are single things (`Mount Everest`), the ranks of biology (`genus Canis`), persons that
WordNet's tagged corpora never mention, and every meaning that is an insult. One line a synset,
parents before children: the line numbers of its parents, its kind, and its nouns as
`noun:sense:count`, where `count` is how often the tagged corpora use the noun in any sense.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Numbers of WordNet's lexicographer files, from its manual page lexnames(5WN).
KINDS = {4: "act", 5: "animal", 6: "artifact", 8: "body", 10: "communication", 11: "event",
         13: "food", 15: "location", 17: "object", 18: "person", 19: "phenomenon", 20: "plant",
         21: "possession", 25: "shape", 27: "substance"}  # fmt: skip
RANKS = ("genus ", "family ", "order ", "class ", "phylum ", "suborder ", "subfamily ",
         "superfamily ", "subclass ", "division ", "subdivision ", "subphylum ")  # fmt: skip
INSULTS = re.compile(
    r"slur|offensive|disparag|derogat|obscene|vulgar|insulting|taboo|abusive|racist|genital|"
    r"copulat|prostitut|contempt|sexual|erotic"
)
# Left out of their harmless senses too (a `cock` is a rooster), unlike `skunk` or `bird`.
SLURS = frozenset([
    "arse", "ass", "bitch", "bunghole", "chink", "cock", "coon", "dike", "dyke", "fag", "faggot",
    "fagot", "gook", "homo", "kaffir", "nip", "pecker", "pouf", "prick", "pussy", "slit", "snatch",
])  # fmt: skip
ROOT = "00001740"  # entity
NAME = re.compile(r"[A-Za-z][A-Za-z' .-]*")


def graph(dictionary: Path) -> Iterator[tuple[list[int], str, list[tuple[str, int, int]]]]:
    """Synsets as `(parents, kind, [(noun, sense, count)])`, parents by line number."""
    uses: Counter[str] = Counter()
    for line in (dictionary / "cntlist.rev").read_text(encoding="utf-8").splitlines():
        sense_key, _, times = line.split()
        lemma, _, tail = sense_key.partition("%")
        if tail.startswith("1:"):  # noun senses
            uses[lemma] += int(times)
    sense_of: dict[tuple[str, str], int] = {}
    for fields, _ in _rows(dictionary / "index.noun"):
        senses = fields[6 + int(fields[3]) :]
        sense_of |= {(fields[0], offset): i for i, offset in enumerate(senses, 1)}

    # `Homarus vulgaris` is Latin because `genus Homarus` is one of WordNet's nouns.
    genera = {lemma.partition("_")[2] for lemma, _ in sense_of if lemma.startswith("genus_")}
    parents: dict[str, list[str]] = {}
    nouns: dict[str, list[tuple[str, int, int]]] = {}
    kinds: dict[str, str] = {}
    for fields, gloss in _rows(dictionary / "data.noun"):
        offset, n_words = fields[0], int(fields[3], 16)
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(n_words)]
        pointers = fields[4 + 2 * n_words + 1 :]
        above = [(pointers[i], pointers[i + 1]) for i in range(0, len(pointers) - 3, 4)]
        if any(symbol == "@i" for symbol, _ in above):  # a single thing
            continue
        parents[offset] = [target for symbol, target in above if symbol == "@"]
        kinds[offset] = KINDS.get(int(fields[1]), "")
        if not kinds[offset] or INSULTS.search(gloss) or any(w.startswith(RANKS) for w in words):
            continue
        good = [w for w in words if NAME.fullmatch(w) and len(w.split()) <= 3 and w not in SLURS]
        good = [w for w in good if not (w[0].isupper() and w.split()[0].lower() in genera)]
        # Where there is a plain name, the capitalised ones are a variant of it.
        plain = [w for w in good if w.islower()] or good
        counted = [(w, uses[w.lower().replace(" ", "_")]) for w in plain]
        if kinds[offset] == "person":
            counted = [(w, times) for w, times in counted if times]
        nouns[offset] = [
            (w, sense_of.get((w.lower().replace(" ", "_"), offset), 99), times)
            for w, times in counted
        ]

    # What stands below a single thing that was left out is one of its names or parts.
    orphans = {""}
    while orphans:
        parents = {o: [p for p in above if p in parents] for o, above in parents.items()}
        orphans = {o for o, above in parents.items() if not above and o != ROOT}
        parents = {o: above for o, above in parents.items() if o not in orphans}
    nouns = {o: words for o, words in nouns.items() if o in parents}
    number: dict[str, int] = {}
    needed_synsets: set[str] = set()
    for offset, words_ in nouns.items():
        stack = [offset] if words_ else []
        while stack:
            synset = stack.pop()
            if synset not in needed_synsets:
                needed_synsets.add(synset)
                stack += parents[synset]

    def place(offset: str) -> Iterator[str]:
        if offset not in number:
            for parent in parents[offset]:
                yield from place(parent)
            number[offset] = len(number)
            yield offset

    for start in sorted(needed_synsets):
        for offset in place(start):
            above_ = [number[parent] for parent in parents[offset]]
            yield above_, kinds[offset], nouns.get(offset, [])


def _rows(path: Path) -> Iterator[tuple[list[str], str]]:
    """A database file's lines as fields and gloss, without the indented lines of the licence."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields, _, gloss = line.partition("|")
            yield fields.split(), gloss


def main() -> None:
    """Write the list of nouns from WordNet's files, whose folder is the first argument."""
    lines = [
        "\t".join([
            ",".join(map(str, above)),
            kind,
            "|".join(f"{word}:{sense}:{times}" for word, sense, times in words),
        ])
        for above, kind, words in graph(Path(sys.argv[1]))
    ]  # fmt: skip
    target = Path(__file__).with_name("nouns.tsv.gz")
    target.write_bytes(gzip.compress("\n".join(lines).encode("ascii"), mtime=0))
    print(f"{len(lines)} synsets, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
