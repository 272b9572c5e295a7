"""From records to what training reads: phrases, their MiniLM embeddings, and the tokenizer."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from pretrain import captions, collect, words

VOCABULARY = 8000
NAME_WORD_CAP = 60  # a word's weight in BPE training: its count among names, at most this
NOUN_WEIGHT, DRAWABLE_WEIGHT = 3, 12  # the least weight of WordNet's common and drawable nouns
TEMPLATE_WEIGHT = 500  # every word of a template is one token


def phrases(cache: Path) -> list[str]:
    """Every name and tag in the records and every WordNet noun of use, sorted, once each."""
    found = {name for record in collect.read(cache) for name in record.names}
    for noun, (file, tags) in words.wordnet(cache).items():
        if tags > 0 or (file in words.DRAWABLE and " " not in noun):
            found.add(noun)
    return sorted(found)


def word_counts(cache: Path) -> Counter[str]:
    """Weights of words for BPE training."""
    counts: Counter[str] = Counter()
    for names in {tuple(record.names) for record in collect.read(cache)}:
        for name in names:
            counts.update(name.split())
    counts = Counter({w: min(c, NAME_WORD_CAP) for w, c in counts.items()})
    for noun, (file, tags) in words.wordnet(cache).items():
        if " " in noun or not tags:
            continue
        least = DRAWABLE_WEIGHT if file in words.DRAWABLE else NOUN_WEIGHT
        for form in (noun, words.plural(noun)) if file in words.DRAWABLE else (noun,):
            counts[form] = max(counts[form], least if form == noun else NOUN_WEIGHT)
    for word in captions.all_words():
        counts[word] = TEMPLATE_WEIGHT
    return counts


def prepare(cache: Path) -> None:
    """Write `phrases.json`, `phrases.npy` float16 [P, 384], `tokenizer.json`, `tokens.npy`."""
    if (cache / "tokens.npy").exists():
        return
    listed = phrases(cache)
    words.train_tokenizer(word_counts(cache), VOCABULARY, cache / "tokenizer.json")
    np.save(cache / "phrases.npy", words.embed(listed))
    (cache / "phrases.json").write_text(json.dumps(listed), encoding="utf-8")
    # What MiniLM makes of each whole-word token: the start of our token embedding.
    from tokenizers import Tokenizer

    table = words.token_table(Tokenizer.from_file(str(cache / "tokenizer.json")).get_vocab())
    temporary = cache / "tokens.part.npy"
    np.save(temporary, table)
    os.replace(temporary, cache / "tokens.npy")
