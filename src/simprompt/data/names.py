"""What your folders and labels are called, as words, and which of them are one class.

From a folder's name to words (`clean_name`):

1. Characters that nobody sees go; accents are composed (NFC).
2. A number that counts the classes goes: one with a full stop (``001.Black_footed_Albatross``), one
   that begins with 0 (``07_cat``), a WordNet id before a name (``n02085620-Chihuahua``); any other,
   ``1_circle``, only where all classes have one (`counted`).
3. Underscores, and hyphens between letters, are blanks.
4. CamelCase is split between humps, ``goldenRetriever``, ``StatueOfLiberty``, where the first and
   last have three letters or more, those between them two. So ``iPhone``, ``WiFi``, ``McDonalds``
   and ``eBay`` stay words; so do what begins with ``Mac`` (``MacBook``) and `ONE_WORD`. Capitals
   before a capitalised word are split off: ``USBStick``.
5. What was split, and words with one capital at their start, become lower case. CLIP reads lower
   case anyway; capitals that are kept (``BMW``, ``iPhone``) are for whoever reads the results.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simprompt.clip.same_text import canonical_text, check_name, join_names, repeated, visible
from simprompt.data.names_file import names_in
from simprompt.data.split import DatasetError
from simprompt.errors import SimpromptError
from simprompt.utils.files.text import text_of

ONE_WORD = frozenset(
    {"AirPods", "AliExpress", "AutoCAD", "BitCoin", "BlackBerry", "DoorDash", "DreamWorks"}
    | {"ExxonMobil", "FaceBook", "FaceTime", "FireFox", "GitHub", "GitLab", "HoloLens"}
    | {"InstaGram", "JavaScript", "LibreOffice", "MasterCard", "MineCraft", "MySpace", "NesCafe"}
    | {"OpenOffice", "PayPal", "PlayDoh", "PlayStation", "PowerPoint", "PowerShell", "QuickTime"}
    | {"SharePoint", "SketchUp", "SnapChat", "SoundCloud", "StarCraft", "ThinkPad", "TikTok"}
    | {"TypeScript", "WarCraft", "WhatsApp", "WordPress", "YouTube"}
)
"""Names in CamelCase that are one word all the same."""

_WNID = re.compile(r"n\d{8}[\s_.-]+(?=[^\W\d])")
_NUMBER = re.compile(r"(?:\d+\.[\s_.-]*|0\d*[\s_.-]+)(?=[^\W\d])")
_COUNT = re.compile(r"(\d+)[\s_.)-]+(?=[^\W\d])")
_NOTHING = re.compile(
    r"\d+([.,]\d+)?"  # 0, 10, 1.5
    r"|[nvar]\d{8}"  # n02084071, an id of WordNet
    r"|(class|cls|label|lbl|category|cat|type|group|cluster|species|object|obj|folder|dir|id|target"
    r"|item|tag|kind|sample|c|l|y)[\s.-]*\d+"
    r"|(class|cls|label|category|type|group|cluster|kind)[\s.-]+[a-z]"
    r"|(new|untitled|unnamed) (folder|class|label)( ?\(?\d+\)?)?"
    r"|(?=.*\d)(?=.*[a-f])[0-9a-f]{8,}"  # a hash
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # a UUID
    r"|[!-~]"  # one letter
)


@dataclass(frozen=True)
class Classes:
    """Folders and labels as classes.

    Args:
        names: the class names, in the order of the first folder of each.
        of: the place in `names` of each folder or label.
        notes: sentences on what was joined.
        chosen: folders and labels whose name the override file gives.
    """

    names: tuple[str, ...]
    of: dict[str, int]
    notes: tuple[str, ...] = ()
    chosen: frozenset[str] = frozenset()


def read_names(path: str | Path) -> list[str]:
    """Class names from a file, as words; `names_file` has the forms that it may have.

    Raises:
        SimpromptError: as `names_file.names_in`.
    """
    return [clean_name(name) for name in names_in(path)]


def clean_name(raw: str, counted: bool = False) -> str:
    """A folder's name as words, by the rules above.

    Args:
        counted: the classes are counted, see `counted`.

    >>> [clean_name(raw) for raw in ("Golden_Retriever", "goldenRetriever", "iPhone", "BMW")]
    ['golden retriever', 'golden retriever', 'iPhone', 'BMW']
    """
    text = unicodedata.normalize("NFC", visible(raw)).strip()
    text = _WNID.sub("", text, count=1) if _WNID.match(text) else text
    for number in (_NUMBER, _COUNT) if counted else (_NUMBER,):
        if match := number.match(text):
            text = text[match.end() :]
    text = re.sub(r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])", " ", text)
    return " ".join(_word(word) for word in text.split())


_ODD = (
    r"\(\d+\)$",  # "heli copter (2)"
    # "sunflower flower final v2"; not "old english sheepdog", "new york"
    r"\s\(?(copy|kopie|final|version|v\d+|new|old|neu|alt|tmp|temp|test|backup)\b\W*\d*\W*$",
    r"^(tmp|temp|test|misc|others?|unsorted|copy of\b.*)$",
    r"\.(zip|jpe?g|png|bak)$",
    r"[^\w\s'’,.&+/()-]",
)


def odd_names(names: Sequence[str]) -> list[str]:
    """Those that nobody would say: copies, versions, numbers, lone letters, very long ones."""
    return [
        name
        for name in names
        if len(name) > 40
        or says_nothing(name)
        or any(re.search(p, name, re.IGNORECASE) for p in _ODD)
    ]


def counted(raw: Sequence[str]) -> bool:
    """Whether all folders begin with numbers that count them: ``1_circle``, ``2_square``.

    No number is there twice or larger than twice their count, and the names differ without them:
    ``737-MAX`` and ``3-toed sloth`` are left alone.
    """
    matches = [_COUNT.match(name) for name in raw]
    numbers = {int(match[1]) for match in matches if match}
    cleaned = [clean_name(name, counted=True) for name in raw]
    return len(numbers) == len(raw) > 1 and max(numbers) <= 2 * len(raw) and not repeated(cleaned)


def says_nothing(name: str) -> bool:
    """Whether a class name is a number, a letter, an id or a word such as "class 3", of which CLIP
    knows nothing."""
    return _NOTHING.fullmatch(canonical_text(name)) is not None


def nothing_said(folders: Sequence[str]) -> list[str]:
    """The warning on classes whose names say nothing, as at most one sentence.

    Args:
        folders: what their folders or labels are called.
    """
    if not folders:
        return []
    examples = ", ".join(folders[:6]) + (", ..." if len(folders) > 6 else "")
    names = "class name says" if len(folders) == 1 else "class names say"
    return [
        f"{len(folders)} {names} nothing to CLIP, which learns from words: {examples}. Give words "
        f"with --rename FILE, lines such as `{folders[0]} = cat`."
    ]


def classes(raw: Sequence[str], file: str | Path | None = None) -> Classes:
    """The class of each folder or label: as the override file says, or made of words.

    Folders that the file gives one name are one class. One of them may have that name already.

    Raises:
        DatasetError: the file names other classes, or two classes are one text for CLIP.
    """
    renamed = _matched(overrides(Path(file)), raw, file) if file else {}
    numbers = counted(raw)
    names = [renamed.get(name) or clean_name(name, numbers) for name in raw]
    for name, folder in zip(names, raw, strict=True):
        if not canonical_text(name):
            raise DatasetError(f"The class {folder!a} has no name; give one with --rename.")
    targets = list(range(len(raw)))  # of each folder the first one of its class
    notes = []
    for positions in repeated(names):
        folders_of_name = [raw[position] for position in positions]
        if len([name for name in folders_of_name if name not in renamed]) > 1:
            raise DatasetError(
                f"{join_names(folders_of_name)} are "
                f"{'both' if len(folders_of_name) == 2 else 'all'} called "
                f"{canonical_text(names[positions[0]])!r} for CLIP, which cannot tell them apart. "
                "Name them in a file for --rename, lines `folder = name`: give them other names, "
                "or all of them one name to make them one class."
            )
        name = next(renamed[folder] for folder in folders_of_name if folder in renamed)
        notes.append(
            f"{join_names(folders_of_name)} are one class, {name!r}, as {Path(str(file)).name} "
            "says."
        )
        for position in positions:
            names[position], targets[position] = name, positions[0]
    labels = sorted(set(targets))
    return Classes(
        tuple(names[position] for position in labels),
        {folder: labels.index(targets[position]) for position, folder in enumerate(raw)},
        tuple(notes),
        frozenset(renamed),
    )


def overrides(path: Path) -> dict[str, str]:
    """Names by folder or label, of an override file.

    Raises:
        DatasetError: it is none.
    """
    try:
        text = text_of(path)
    except SimpromptError as error:
        raise DatasetError(str(error)) from None
    try:
        if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
            values = _object(text)
        else:
            values = _assignments(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f'{path} is not an override file: {error}. Write JSON {{"folder": "name"}}, or '
            "lines `folder = name`."
        ) from error
    for folder, name in values.items():
        check_name(name, f"The name of {folder!r:.100} in {path}")
    return {folder: visible(name).strip() for folder, name in values.items()}


def _object(text: str) -> dict[str, str]:
    """The names of a JSON object; a number is taken as its digits."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    for folder, name in values.items():
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"the name of {folder!r:.80} is {name!r:.80}")
    return {folder: str(name) for folder, name in values.items()}


