"""The novel names of one run: names that fit its prompt and that its tokenizer tells apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from simprompt.clip.same_text import class_names, repeated
from simprompt.novel.names import (
    IS_BASE,
    IS_HIDDEN,
    TWICE,
    Dropped,
    NovelList,
    name_key,
    overlap,
    too_long,
)

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP
    from simprompt.config import SAR
    from simprompt.data.split import Origin
from simprompt.novel.sources import novel_names

GIVEN = {"source": "given by the caller"}


def names_of_run(
    sar: SAR,
    clip: CLIP,
    base: Sequence[str],
    origin: Origin | None,
    *,
    seed: int = 0,
    given: Sequence[str] | NovelList | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> NovelList:
    """The novel names of a run, as its settings of SAR say.

    Args:
        base: the base classes.
        origin: the dataset that they are from; its other classes are the real new ones.
        seed: for sources that draw.
        given: names that somebody gave instead; those that may not be seen are left out. A list
            with a provenance keeps it.
        count_tokens: tokens of a whole prompt with this name, as the method has it. Names that the
            model's context has no room for are left out, except the real new classes, which a
            prompt that cannot take them is of no use for.

    Raises:
        NovelNameError: as `novel_names`.
    """
    hidden = origin.hidden if origin else ()
    limit = clip.config.text.context_length

    def tokens(name: str) -> int:
        """With room for a short context, whatever the method needs."""
        least = len(clip.tokenizer.encode(name)) + 8
        return max(least, count_tokens(name)) if count_tokens else least

    if given is not None:
        listed = (
            given
            if isinstance(given, NovelList)
            else NovelList(class_names(given, "novel", empty=True), "given", GIVEN)
        )
        unseen = set(overlap(listed.names, hidden))
        visible = replace(
            listed,
            names=tuple(name for name in listed.names if name not in unseen),
            dropped=tuple(Dropped(name, IS_HIDDEN) for name in sorted(unseen)),
        )
        if count_tokens is not None:
            real = set(origin.other_classes or ()) if origin else set()
            visible = _fitting(visible, count_tokens, limit, real)
        return _told_apart(visible, base, clip)
    if sar.novel_count == 0 or sar.novel == "none":
        return NovelList((), "none")
    listed_names = novel_names(
        sar.novel,
        base,
        n=sar.novel_count,
        seed=seed,
        dataset=re.split("[:@]", origin.dataset)[0] if origin else "",
        new=origin.other_classes if origin else None,
        hidden=hidden,
        keep_overlap=sar.keep_overlap,
        encode=lambda texts: clip.encode_texts(texts).cpu(),
        count_tokens=tokens,
        max_tokens=limit,
    )
    return _told_apart(listed_names, base, clip)


def _fitting(
    listed: NovelList, count_tokens: Callable[[str], int], most: int, kept: Container[str]
) -> NovelList:
    """The list without names whose prompt has more than `most` tokens; those in `kept` stay."""
    counts = {name: count_tokens(name) for name in listed.names if name not in kept}
    long = [Dropped(name, too_long(n, most)) for name, n in counts.items() if n > most]
    if not long:
        return listed
    left_out = {item.name for item in long}
    return replace(
        listed,
        names=tuple(name for name in listed.names if name not in left_out),
        dropped=(*listed.dropped, *long),
    )


def _told_apart(made: NovelList, base: Sequence[str], clip: CLIP) -> NovelList:
    """The list without names that are one text, for this model, with a base class or an earlier
    name."""
    reasons: dict[int, str] = {}
    for group in repeated([*base, *made.names], clip.tokenizer):
        reason = IS_BASE if group[0] < len(base) else TWICE
        reasons |= {position - len(base): reason for position in group[1:] if position >= len(base)}
    if not reasons:
        return made
    dropped = [
        Dropped(made.names[position], reason) for position, reason in sorted(reasons.items())
    ]
    return replace(
        made,
        names=tuple(name for position, name in enumerate(made.names) if position not in reasons),
        dropped=(*made.dropped, *dropped),
        provenance={
            **made.provenance,
            "left_out": [[entry.name, entry.reason] for entry in dropped],
        },
    )


def filled_up(
    names: Sequence[str],
    sar: SAR,
    clip: CLIP,
    base: Sequence[str],
    origin: Origin | None,
    *,
    seed: int = 0,
) -> NovelList:
    """All of `names`, and if they are fewer than `sar.novel_count` as many from `sar.novel`.

    A handful of names is too few to hold the space of texts in place. The other arguments are
    those of `names_of_run`.

    Raises:
        NovelNameError: as `novel_names`.
    """
    names = class_names(names, "novel names", empty=True)
    about = {**GIVEN, "got": len(names)}
    room = sar.novel_count - len(names)
    if room <= 0:
        return NovelList(tuple(names), "given", about)
    filler = names_of_run(
        sar.model_copy(update={"novel_count": room}), clip, base, origin, seed=seed
    )
    given_keys = {name_key(name) for name in names}
    added = [name for name in filler.names if name_key(name) not in given_keys]
    filled = {**filler.provenance, "got": len(added)}
    return NovelList((*names, *added), f"given+{filler.source}", {"parts": [about, filled]})
