"""The shipped benchmark keeps the rules that its docstring states."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from simprompt.data import catalogue, icons
from simprompt.data.restyle import SIZE, STRENGTHS, restyle
from simprompt.data.split import DatasetError
from simprompt.errors import SimpromptError
from simprompt.novel.names import name_key

ASSETS = Path(str(files("simprompt.data"))) / "icons"
TASKS = icons.tasks()
each_task = pytest.mark.parametrize("name", TASKS)


def pixels(split, rows) -> np.ndarray:
    return np.stack([np.asarray(split.load(r)) for r in rows])


def test_number_and_size_of_tasks():
    assert len(TASKS) >= 6
    for name in TASKS:
        assert 24 <= len(icons.load(name).classnames) <= 200


@each_task
def test_class_names_are_distinct_words_in_order(name):
    names = icons.load(name).classnames
    assert len({n.lower() for n in names}) == len(names)
    assert list(names) == sorted(names, key=str.lower)
    for n in names:
        assert n == n.strip()
        assert 1 <= len(n.split()) <= 3
        assert "_" not in n


def test_no_class_stands_in_two_tasks():
    names = [n for task in TASKS for n in icons.load(task).classnames]
    assert len(set(names)) == len(names)


@each_task
def test_every_class_has_drawings_by_four_design_families(name):
    for some in icons.drawings(name.removeprefix("icons/")).values():
        assert len({d.family for d in some}) >= 4


@each_task
def test_no_drawing_is_on_both_sides(name):
    data = icons.load(name)
    assert not set(data.train.groups) & set(data.test.groups)
    # Neither the same sprite under another name.
    side = {}
    for split in (data.train, data.test):
        for item in split.items:
            drawing = item.rpartition("/")[0]
            assert side.setdefault(drawing, id(split)) == id(split)


@each_task
def test_no_test_drawing_looks_like_a_training_drawing(name):
    """Byte-equal sprites on both sides would be one drawing under two names."""
    task = name.removeprefix("icons/")
    for classname, some in icons.drawings(task).items():
        held_out = icons.families_for_test(task, classname, {d.family for d in some})
        sides: dict[bool, set[bytes]] = {True: set(), False: set()}
        for d in some:
            sides[d.family in held_out].add(icons._cells(task, d.sheet)[d.cell].tobytes())
        assert not sides[True] & sides[False]


@each_task
def test_sides_of_each_class(name):
    data = icons.load(name)
    for split, families in ((data.train, (3, 4)), (data.test, (1, 2))):
        groups = {label: set() for label in range(len(data.classnames))}
        for label, group in zip(split.labels, split.groups, strict=True):
            groups[label].add(group)
        assert all(families[0] <= len(g) <= families[1] for g in groups.values())
    assert data.train.labels.count(0) == icons.TRAIN_POOL
    per_class = {data.test.labels.count(c) for c in range(len(data.classnames))}
    assert len(per_class) == 1
    assert per_class.pop() >= 8


@each_task
def test_every_family_is_on_both_sides_of_the_task(name):
    data = icons.load(name)
    families = [{g.rpartition("/")[2] for g in s.groups} for s in (data.train, data.test)]
    assert families[0] == families[1]
    assert len(families[0]) == 6


@each_task
def test_sixteen_different_images_a_class(name):
    data = icons.load(name)
    shots = data.base.few_shot(16, seed=1)
    assert len(shots) == 16 * len(data.base.classnames)
    for rows in list(shots.rows_by_label().values())[::7]:
        assert len({image.tobytes() for image in pixels(shots, rows)}) == 16
        assert len({shots.groups[r] for r in rows}) >= 3


def test_seeds_draw_different_shots():
    base = icons.load(TASKS[0]).base
    assert base.few_shot(16, seed=1).items != base.few_shot(16, seed=2).items


def test_rehearsal_leaves_sixteen_shots_and_the_test_drawings_alone():
    for name in TASKS:
        data = icons.load(name)
        rehearsal = data.base.rehearsal()
        shots = rehearsal.base.few_shot(16, seed=1)
        assert len(shots) == 16 * len(rehearsal.base.classnames), name
        assert set(rehearsal.test.labels) == set(range(len(rehearsal.classnames)))
        assert not set(rehearsal.test.items) & set(data.test.items)


def test_an_image_does_not_depend_on_what_was_painted_with_it():
    data = icons.load(TASKS[0])
    some = [0, 5, 40, 70]
    together = pixels(data.train, some)
    fresh = icons.Painter(TASKS[0].removeprefix("icons/"), "plain")
    by_item = {}
    for drawings in icons.drawings(TASKS[0].removeprefix("icons/")).values():
        for drawing in drawings:
            for item, _ in fresh.add([(drawing, k) for k in range(12)]):
                by_item[item] = fresh
    for row, image in zip(some, together, strict=True):
        item = data.train.items[row]
        assert np.array_equal(np.asarray(by_item[item](item)), image)


def test_images_are_rgb_of_the_stated_size():
    image = icons.load(TASKS[0]).test.load(3)
    assert image.mode == "RGB"
    assert image.size == (SIZE, SIZE)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_restyling_gives_the_same_bytes_on_every_machine(strength):
    """Digests made once and written down: arithmetic is on integers, so they hold anywhere."""
    ramp = np.arange(56 * 56).reshape(1, 56, 56)
    mono = (ramp % 251).astype(np.uint8)
    rgba = np.stack([(ramp * k % 253) for k in (1, 3, 5, 7)], axis=-1).astype(np.uint8)
    digest = hashlib.sha256()
    for drawing in (mono, mono // 204 * 51, rgba):
        keys = [f"key {i}" for i in range(5)]
        digest.update(restyle(np.repeat(drawing, 5, axis=0), keys, STRENGTHS[strength]).tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[strength]


DIGESTS = {"plain": "925d9427a387414f", "strong": "ebb43105b7493e6d"}


@pytest.mark.parametrize("domain", icons.DOMAINS)
def test_domains_keep_classes_and_sides(domain):
    data = icons.load(TASKS[0])
    part = data.domain(domain)
    assert part.classnames == data.classnames
    assert part.name == f"{TASKS[0]}@{domain}"
    sheets = icons.index()["sheets"]
    for split, whole in ((part.train, data.train), (part.test, data.test)):
        assert len(split) > 0
        assert {sheets[item.split("/")[0]]["domain"] for item in split.items} == {domain}
        assert set(split.groups) <= set(whole.groups)


def test_strong_restyling_shows_the_same_drawings():
    data = icons.load(TASKS[0])
    strong = data.restyled("strong")
    assert strong.test.items == data.test.items
    assert np.any(np.asarray(strong.test.load(0)) != np.asarray(data.test.load(0)))
    both = data.domain("outline").restyled("strong")
    assert both.name == f"{TASKS[0]}@outline@strong"


def test_assets_are_small_and_licensed():
    size = sum(f.stat().st_size for f in ASSETS.rglob("*") if f.is_file())
    assert size <= 6 * 2**20
    attribution = (ASSETS / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for pack in icons.index()["packs"].values():
        text = ASSETS / "licences" / pack["text"]
        assert len(text.read_text(encoding="utf-8")) > 500
        assert pack["source"] in attribution
        assert pack["licence"] in attribution
    for sheet in ASSETS.glob("*/*.png"):
        assert f"`*/{sheet.name}`" in attribution


def test_the_digest_names_the_shipped_drawings():
    digest = hashlib.sha256()
    for sheet in sorted(ASSETS.glob("*/*.png")):
        digest.update(sheet.read_bytes())
    assert icons.index()["digest"] == digest.hexdigest()


def test_catalogue_knows_every_task():
    for name in TASKS:
        entry = catalogue.entries()[name]
        data = catalogue.load(name)
        assert (entry.n_classes, entry.n_train, entry.n_test) == (
            len(data.classnames),
            len(data.train),
            len(data.test),
        )
        assert entry.templates == data.templates
    assert catalogue.load(f"{TASKS[0]}@outline").name == f"{TASKS[0]}@outline"


@pytest.mark.parametrize("wrong", ["icons/animal", "animals", "nonsense", "../no/such/folder", ""])
def test_unknown_name_lists_near_ones(wrong):
    with pytest.raises(SimpromptError, match="There is no dataset") as caught:
        catalogue.load(wrong)
    assert "icons/animals" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_domain_is_an_error():
    with pytest.raises(DatasetError, match="is no domain"):
        icons.load(f"{TASKS[0]}@purple")


def test_shipped_classes_are_those_of_the_written_tables():
    build = pytest.importorskip("pretrain.build_benchmark", reason="not in a source checkout")
    assert tuple(f"icons/{task}" for task in build.CLASSES) == TASKS
    for task, table in build.CLASSES.items():
        written = {row.name for row in build.parse(table)}
        assert set(icons.drawings(task)) <= written
        assert set(icons.TOPICS) == set(build.SUBGROUPS) == set(build.CLASSES)


LISTS = Path(str(files("simprompt"))) / "novel" / "lists"


@each_task
def test_novel_list(name):
    data = icons.load(name)
    listed = json.loads((LISTS / f"{name.replace('/', '-')}.json").read_text(encoding="utf-8"))
    names = {name_key(n): n for n in listed["names"]}
    assert listed["dataset"] == name
    assert listed["provenance"].startswith("written for simprompt")
    assert len(listed["names"]) == len(names) == 200
    assert not names.keys() & {name_key(n) for n in data.base.classnames}
    new = {name_key(n) for n in data.new.classnames}
    overlap = [n for key, n in names.items() if key in new]
    assert listed["exact_overlap"] == {"count": len(overlap), "names": overlap}
