"""Collect and draw the training icons: one array file a kind, one JSON line an image."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain import packs, words

SIZE = 56  # pixels; a little over the model's 48, so that rotated and scaled copies stay sharp
SAME_CUT = 2  # drawings of one (pack, noun, style): more are sizes or corner radii of one drawing
VALIDATION_PACKS = frozenset({"lets-icons"})  # the slice for choosing settings, never trained on

_SKIP_CATEGORY = re.compile(r"brand|logo|flag|currenc", re.I)
_SKIP_NAME = re.compile(
    r"\b(flag|flags|skin tone|skin|keycap|regional|indicator|logo|brand|emoji modifier|letter)\b"
)


@dataclass
class Record:
    """One training image: where it came from, what it shows, how it is drawn."""

    pack: str
    name: str
    names: list[str]  # noun phrases; the first is its own, the rest are aliases and tags
    style: str
    colour: bool
    row: int  # in `colour.npy` or `mono.npy`


def _candidates(prefix: str, cache: Path, dropped: set[str]) -> Iterator[packs.Icon]:
    seen: set[str] = set()
    cuts: Counter[tuple[str, str]] = Counter()
    for icon in packs.icons(prefix, cache, tags=True):
        names = (icon.noun, *icon.aliases)
        words_in = len(icon.noun.split())
        body = hashlib.sha1(icon.svg.encode()).hexdigest()
        if (
            not 1 <= words_in <= 4
            or len(icon.noun) < 3
            or body in seen
            or cuts[icon.noun, icon.style] >= SAME_CUT
            or _SKIP_NAME.search(icon.noun)
            or any(_SKIP_CATEGORY.search(c) for c in icon.categories)
            or words.mentions((*names, icon.name.replace("-", " ")), dropped)
        ):
            continue
        seen.add(body)
        cuts[icon.noun, icon.style] += 1
        yield icon


def _draw(job: tuple[str, bool]) -> npt.NDArray[np.uint8] | None:
    svg, colour = job
    try:
        rgba = packs.render(svg, SIZE)
    except (ValueError, OSError):
        return None
    coverage = rgba[..., 3].mean() / 255
    if not 0.01 < coverage < 0.99:  # empty, or a full square that shows nothing
        return None
    return rgba if colour else rgba[..., 3]


def collect(cache: Path) -> None:
    """Write `mono.npy` (uint8 [N, 56, 56], coverage), `colour.npy` ([M, 56, 56, 4]) and
    `records.jsonl`."""
    if (cache / "records.jsonl").exists():
        return
    dropped = words.drawn_words(cache)
    icons = [
        icon
        for pack in packs.PACKS.values()
        if pack.role == "train"
        for icon in _candidates(pack.prefix, cache, dropped)
    ]
    records: list[Record] = []
    images: dict[bool, list[npt.NDArray[np.uint8]]] = defaultdict(list)
    with multiprocessing.get_context("fork").Pool(min(4, os.cpu_count() or 1)) as pool:
        drawn = pool.imap(_draw, ((i.svg, i.colour) for i in icons), chunksize=256)
        for icon, image in zip(icons, drawn, strict=True):
            if image is None:
                continue
            rows = images[icon.colour]
            names = [icon.noun, *(a for a in icon.aliases if len(a.split()) <= 4 and len(a) > 2)]
            records.append(Record(icon.pack, icon.name, names, icon.style, icon.colour, len(rows)))
            rows.append(image)
    np.save(cache / "mono.npy", np.stack(images[False]))
    np.save(cache / "colour.npy", np.stack(images[True]))
    temporary = cache / "records.part"
    temporary.write_text("".join(json.dumps(asdict(r)) + "\n" for r in records), encoding="utf-8")
    os.replace(temporary, cache / "records.jsonl")


def read(cache: Path) -> list[Record]:
    """The records that `collect` wrote."""
    return [Record(**json.loads(line)) for line in (cache / "records.jsonl").open(encoding="utf-8")]
