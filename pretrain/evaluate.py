"""Zero-shot accuracy on design families that pretraining never saw, and of captions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain import captions, collect, packs, restyle, words
from pretrain.restyle import ATTRIBUTES, IMAGE_SIZE, SLOT

SEED, CONCEPTS = "simprompt-eval-1", 100
# The first is the one figures are quoted for; the rest show how much the wording matters.
TEMPLATES = (captions.CANONICAL, "{}", "a drawing of a {}.")


@dataclass
class Task:
    """Clean pictures of named concepts: `pixels` [N, 3, 48, 48] in 0..1, `labels` [N]."""

    name: str
    classes: list[str]
    pixels: Tensor
    labels: Tensor


def picture(icon: packs.Icon) -> Tensor:
    """The icon as its family draws it, on white: float32 [3, 48, 48] in 0..1."""
    rgba = torch.from_numpy(packs.render(icon.svg, IMAGE_SIZE).copy()).float() / 255
    alpha = rgba[..., 3:]
    return (rgba[..., :3] * alpha + 1 - alpha).permute(2, 0, 1)


def _ranked(found: set[str]) -> list[str]:
    return sorted(found, key=lambda w: hashlib.sha256(f"{SEED}:{w}".encode()).digest())


def tasks(cache: Path) -> list[Task]:
    """One task a held-out family (100 seen concepts), and one of all unseen concepts.

    A seen concept is a one-word WordNet noun that names a training picture. The unseen task has
    every drawing of the unseen concepts in the three families.
    """
    trained = {
        record.names[0]
        for record in collect.read(cache)
        if record.pack not in collect.VALIDATION_PACKS
    }
    nouns, unseen = words.wordnet(cache), words.unseen_words(cache)
    made, strangers = [], []
    for family, prefix in words.EVALUATED.items():
        drawn = {i.name: i for i in packs.icons(prefix, cache) if i.name == i.noun}
        seen = {w for w in drawn if w.isalpha() and w in trained and w in nouns} - set(unseen)
        classes = sorted(_ranked(seen)[:CONCEPTS])
        pixels = torch.stack([picture(drawn[c]) for c in classes])
        made.append(Task(family, classes, pixels, torch.arange(len(classes))))
        strangers += [drawn[w] for w in unseen if w in drawn]
    pixels = torch.stack([picture(icon) for icon in strangers])
    labels = torch.tensor([unseen.index(icon.noun) for icon in strangers])
    made.append(Task("unseen concepts", unseen, pixels, labels))
    return made


def validation(cache: Path) -> Task:
    """The validation pack (never trained on, not held out): one drawing a one-word noun, black."""
    nouns, mono = words.wordnet(cache), np.load(cache / "mono.npy", mmap_mode="r")
    rows = {
        r.names[0]: r.row
        for r in collect.read(cache)
        if r.pack in collect.VALIDATION_PACKS and not r.colour and r.names[0] in nouns
    }
    classes = sorted(w for w in rows if " " not in w)
    alpha = torch.from_numpy(np.stack([mono[rows[c]] for c in classes])).float() / 255
    alpha = torch.nn.functional.interpolate(alpha[:, None], IMAGE_SIZE, mode="area")
    return Task("validation", classes, 1 - alpha.repeat(1, 3, 1, 1), torch.arange(len(classes)))


# Which sentence is said of a picture when its noun is known: one sentence a value.
STATEMENTS = {
    "style": "a {value} icon of a {{}}.",
    "ink": "a {value} icon of a {{}}.",
    "tone": "an icon of a {{}} on a {value} background.",
    "tilt": "a {value} icon of a {{}}.",
    "size": "a {value} icon of a {{}}.",
}
STATED_VALUES = {"style": ("outline", "filled")}


@torch.no_grad()
def statements(
    cache: Path,
    encode_image: Callable[[Tensor], Tensor],
    encode_text: Callable[[Sequence[str]], Tensor],
) -> dict[str, tuple[float, int, int]]:
    """Does the text tower read its template? Attribute -> (accuracy in percent, choices, n).

    Phosphor's regular and fill drawings of the seen concepts, restyled with a fixed seed; of the
    sentences that differ only in the attribute's value, the one most like the picture is chosen.
    """
    nouns, unseen = words.wordnet(cache), words.unseen_words(cache)
    drawn = {i.name: i for i in packs.icons("ph", cache)}
    names = [n for n in _ranked(set(drawn) & set(nouns) - set(unseen)) if f"{n}-fill" in drawn]
    names = names[:CONCEPTS]
    slugs = [(n, n) for n in names] + [(n, f"{n}-fill") for n in names]
    rgba = np.stack([packs.render(drawn[slug].svg, collect.SIZE) for _, slug in slugs])
    styles = torch.tensor([int(slug.endswith("-fill")) for _, slug in slugs])
    no = torch.zeros(len(slugs), dtype=torch.bool)
    pictures, attributes = restyle.restyle(
        torch.from_numpy(rgba.transpose(0, 3, 1, 2).copy()), styles, no, no,
        torch.Generator().manual_seed(1),
    )  # fmt: skip
    images = encode_image(pictures)
    found = {}
    for name, pattern in STATEMENTS.items():
        values = STATED_VALUES.get(name, ATTRIBUTES[name])
        known = [i for i in range(len(slugs)) if attributes[i, SLOT[name]] >= 0]
        sentences = [pattern.format(value=v).format(slugs[i][0]) for i in known for v in values]
        text = encode_text(sentences).view(len(known), len(values), -1)
        guess = (text @ images[known, :, None])[..., 0].argmax(1)
        hits = (guess == attributes[known, SLOT[name]]).float().mean()
        found[name] = (round(100 * float(hits), 1), len(values), len(known))
    return found


@torch.no_grad()
def accuracy(
    task: Task,
    encode_image: Callable[[Tensor], Tensor],
    encode_text: Callable[[Sequence[str]], Tensor],
    template: str = captions.CANONICAL,
) -> float:
    """Top-1 accuracy in percent; the encoders return unit features."""
    text = encode_text([template.format(c) for c in task.classes])
    guess = (encode_image(task.pixels) @ text.T).argmax(1)
    return 100 * float((guess == task.labels).float().mean())
