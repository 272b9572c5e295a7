"""Write the bundled noun list from WordNet's database files.

    python -m simprompt.novel.nouns.build PATH_TO_WORDNET_DICT

`PATH_TO_WORDNET_DICT` is a folder with `data.noun`, `index.noun` and `cntlist.rev`, such as
Debian's `wordnet-base` installs. A noun is kept when its most frequent sense is of a kind that
can be drawn or photographed, it is written in lower-case ASCII letters (which leaves out proper
and Latin names), it has at most two words, and no gloss of it says that it insults. The order is
by how often WordNet's tagged corpora use it, then by alphabet, so that the head of the list is
everyday language.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Numbers of WordNet's lexicographer files, from its manual page lexnames(5WN).
KINDS = {5: "animal", 6: "artifact", 8: "body", 11: "event", 13: "food", 17: "object",
         18: "person", 19: "phenomenon", 20: "plant", 27: "substance"}  # fmt: skip
PLAIN = re.compile(r"[a-z]{2,}(?:[ -][a-z]{2,})?")
OPEN_KINDS = {"animal", "artifact", "food", "plant"}  # two words, or never used: only of these
INSULTS = re.compile(r"slur|offensive|disparag|derogat|obscene|vulgar|insulting|taboo|abusive|"
                     r"racist|genital|copulat|prostitut|contempt")  # fmt: skip


def nouns(dictionary: Path) -> list[tuple[str, str, int]]:
    """The kept nouns as `(noun, kind, count)`, most used first."""
    kind_of: dict[str, int] = {}
    insults: set[str] = set()
    spelling: dict[tuple[str, str], str] = {}  # (synset offset, lower-case lemma) -> as written
    for fields, gloss in _rows(dictionary / "data.noun"):
        kind_of[fields[0]] = int(fields[1])
        for i in range(int(fields[3], 16)):
            word = fields[4 + 2 * i]
            spelling[fields[0], word.lower()] = word
            if INSULTS.search(gloss):
                insults.add(word.lower())
    counts: Counter[str] = Counter()
    for line in (dictionary / "cntlist.rev").read_text(encoding="utf-8").splitlines():
        sense, _, count = line.split()
        lemma, _, rest = sense.partition("%")
        if rest.startswith("1:"):  # noun senses
            counts[lemma] += int(count)
    kept = []
    for fields, _ in _rows(dictionary / "index.noun"):
        lemma, n_pointers = fields[0], int(fields[3])
        first_sense = fields[4 + n_pointers + 2]  # the senses stand in order of frequency
        kind = KINDS.get(kind_of[first_sense])
        word = spelling.get((first_sense, lemma), lemma).replace("_", " ")
        if kind is None or not PLAIN.fullmatch(word) or word.startswith(("genus ", "family ")):
            continue
        if lemma in insults or (counts[lemma] == 0 and kind not in OPEN_KINDS):
            continue
        kept.append((word, kind, counts[lemma]))
    return sorted(kept, key=lambda row: (-row[2], row[0]))


def _rows(path: Path) -> Iterator[tuple[list[str], str]]:
    """A database file's lines as fields and gloss, without the indented lines of the licence."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields, _, gloss = line.partition("|")
            yield fields.split(), gloss


def main() -> None:
    rows = nouns(Path(sys.argv[1]))
    text = "".join(f"{noun}\t{kind}\t{count}\n" for noun, kind, count in rows)
    target = Path(__file__).with_name("nouns.tsv.gz")
    target.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))
    print(f"{len(rows)} nouns, {target.stat().st_size} bytes: {Counter(r[1] for r in rows)}")


if __name__ == "__main__":
    main()
