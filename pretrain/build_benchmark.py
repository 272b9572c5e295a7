"""Builds the icon benchmark's assets (``src/simprompt/data/icons/``) from the held-out packs.

    python -m pretrain.build_benchmark

What it does, mechanically and the same on every run:

1. reads the written tables of ``benchmark_classes.py`` and checks that every emoji of the
   topics' Unicode subgroups is accounted for;
2. collects each class's icons from the held-out packs, by name only;
3. puts them into *design families* (packs that share drawings are one family) and keeps the
   classes that at least ``MIN_FAMILIES`` families have drawn;
4. renders them, ``SIZE`` pixels, one sprite sheet for each task and style of a pack (so that each
   file has one licence), writes ``index.json``, licence texts and ``ATTRIBUTION.md``.

It looks at no model and no accuracy. Packs come from npm, pinned to ``VERSIONS``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image

from pretrain import packs
from pretrain.benchmark_classes import CLASSES, LEFT_OUT, SUBGROUPS

OUT = Path(__file__).parents[1] / "src" / "simprompt" / "data" / "icons"
SIZE = 56
COLUMNS = 16
MIN_FAMILIES = 4  # three for training, one for testing
MIN_CLASSES, MAX_CLASSES = 24, 200

EMOJI_LIST = "emojibase-data"
VERSIONS = {
    "ph": "1.2.2",
    "fa6-solid": "1.2.4",
    "fa6-regular": "1.2.4",
    "fluent-emoji-flat": "1.2.6",
    "fluent-emoji-high-contrast": "1.2.6",
    "openmoji": "1.2.29",
    "emojione": "1.2.3",
    "emojione-monotone": "1.2.1",
    "fxemoji": "1.2.2",
}
EMOJI_PACKS = tuple(p for p in VERSIONS if p not in ("ph", "fa6-solid", "fa6-regular"))

# Sheets: name -> (pack, domain, suffix of the pack's icon names). "-line" sheets are redrawn from
# a colour pack: OpenMoji draws a black line over flat colours, and the line alone is the outline
# cut that its authors publish as well.
SHEETS = {
    "ph-regular": ("ph", "outline", ""),
    "ph-bold": ("ph", "outline", "-bold"),
    "ph-fill": ("ph", "filled", "-fill"),
    "ph-duotone": ("ph", "duotone", "-duotone"),
    "fa6-regular": ("fa6-regular", "outline", ""),
    "fa6-solid": ("fa6-solid", "filled", ""),
    "fluent-emoji-flat": ("fluent-emoji-flat", "colour", ""),
    "fluent-emoji-high-contrast": ("fluent-emoji-high-contrast", "filled", ""),
    "openmoji": ("openmoji", "colour", ""),
    "openmoji-line": ("openmoji", "outline", ""),
    "emojione": ("emojione", "colour", ""),
    "emojione-monotone": ("emojione-monotone", "filled", ""),
    "fxemoji": ("fxemoji", "colour", ""),
}
FAMILY = {pack: packs.PACKS[pack].group for pack, _, _ in SHEETS.values()}
TABLE_KEY = {
    "ph": "ph",
    "fa6-solid": "fa",
    "fa6-regular": "fa",
    "fxemoji": "fx",
    "openmoji": "om",
    "emojione": "eo",
    "emojione-monotone": "eo",
}
PH_WEIGHTS = ("-thin", "-light", "-bold", "-fill", "-duotone")


# Author, upstream, licence of the drawings as upstream states it, its text, a note. The texts in
# ``licences/`` are the upstream packs' own where their packages carry one (Phosphor, Font Awesome,
# OpenMoji); CC BY's legal code and, for Fluent, MIT's text under Microsoft's copyright line are
# the standard ones.
CREDITS = {
    "ph": (
        "Phosphor Icons (Helena Zhang, Tobias Fried)",
        "https://github.com/phosphor-icons/core",
        "MIT",
        "phosphor-MIT.txt",
        "",
    ),
    **dict.fromkeys(
        ("fa6-solid", "fa6-regular"),
        (
            "Fonticons, Inc.",
            "https://github.com/FortAwesome/Font-Awesome",
            "CC-BY-4.0",
            "CC-BY-4.0.txt",
            "Font Awesome Free 6.7.2; its own notice: `licences/fontawesome-free.txt`",
        ),
    ),
    **dict.fromkeys(
        ("fluent-emoji-flat", "fluent-emoji-high-contrast"),
        (
            "Microsoft Corporation",
            "https://github.com/microsoft/fluentui-emoji",
            "MIT",
            "fluent-emoji-MIT.txt",
            "",
        ),
    ),
    "openmoji": (
        "the OpenMoji contributors (HfG Schwäbisch Gmünd)",
        "https://openmoji.org",
        "CC-BY-SA-4.0",
        "CC-BY-SA-4.0.txt",
        "Adapted: `openmoji-line.png` keeps the black of the colour drawings only. These sheets "
        "and images made from them are under CC BY-SA 4.0 too.",
    ),
    **dict.fromkeys(
        ("emojione", "emojione-monotone"),
        (
            "EmojiOne, continued as EmojiTwo",
            "https://github.com/EmojiTwo/emojitwo",
            "CC-BY-4.0",
            "CC-BY-4.0.txt",
            "Version 2 of EmojiOne",
        ),
    ),
    "fxemoji": (
        "Mozilla Foundation (Firefox OS Emoji)",
        "https://github.com/mozilla/fxemoji",
        "CC-BY-4.0",
        "CC-BY-4.0.txt",
        "Upstream: code Apache-2.0, visual design CC BY 4.0; the npm wrapper names the first only",
    ),
}


# --- the tables ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassRow:
    """One line of the tables: a class, its emoji, and per pack the names it may also have."""

    name: str
    emoji: tuple[str, ...]
    extra: dict[str, tuple[str, ...]]
    not_by_name: frozenset[str]


def parse(table: str) -> Iterator[ClassRow]:
    """Lines of ``benchmark_classes.CLASSES``; the syntax is described there."""
    for line in re.sub(r"\n\s+", " ", table.strip()).splitlines():
        head, *joins = (part.strip() for part in line.split("|"))
        name, _, emoji = (part.strip() for part in head.partition("<"))
        extra, not_by_name = {}, set()
        for join in joins:
            pack, _, rest = join.partition(" ")
            words = rest.split()
            if "-" in words:
                not_by_name.add(pack)
            extra[pack] = tuple(w for w in words if w not in "+-")
        labels = tuple(e.strip() for e in emoji.split(",")) if emoji else (name,)
        yield ClassRow(name, labels, extra, frozenset(not_by_name))


@dataclass(frozen=True)
class Emoji:
    label: str
    code: str
    subgroup: str
    unicode_name: str

    @property
    def slugs(self) -> tuple[str, str]:
        return slug(self.label), slug(self.unicode_name)


def slug(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")


def read_emoji() -> dict[str, Emoji]:
    """CLDR short name -> emoji, for all emoji without skin tones or flags."""
    folder = packs.fetch_package(EMOJI_LIST)
    groups = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))["subgroups"]
    found = {}
    for row in json.loads((folder / "en" / "data.json").read_text(encoding="utf-8")):
        if "subgroup" not in row or "flag" in groups[str(row["subgroup"])]:
            continue
        code = row["hexcode"].lower().replace("-fe0f", "")
        # The name of a sequence's first sign is the sequence's own name only if it is alone.
        uni = unicodedata.name(row["emoji"][0], "") if "-" not in code else ""
        found[row["label"]] = Emoji(row["label"], code, groups[str(row["subgroup"])], uni)
    return found


def check_tables(emoji: dict[str, Emoji]) -> None:
    """Every emoji of the topics' subgroups is used once or left out with a reason.

    Raises:
        ValueError: naming each emoji that is missing, unknown or stands twice.
    """
    left_out = [e.strip() for text in LEFT_OUT.values() for e in text.split(",")]
    used = [label for table in CLASSES.values() for row in parse(table) for label in row.emoji]
    topics = {sub for subs in SUBGROUPS.values() for sub in subs.split()}
    wanted = {e.label for e in emoji.values() if e.subgroup in topics}
    told = used + left_out
    problems = {
        "in no class and not left out": wanted - set(told),
        "no such emoji": set(told) - set(emoji),
        "stands twice": {e for e in told if told.count(e) > 1},
    }
    if any(problems.values()):
        raise ValueError("; ".join(f"{k}: {sorted(v)}" for k, v in problems.items() if v))


# --- icons of a class ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PackIcons:
    """A pack by name, by code point where it says so, and by its aliases."""

    svg: dict[str, str]
    alias: dict[str, str]
    by_code: dict[str, str]

    def find(self, name: str) -> str | None:
        name = self.alias.get(name, name)
        return name if name in self.svg else None


def read_pack(prefix: str) -> PackIcons:
    got = packs.version(prefix)
    if got != VERSIONS[prefix]:
        raise ValueError(
            f"pack {prefix}: the benchmark is built from version {VERSIONS[prefix]}, the cache "
            f"has {got}. Put @iconify-json/{prefix}@{VERSIONS[prefix]} there, or bump VERSIONS."
        )
    folder = packs.fetch(prefix)
    data = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    turned = {"rotate", "hFlip", "vFlip"}
    alias = {a: e["parent"] for a, e in data.get("aliases", {}).items() if not turned & e.keys()}
    by_code = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
    return PackIcons({i.name: i.svg for i in packs.icons(prefix)}, alias, by_code)


def icons_of(row: ClassRow, emoji: dict[str, Emoji], pack: str, icons: PackIcons) -> list[str]:
    """Names of the pack's icons that belong to a class, in table order, each once."""
    key = TABLE_KEY.get(pack, "")
    names: list[list[str]] = []
    if key not in row.not_by_name:
        members = [emoji[label] for label in row.emoji]
        if pack == "fxemoji":
            names = [[s.replace("-", "") for s in e.slugs] for e in members]
        elif pack in EMOJI_PACKS:
            # By code point where the pack has a list of them, else by its name now or in Unicode.
            names = [[icons.by_code.get(e.code, ""), *e.slugs] for e in members]
        else:
            names = [[slug(row.name)], *([slug(e.label)] for e in members)]
    names += [[name] for name in row.extra.get(key, ())]
    if pack == "ph":  # "police-car-light" is the light weight of a police car, not its lamp.
        names = [[n for n in some if not n.endswith(PH_WEIGHTS)] for some in names]
    found = [next((f for f in map(icons.find, some) if f), None) for some in names]
    return list(dict.fromkeys(name for name in found if name))