def _assignments(text: str) -> dict[str, str]:
    """The names of lines `folder = name`; blank lines and lines that begin with # are skipped."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        folder, equals, name = (side.strip() for side in line.partition("="))
        if not equals:
            raise ValueError(f"line {number}, {line.strip()!r:.80}, has no equals sign")
        if values.get(folder, name) != name:
            raise ValueError(
                f"line {number}, {line.strip()!r:.80}, renames {folder!r:.80} once more"
            )
        values[folder] = name
    return values


def _matched(given: dict[str, str], raw: Sequence[str], file: str | Path | None) -> dict[str, str]:
    """The override file's names by folder; accents may be written in either Unicode form.

    Raises:
        DatasetError: it names folders that there are none of.
    """
    composed = {unicodedata.normalize("NFC", name): name for name in raw}
    matched = {
        key if key in raw else composed.get(unicodedata.normalize("NFC", key), ""): (key, name)
        for key, name in given.items()
    }
    if unknown := sorted(given.keys() - {key for folder, (key, _) in matched.items() if folder}):
        raise DatasetError(
            f"{file} renames {', '.join(unknown)}, of which there are no images. Classes: "
            f"{', '.join(raw)}."
        )
    return {folder: name for folder, (_, name) in matched.items()}


def _word(word: str) -> str:
    """A word of a name: split where it is CamelCase, in lower case unless its capitals matter."""
    spelling = "".join(
        run if not run.isalpha() else _split(run) for run in re.split(r"([^\W\d_]+)", word)
    )
    return " ".join(map(_lower, spelling.split()))


def _lower(word: str) -> str:
    """A name in capitals, with capitals inside or with digits keeps them."""
    return word.lower() if word.isalpha() and not any(c.isupper() for c in word[1:]) else word


def _split(run: str) -> str:
    """Letters, with blanks between the humps of CamelCase; see rule 4 of the module."""
    if run in ONE_WORD:
        return run
    return " ".join(map(_humps, re.sub(r"(?<=[A-Z]{2})(?=[A-Z][a-z]{2,})", " ", run).split()))


def _humps(run: str) -> str:
    starts = [i for i in range(1, len(run)) if run[i - 1].islower() and run[i].isupper()]
    humps = [run[i:j] for i, j in zip([0, *starts], [*starts, len(run)], strict=True)]
    long = min(len(humps[0]), len(humps[-1])) > 2 and min(map(len, humps)) > 1
    return " ".join(humps) if long and humps[0] != "Mac" else run
