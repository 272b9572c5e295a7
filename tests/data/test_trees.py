"""Random folder trees: what `folder.load` makes of them, against a plain model of the rules.

The model is written on sets of paths, apart from the reader. Ten thousand trees:

    python -m pytest -m slow tests/data/test_trees.py
"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from simprompt.data.own_images import folder
from simprompt.data.own_images.trees import part_of
from simprompt.data.split import DatasetError

PART = {"train": "train", "Train_Set": "train", "TEST": "test", "testing": "test", "val": "val",
        "valid-images": "val"}  # fmt: skip
JUNK = ("__MACOSX", ".cache", "@eaDir")
PLAIN = ("cat", "Cat", "sea lion", "archive", "figures")
FILES = ("1.png", "2.png", "cat.1.png", "cat.2.png", "dog_1.png", "dog_2.png", "notes.txt",
         ".DS_Store", "._1.png")  # fmt: skip

buffer = io.BytesIO()
Image.new("RGB", (2, 2)).save(buffer, "PNG")
PNG = buffer.getvalue()


@st.composite
def trees(draw) -> list[str]:
    """Paths of files: a layout such as people have, and a few files anywhere."""
    names = st.sampled_from((*PART, *JUNK, *PLAIN))
    some = st.lists(names, max_size=3, unique=True)
    wrapper = draw(st.lists(st.sampled_from(("archive", "shapes")), max_size=2))
    outer = draw(st.one_of(st.just(["train", "TEST"]), some)) or [""]
    inner = draw(st.lists(st.sampled_from(PLAIN), max_size=3, unique=True)) or [""]
    files = draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=3, unique=True))
    paths = {"/".join(filter(None, (*wrapper, *path))) for path in product(outer, inner, files)}
    noise = st.tuples(st.lists(names, max_size=3), st.sampled_from(FILES))
    for folders, file in draw(st.lists(noise, max_size=3)):
        paths.add("/".join((*folders, file)))
    return sorted(paths)


class RefusedError(Exception):
    """The model refuses the tree."""


def model(paths: list[str]) -> dict[str, tuple[str, str]]:
    """(part, class) of each file that is used; "" is the source itself.

    Raises:
        RefusedError: the tree cannot be understood.
    """

    def hidden(path: str) -> bool:
        return any(part.startswith(".") or part in JUNK for part in path.split("/"))

    images = [PurePosixPath(p) for p in paths if p.endswith(".png") and not hidden(p)]

    def below(place: PurePosixPath) -> list[PurePosixPath]:
        return [image for image in images if place in image.parents]

    def direct(place: PurePosixPath) -> list[PurePosixPath]:
        return [image for image in images if image.parent == place]

    def kids(place: PurePosixPath) -> list[PurePosixPath]:
        deep = {i.parts[len(place.parts)] for i in below(place) if i.parent != place}
        return [place / name for name in sorted(deep)]

    def splits(place: PurePosixPath) -> dict[PurePosixPath, str]:
        named = {kid: PART[kid.name] for kid in kids(place) if kid.name in PART}
        with_classes = {kid: part for kid, part in named.items() if kids(kid)}
        parts = set(named.values())
        if not parts or (len(parts) == 1 and not (with_classes and len(kids(place)) > 1)):
            return {}
        clear = len(named) == len(parts) and "train" in parts and len(parts) > 1
        if not clear or (with_classes and "train" not in with_classes.values()):
            raise RefusedError
        if not with_classes and len(kids(place)) > len(named):
            raise RefusedError
        return with_classes or named

    def inside(place: PurePosixPath) -> PurePosixPath:
        if direct(place) or len(kids(place)) != 1:
            return place
        (kid,) = kids(place)
        if not direct(kid) or len(kids(kid)) > 1:
            return inside(kid)
        return kid if not kids(kid) and spelled(direct(kid)) else place

    def spelled(those: list[PurePosixPath]) -> dict[str, str]:
        words = {str(i): i.name[:3] if i.name[0] in "cd" else "" for i in those}
        counts = Counter(words.values())
        return words if len(counts) > 1 and "" not in counts and min(counts.values()) > 1 else {}

    def of_classes(place: PurePosixPath, part: str) -> dict[str, tuple[str, str]]:
        return {str(i): (part, kid.name) for kid in kids(place) for i in below(kid)}

    root = PurePosixPath(".")
    if not images:
        raise RefusedError
    folders = {root} | {parent for image in images for parent in image.parents}
    chosen: list[tuple[PurePosixPath, dict[PurePosixPath, str]]] = []
    for depth in range(9):
        level = sorted(f for f in folders if len(f.parts) == depth)
        chosen = [(f, own) for f in level if (own := splits(f))]
        if chosen:
            break
    if len(chosen) > 1:
        raise RefusedError
    flat: dict[PurePosixPath, str]
    if chosen:
        place, own = chosen[0]
        rows = {}
        for kid, part in own.items():
            rows |= of_classes(kid if direct(kid) else inside(kid), part)
        flat = {} if any(kids(kid) for kid in own) else own
    else:
        place = inside(root)
        rows = of_classes(place, "train")
        flat = {} if kids(place) else {place: "train"}
    if flat:
        words = spelled([image for f in flat for image in direct(f)])
        if not words:
            raise RefusedError
        rows = {str(i): (part, words[str(i)]) for f, part in flat.items() for i in direct(f)}
    return joined(rows)


def joined(rows: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """One spelling a class, that of train; classes that train has none of are left out."""
    trained = {name for part, name in rows.values() if part == "train"}
    by_case = {name.lower(): name for name in trained}
    if not trained or len(by_case) < len(trained):
        raise RefusedError
    return {
        item: (part, name if name in trained else by_case[name.lower()])
        for item, (part, name) in rows.items()
        if name in trained or name.lower() in by_case
    }


def compare(paths: list[str], place: Path) -> None:
    for path in paths:
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG if path.endswith(".png") else b"no image")
    try:
        expected = model(paths)
    except RefusedError:
        with pytest.raises(DatasetError) as refusal:
            folder.load(place)
        assert str(place) in str(refusal.value) or "--rename" in str(refusal.value)
        return
    own = folder.load(place)
    data = own.dataset
    held_out = "test" not in {part for part, _ in expected.values()}
    rows = {}
    for part, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        for item, label in zip(split.items, split.labels, strict=True) if split else ():
            assert item not in rows, "used twice"
            rows[item] = ("train" if held_out and part == "test" else part, label)
    assert rows.keys() == expected.keys()
    assert {item: part for item, (part, _) in rows.items()} == {
        item: part for item, (part, _) in expected.items()
    }
    classes = sorted({name for _, name in expected.values()})
    assert {item: classes[label] for item, (_, label) in rows.items()} == {
        item: name for item, (_, name) in expected.items()
    }
    unused = [one.path for one in own.unused if not (place / one.path).is_dir()]
    assert sorted([*unused, *rows]) == sorted(paths), "each file is used, or listed once"
    assert len({part_of(name) for name in classes} - {None}) < 2, "splits taken for classes"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))


def check_many(number: int) -> None:
    @settings(max_examples=number, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(trees())
    @example(["TEST/Cat/1.png", "TEST/cat/1.png", "train/cow/1.png", "train/dog/1.png"])
    @example(["TEST/Cat/1.png", "TEST/cat/1.png", "train/cat/1.png", "train/dog/1.png"])
    def check(paths: list[str]) -> None:
        with tempfile.TemporaryDirectory() as place:
            compare(paths, Path(place) / "source")

    check()


def test_a_hundred_trees(cache):
    check_many(100)


@pytest.mark.slow
def test_ten_thousand_trees(cache):
    check_many(10_000)
