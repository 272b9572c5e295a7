"""The CLIP for images that come without a model's name."""

from __future__ import annotations

from simprompt.clip import domain
from simprompt.clip.catalogue import EMBEDDED
from simprompt.clip.domain import ICONS, PHOTOS
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.data.split import Split
from simprompt.utils.cache import Memo

_loaded: Memo[str, CLIP] = Memo(2)


def suited_clip(split: Split) -> CLIP:
    """The embedded CLIP for these images, as `simprompt learn` chooses it."""
    clip = clip_of(ICONS)
    if domain.unlike_share(clip, split) > domain.MANY and EMBEDDED[PHOTOS].installed:
        return clip_of(PHOTOS)
    return clip


def clip_of(model: str | CLIP) -> CLIP:
    """The model; one that was named is kept for the next time."""
    return model if isinstance(model, CLIP) else _loaded.get(model, lambda: load_clip(model))
