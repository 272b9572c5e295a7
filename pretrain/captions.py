"""Captions that say something true about a picture, and which captions are true of which picture.

A caption has a noun and states values for some attributes. It is true of a picture when the noun
is one of the picture's names and every stated value is the picture's value; unknown where a stated
attribute of the picture is uncertain.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.restyle import ATTRIBUTES, COLOUR_NAMES, SLOT

CANONICAL = "an icon of a {}."
NEUTRAL = (
    "{}", "a {}", "{}.", "a {}.", "an icon of {}.", "icon of a {}.", "the icon of a {}.",
    "a drawing of a {}.", "a picture of a {}.", "a pictogram of a {}.", "a symbol of a {}.",
    "an icon showing a {}.", "a simple icon of a {}.", "an emoji of a {}.", "a sign for {}.",
    "a glyph of a {}.", "a photo of a {}.", "an image of a {}.", "this is a {}.",
)  # fmt: skip
_NOUNS = ("icon", "icon", "icon", "icon", "drawing", "pictogram", "symbol", "picture")
CANONICAL_SHARE, NEUTRAL_SHARE = 0.36, 0.18  # the rest states one to three attributes


@dataclass(frozen=True)
class Caption:
    """A sentence with `{}` for its noun, and what it states: attribute slot -> value."""

    template: str
    stated: tuple[tuple[int, int], ...] = ()


def all_words() -> set[str]:
    """Every word a template can hold: the tokenizer keeps each whole."""
    listed = [w for values in ATTRIBUTES.values() for w in values]
    fixed = "an on in the leaning to left right background " + " ".join(NEUTRAL + _NOUNS)
    return set(re.findall(r"[a-z]+", " ".join([fixed, *listed])))


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def write(attributes: Sequence[int], rng: random.Random) -> Caption:
    """A template that is true of a picture with these attribute values (-1: say nothing of it)."""
    roll = rng.random()
    if roll < CANONICAL_SHARE:
        return Caption(CANONICAL)
    if roll < CANONICAL_SHARE + NEUTRAL_SHARE:
        return Caption(rng.choice(NEUTRAL))
    known = {name: attributes[slot] for name, slot in SLOT.items() if attributes[slot] >= 0}
    if known.get("finish") == 0 and rng.random() < 0.8:
        del known["finish"]  # "clean" is the rule; saying it each time teaches nothing
    if known.get("tilt") == 0 and rng.random() < 0.7:
        del known["tilt"]
    names = rng.sample(sorted(known), min(len(known), rng.choice((1, 1, 2, 2, 3))))
    if "background" in names and "tone" in names:
        names.remove("tone")
    if "tilt" in names and "lean" in names:
        names.remove("tilt")
    return phrase({name: known[name] for name in names}, rng)


def phrase(stated: dict[str, int], rng: random.Random) -> Caption:
    """A sentence that states exactly `stated`, in one of several word orders."""
    text = {name: ATTRIBUTES[name][value] for name, value in stated.items()}
    before = [text[k] for k in ("size", "finish", "tilt") if k in text]
    ink_behind = "ink" in text and rng.random() < 0.35
    if "ink" in text and not ink_behind:
        before.append(text["ink"])
    if "style" in text:
        before.append(text["style"])
    core = _article(" ".join([*before, rng.choice(_NOUNS)])) + " of a {}"
    behind = f" in {text['ink']}" if ink_behind else ""
    if "lean" in text:
        behind += f" leaning {text['lean']}"
    ground = ""
    if "background" in text or "tone" in text:
        ground = "on " + _article(text.get("background", text.get("tone", ""))) + " background"
    if ground and rng.random() < 0.4:
        sentence = f"{ground}, {core}{behind}."
    else:
        sentence = f"{core}{behind}{' ' + ground if ground else ''}."
    return Caption(sentence, tuple((SLOT[name], value) for name, value in stated.items()))


def stated_tensor(captions: Sequence[Caption]) -> Tensor:
    """int64 [T, attributes], -1 where a caption is silent."""
    out = torch.full((len(captions), len(ATTRIBUTES)), -1)
    for row, caption in enumerate(captions):
        for slot, value in caption.stated:
            out[row, slot] = value
    return out


def truth(same_noun: Tensor, attributes: Tensor, stated: Tensor) -> tuple[Tensor, Tensor]:
    """Which caption is true of which picture.

    Args:
        same_noun: bool [B, T], the caption's noun is one of the picture's names.
        attributes: int64 [B, A], -1 where uncertain.
        stated: int64 [T, A], -1 where silent.

    Returns:
        `true` and `unknown`, bool [B, T]; a pair is false where it is neither.
    """
    silent = stated[None] < 0
    agrees = silent | (attributes[:, None] == stated[None])
    uncertain = ~silent & (attributes[:, None] < 0)
    possible = (agrees | uncertain).all(-1) & same_noun
    true = agrees.all(-1) & same_noun
    return true, possible & ~true


assert "black" in COLOUR_NAMES
