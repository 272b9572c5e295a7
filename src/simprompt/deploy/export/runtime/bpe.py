"""CLIP's byte-pair encoding in plain Python, equal to the `tokenizers` library's.

A text is cleaned, cut into pieces (runs of letters, single digits, runs of other signs), each piece
into the letters that stand for its bytes, and neighbours are joined in the order in which their
pairs were learned (Sennrich et al., ACL 2016).
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from simprompt.clip.tokenizer import EOT, SOT, _byte_letters, clean
from simprompt.utils.files.regular import read_text

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")

_plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
_bytes = [*_plain, *(b for b in range(256) if b not in _plain)]
LETTERS = dict(zip(_bytes, _byte_letters(), strict=True))  # byte -> the character for it
BYTES = {letter: byte for byte, letter in LETTERS.items()}


class Vocabulary:
    """Text -> token ids, from the `vocabulary.json` of an exported folder.

    Attributes:
        sot, eot: ids of the marks before and behind a text.
    """

    def __init__(self, path: str | Path) -> None:
        data = json.loads(read_text(path))
        self.ids: dict[str, int] = data["ids"]
        self.rank = {(a, b): i for i, (a, b) in enumerate(data["merges"])}
        self.unknown: int | None = data["unknown"]
        self.ascii: bool = data["ascii"]  # letters are a-z and digits 0-9; else those of Unicode
        self.nfc: bool = data["nfc"]  # composed once more after the cleaning
        self.sot, self.eot = self.ids[SOT], self.ids[EOT]
        self.text_of: dict[int, str] = {}
        self.tokens = lru_cache(maxsize=65536)(self._tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of `text` without start and end marks; what follows a first end mark is cut off."""
        ids: list[int] = []
        for number, segment in enumerate(clean(text).split(EOT)[0].split(SOT)):
            ids += [self.sot] * bool(number)
            for piece in self.pieces(segment):
                ids += self.tokens(piece)
        return ids[: ids.index(self.eot)] if self.eot in ids else ids

    def decode(self, ids: list[int]) -> str:
        """Token ids -> text; bytes that are no character are U+FFFD."""
        if not self.text_of:
            self.text_of = {number: token for token, number in self.ids.items()}
        letters = "".join(self.text_of[number] for number in ids).replace("</w>", " ")
        codes = [BYTES.get(letter, 32) for letter in letters]
        return bytes(codes).decode(errors="replace")

    def pieces(self, text: str) -> Iterator[str]:
        """What is encoded by itself; white space is dropped."""
        if self.nfc:
            text = unicodedata.normalize("NFC", text).lower()
        start = 0
        while start < len(text):
            short = () if self.ascii else CONTRACTIONS
            end = start + next((len(c) for c in short if text.startswith(c, start)), 0)
            if end == start:
                kind, end = self.kind(text[start]), start + 1
                while kind in "L*" and end < len(text) and self.kind(text[end]) == kind:
                    end += 1
                if kind == " ":
                    start = end
                    continue
            yield text[start:end]
            start = end

    def kind(self, sign: str) -> str:
        """L for a letter, N for a digit, a space, or * for any other sign."""
        if sign.isspace():
            return " "
        if self.ascii:
            return "L" if "a" <= sign <= "z" else "N" if "0" <= sign <= "9" else "*"
        category = unicodedata.category(sign)[0]
        return category if category in "LN" else "*"

    def _tokens(self, piece: str) -> tuple[int, ...]:
        letters = [LETTERS[byte] for byte in piece.encode()]
        letters[-1] += "</w>"
        # a letter that the vocabulary lacks is the unknown token, or nothing where there is none
        pieces = [x if x in self.ids else "" for x in letters]
        if self.unknown is None:
            pieces = [x for x in pieces if x]
        while len(pieces) > 1:
            ranks = [self.rank.get(pair, math.inf) for pair in pairwise(pieces)]
            lowest = min(ranks)
            if lowest == math.inf:
                break
            at = ranks.index(lowest)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return tuple(self.ids[part] if part else self.unknown or 0 for part in pieces)