def check_extra_names(row: ClassRow, icons: dict[str, PackIcons]) -> None:
    """A name written in a table must exist in its pack (else it is a slip of the pen)."""
    for key, sources in (("ph", ["ph"]), ("fa", ["fa6-solid", "fa6-regular"]), ("fx", ["fxemoji"])):
        for name in row.extra.get(key, ()):
            if not any(icons[s].find(name) for s in sources):
                raise ValueError(f"class {row.name}: {key} has no icon {name!r}")


@dataclass(frozen=True)
class Drawing:
    sheet: str
    icon: str
    family: str
    pixels: npt.NDArray[np.uint8]


def only_black(svg: str) -> str:
    """The SVG without its colours: what is black stays, all other paint becomes none."""
    root = ElementTree.fromstring(svg)

    def visit(node: ElementTree.Element, fill: str, stroke: str) -> None:
        fill, stroke = node.get("fill", fill), node.get("stroke", stroke)
        for attribute, paint in (("fill", fill), ("stroke", stroke)):
            node.set(attribute, paint if paint in ("#000", "#000000", "black") else "none")
        for child in node:
            visit(child, fill, stroke)

    visit(root, "#000", "none")
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    return ElementTree.tostring(root, encoding="unicode")


def draw(sheet: str, icon: str, svg: str) -> npt.NDArray[np.uint8] | None:
    """RGBA ``[SIZE, SIZE, 4]`` for a colour sheet, coverage ``[SIZE, SIZE]`` for the others.

    None where next to nothing is drawn (an OpenMoji without line, an empty icon).
    """
    if sheet == "openmoji-line":
        svg = only_black(svg)
    rgba = packs.render(svg, SIZE)
    alpha = rgba[..., 3]
    if np.mean(alpha) < 0.015 * 255:
        return None
    if SHEETS[sheet][1] == "colour":
        return rgba
    # 16 grey levels: 4 bits a pixel, and 0.2 (Phosphor's second tone) is one of them.
    return ((alpha.astype(np.uint16) + 8) // 17 * 17).astype(np.uint8)


def drawings_of(
    row: ClassRow, emoji: dict[str, Emoji], icons: dict[str, PackIcons]
) -> list[Drawing]:
    """All drawings of a class; the same picture under two names is taken once."""
    drawings, seen = [], set()
    for sheet, (pack, _, suffix) in SHEETS.items():
        for name in icons_of(row, emoji, pack, icons[pack]):
            full = icons[pack].find(name + suffix)
            if full is None:
                continue
            pixels = draw(sheet, full, icons[pack].svg[full])
            if pixels is None or (sheet, pixels.tobytes()) in seen:
                continue
            seen.add((sheet, pixels.tobytes()))
            drawings.append(Drawing(sheet, full, FAMILY[pack], pixels))
    return drawings


# --- writing ------------------------------------------------------------------------------------


def write_sheet(path: Path, cells: list[npt.NDArray[np.uint8]]) -> None:
    """Cells row by row, ``COLUMNS`` a row; a palette of 256 with alpha, or 16 grey levels."""
    rows = -(-len(cells) // COLUMNS)
    columns = min(COLUMNS, len(cells))
    sheet = np.zeros((rows * SIZE, columns * SIZE, *cells[0].shape[2:]), np.uint8)
    for i, cell in enumerate(cells):
        y, x = i // COLUMNS * SIZE, i % COLUMNS * SIZE
        sheet[y : y + SIZE, x : x + SIZE] = cell
    path.parent.mkdir(parents=True, exist_ok=True)
    if sheet.ndim == 3:
        image = Image.fromarray(sheet, "RGBA").quantize(256, method=Image.Quantize.FASTOCTREE)
        image.save(path, optimize=True)
    else:
        # Pillow writes 4 bits a pixel for a palette of 16; the palette is a grey ramp.
        image = Image.fromarray(sheet // 17, "P")
        image.putpalette([17 * (i // 3) for i in range(48)])
        image.save(path, optimize=True, bits=4)


def build(out: Path) -> dict[str, Any]:
    """Writes sheets and index below ``out``; returns the index."""
    emoji = read_emoji()
    check_tables(emoji)
    icons = {pack: read_pack(pack) for pack in VERSIONS}
    tasks: dict[str, Any] = {}
    for task, table in CLASSES.items():
        rows = sorted(parse(table), key=lambda row: row.name.lower())
        cells: dict[str, list[npt.NDArray[np.uint8]]] = {}
        classes: dict[str, Any] = {}
        for row in rows:
            check_extra_names(row, icons)
            drawings = drawings_of(row, emoji, icons)
            families = {d.family for d in drawings}
            if len(families) < MIN_FAMILIES:
                print(f"{task}: {row.name}: {len(families)} families, left out")
                continue
            entries = []
            for d in drawings:
                cells.setdefault(d.sheet, []).append(d.pixels)
                entries.append([d.sheet, len(cells[d.sheet]) - 1, d.icon])
            classes[row.name] = entries
        if not MIN_CLASSES <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"task {task} has {len(classes)} classes")
        for sheet, pixels in cells.items():
            write_sheet(out / task / f"{sheet}.png", pixels)
        tasks[task] = classes
        print(f"{task}: {len(classes)} classes, {sum(map(len, classes.values()))} drawings")
    digest = hashlib.sha256()
    for sheet in sorted(out.glob("*/*.png")):
        digest.update(sheet.read_bytes())
    index = {
        "digest": digest.hexdigest(),
        "size": SIZE,
        "columns": COLUMNS,
        "sheets": {
            sheet: {"pack": pack, "family": FAMILY[pack], "domain": domain}
            for sheet, (pack, domain, _) in SHEETS.items()
        },
        "packs": {pack: about(pack) for pack in VERSIONS},
        "tasks": tasks,
    }
    write_index(out / "index.json", index)
    (out / "ATTRIBUTION.md").write_text(attribution(index), encoding="utf-8")
    return index


def about(pack: str) -> dict[str, str]:
    author, source, licence, text, _ = CREDITS[pack]
    return {
        "title": packs.info(pack)["name"],
        "author": author,
        "source": source,
        "licence": licence,
        "text": text,
        "npm": f"@iconify-json/{pack}@{VERSIONS[pack]}",
    }


def attribution(index: dict[str, Any]) -> str:
    """Markdown: for each pack who drew it, under which licence, which files, what was changed."""
    lines = [
        "# Who drew these icons",
        "",
        "Written by `python -m pretrain.build_benchmark`. Each PNG holds drawings of one pack and",
        "stays under that pack's licence. Changes: rendered at "
        f"{index['size']} x {index['size']} pixels, reduced to 256",
        "colours or 16 grey levels, arranged in sheets; where noted, redrawn. The library restyles",
        "them further at run time. No pack's authors endorse this package.",
        "",
    ]
    for pack, credit in index["packs"].items():
        files = ", ".join(
            f"`*/{sheet}.png`" for sheet, row in index["sheets"].items() if row["pack"] == pack
        )
        note = CREDITS[pack][4]
        lines += [
            f"## {credit['title']}",
            "",
            f"- Drawn by {credit['author']}: <{credit['source']}>, taken from npm {credit['npm']}",
            f"- Licence {credit['licence']}: `licences/{credit['text']}`",
            f"- Files: {files}",
            *([f"- {note}"] if note else []),
            "",
        ]
    return "\n".join(lines)


def write_index(path: Path, index: dict[str, Any]) -> None:
    """One line a class: small, and a diff shows which class changed."""
    tasks = index["tasks"]
    head = json.dumps({**index, "tasks": None}, indent=1, ensure_ascii=False)
    lines = [
        f"  {json.dumps(task)}: {{\n"
        + ",\n".join(
            f"   {json.dumps(name, ensure_ascii=False)}: {json.dumps(rows, separators=(',', ':'))}"
            for name, rows in classes.items()
        )
        + "\n  }"
        for task, classes in tasks.items()
    ]
    body = "{\n" + ",\n".join(lines) + "\n }"
    path.write_text(head.replace('"tasks": null', '"tasks": ' + body) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    for task in CLASSES:
        shutil.rmtree(out / task, ignore_errors=True)
    build(out)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
