"""Splits, the base/new rule, the few-shot draw: each against the field's rule written out."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simprompt.data.dataset import Dataset
from simprompt.data.split import DatasetError, Origin, Split, check_learnable
from simprompt.errors import SimpromptError
from simprompt.utils.notebook import html_table


def no_image(item: str) -> Image.Image:
    return Image.new("RGB", (2, 2))


def dataset(train: list[int], val: list[int] | None, n_classes: int, **kwargs) -> Dataset:
    names = tuple(f"class {i}" for i in range(n_classes))

    def split(labels: list[int], part: str) -> Split:
        items = tuple(f"{part}/{i}" for i in range(len(labels)))
        return Split(items, tuple(labels), names, no_image, **kwargs)

    return Dataset(
        name="toy",
        classnames=names,
        templates=("a photo of a {}.",),
        train=split(train, "train"),
        val=None if val is None else split(val, "val"),
        test=split(list(range(n_classes)) * 2, "test"),
    )


def field_draw(train, val, shots, seed):
    """The draw as CoOp's loaders make it: global generator, train first, then val."""
    random.seed(seed)
    drawn = []
    for rows, k in ((train, shots), (val, min(shots, 4))):
        by_label: dict[int, list] = {}
        for row in rows:
            by_label.setdefault(row[1], []).append(row)
        out = []
        for items in by_label.values():
            out.extend(random.sample(items, k) if len(items) >= k else items)
        drawn.append(out)
    return drawn


labels_of_any_size = st.integers(1, 9).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.integers(0, n - 1), max_size=60),
        st.lists(st.integers(0, n - 1), max_size=30),
    )
)


@given(labels_of_any_size, st.integers(1, 20), st.integers(0, 5))
def test_few_shot_draw_is_the_fields(case, shots, seed):
    n, train, val = case
    data = dataset(train, val, n)
    rows = list(zip(data.train.items, data.train.labels, strict=True))
    val_rows = list(zip(data.val.items, data.val.labels, strict=True))
    want, want_val = field_draw(rows, val_rows, shots, seed)
    middle = -(-n // 2)
    got, got_val = data.base.few_shot(shots, seed), data.base.few_shot_val(shots, seed)
    assert list(got.items) == [i for i, label in want if label < middle]
    assert list(got_val.items) == [i for i, label in want_val if label < middle]
    new = data.new.few_shot(shots, seed)
    assert list(zip(new.items, new.labels, strict=True)) == [
        (i, label - middle) for i, label in want if label >= middle
    ]


@given(labels_of_any_size)
def test_base_and_new_part_the_classes(case):
    n, train, _ = case
    data = dataset(train, None, n)
    assert len(data.base.classnames) == -(-n // 2)
    assert data.base.classnames + data.new.classnames == data.all.classnames == data.classnames
    for part in ("train", "test"):
        base, new, whole = (getattr(v, part) for v in (data.base, data.new, data.all))
        assert sorted(base.items + new.items) == sorted(whole.items)
        for view in (base, new):
            item_class = dict(zip(whole.items, whole.labels, strict=True))
            for item, label in zip(view.items, view.labels, strict=True):
                assert view.classnames[label] == whole.classnames[item_class[item]]


def test_images_are_loaded_only_when_asked_for():
    loaded = []

    def loader(item):
        loaded.append(item)
        return Image.new("RGB", (3, 3))

    split = Split(("a", "b"), (0, 1), ("x", "y"), loader)
    data = Dataset("toy", ("x", "y"), ("{}",), split, None, split)
    shots = data.base.few_shot(1)
    assert loaded == []
    assert shots.load(0).size == (3, 3)
    assert loaded == ["a"]


def test_rehearsal_tests_on_val_where_there_is_one():
    data = dataset([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3], 4)
    rehearsal = data.base.rehearsal()
    assert rehearsal.classnames == ("class 0", "class 1")
    assert rehearsal.test.items == ("val/0", "val/1")
    assert rehearsal.base.classnames + rehearsal.new.classnames == data.base.classnames


def test_rehearsal_keeps_groups_whole_and_leaves_test_alone():
    groups = tuple("aabbccddeeff")
    names = ("x", "y", "z")
    train = Split(tuple("0123456789AB"), (0,) * 4 + (1,) * 6 + (2,) * 2, names, no_image, groups)
    test = Split(("t0", "t1", "t2"), (0, 1, 2), names, no_image, tuple("ghi"))
    data = Dataset("toy", names, ("{}",), train, None, test)
    for seed in range(5):
        rehearsal = data.all.rehearsal(seed=seed)
        assert not set(rehearsal.train.groups) & set(rehearsal.test.groups)
        assert set(rehearsal.train.items) | set(rehearsal.test.items) == set(train.items)
        assert rehearsal.test.labels.count(0) == rehearsal.test.labels.count(1) == 2
        assert 2 not in rehearsal.test.labels  # a single drawing stays in training
    assert data.all.rehearsal(seed=1) == data.all.rehearsal(seed=1)


def test_rehearsal_without_groups_sets_a_quarter_aside():
    data = dataset([0] * 8 + [1] * 2 + [2], None, 3)
    test = data.all.rehearsal().test
    assert [test.labels.count(c) for c in range(3)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Split(("a",), (), ("x",), no_image), "one label an item"),
        (lambda: Split(("a",), (1,), ("x",), no_image), "'a' has label 1"),
        (lambda: Split(("a",), ("x",), ("x",), no_image), "'a', is 'x'. A label of a split is a"),
        (lambda: Split(("a",), (0,), "x", no_image), "classnames has to be a list of names"),
        (lambda: check_learnable((), 1, "It"), "It has no class; learning needs at least two"),
        (lambda: check_learnable(("cat",), 1, "It"), "It has one class, 'cat'; learning"),
        (lambda: check_learnable(("cat", "dog"), 0, "It"), "It has 2 classes and no image to"),
        (lambda: Split(("a",), (0,), ("x",), no_image, ("g", "h")), "one group an item"),
        (lambda: dataset([0], None, 1).base.few_shot(0), "at least 1 shot"),
    ],
)
def test_errors_say_what_is_wrong(make, words):
    with pytest.raises(DatasetError, match=words):
        make()


def test_two_classes_and_an_image_can_be_learned_from():
    check_learnable(("cat", "dog"), 1, "It")


@pytest.mark.parametrize("name", ["shots", "seed"])
def test_a_draw_takes_whole_numbers(name):
    view = dataset([0, 0], None, 1).base
    with pytest.raises(
        SimpromptError,
        match=rf"^few_shot\(\) takes a whole number as {name}, such as 16; got 'two'",
    ):
        view.few_shot(**{name: "two"})


def test_a_template_needs_a_place_for_the_name():
    split = Split((), (), ("x",), no_image)
    with pytest.raises(DatasetError, match=r"has no \{\}"):
        Dataset("toy", ("x",), ("a photo",), split, None, split)


PUBLISHED = json.loads(
    Path(__file__).with_name("published_draws.json").read_text(encoding="utf-8")
)["datasets"]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_lists_are_reproduced(name, seed):
    """Rows are known by their numbers: a draw depends on how many images each class has alone."""
    table = PUBLISHED[name]
    classnames = tuple(f"class {label}" for label in range(len(table["train"])))

    def split(part: str) -> Split:
        labels = [label for label, count in table[part] for _ in range(count)]
        rows = tuple(str(row) for row in range(len(labels)))
        return Split(rows, tuple(labels), classnames, no_image)

    data = Dataset(name, classnames, ("{}",), split("train"), split("val"), split("train"))
    for part, drawn in (
        ("train", data.all.few_shot(16, int(seed))),
        ("val", data.all.few_shot_val(16, int(seed))),
    ):
        rows = json.dumps([int(item) for item in drawn.items])
        assert hashlib.sha256(rows.encode()).hexdigest()[:16] == table["drawn"][seed][part]


# --- splits and datasets, every part of them -----------------------------------------------------

NAMES = ("x", "y", "z")


def rows_of(labels, groups=None, origin=None, names=NAMES) -> Split:
    items = tuple(f"i{row}" for row in range(len(labels)))
    return Split(items, tuple(labels), names, no_image, groups, origin)


def test_a_row_is_taken_with_all_that_belongs_to_it():
    split = rows_of([2, 0, 1], groups=("a", "b", "c"))
    taken = split.take(row for row in (2, 0, 2))
    assert taken.items == ("i2", "i0", "i2")
    assert taken.labels == (1, 2, 1)
    assert taken.groups == ("c", "a", "c")
    assert (taken.classnames, taken.loader) == (NAMES, no_image)
    assert rows_of([0]).take([0]).groups is None
    assert len(split) == 3
    assert len(taken.take([])) == 0


def test_restricted_rows_are_numbered_anew_in_the_order_of_the_labels():
    split = rows_of([0, 1, 2, 1, 0], groups=tuple("abcde"))
    made = split.restrict([2, 0])
    assert made.items == ("i0", "i2", "i4")
    assert made.labels == (1, 0, 1)
    assert made.groups == ("a", "c", "e")
    assert made.classnames == ("z", "x")


def test_rows_by_label_are_in_the_order_in_which_labels_occur():
    assert [*rows_of([2, 0, 2, 1, 0]).rows_by_label().items()] == [
        (2, [0, 2]),
        (0, [1, 4]),
        (1, [3]),
    ]


def test_labels_run_from_zero_to_the_last_name():
    assert rows_of([0, 2]).labels == (0, 2)
    for label in (-1, 3):
        with pytest.raises(DatasetError, match=f"label {label}, but .* from 0 to 2"):
            rows_of([0, label])


def test_a_split_says_what_it_is_and_shows_no_more():
    split = rows_of([0, 0, 1], groups=tuple("abc"))
    assert repr(split) == "<Split: 3 images, 3 classes: x, y, z>"
    origin = Origin("toy", "7", ("{}",))
    many = rows_of([0], origin=origin, names=("a", "b", "c", "d"))
    assert repr(many) == "<Split of toy: 1 images, 4 classes: a, b, c, ...>"
    assert (split.source, many.source) == ("", "toy@7")
    page = split._repr_html_()
    assert page == (
        "<p>Split: 3 images, 3 classes: x, y, z</p>"
        "<table><thead><tr><th>class</th><th>images</th></tr></thead><tbody>"
        "<tr><td>x</td><td>2</td></tr><tr><td>y</td><td>1</td></tr><tr><td>z</td><td>0</td></tr>"
        "</tbody></table>"
    )
    for value, name in ((split, "items"), (origin, "dataset")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, ())


def test_a_table_for_notebooks_escapes_and_has_an_end():
    page = html_table("<a & b>", ("<",), [(">",)])
    assert page == (
        "<p>a &amp; b</p><table><thead><tr><th>&lt;</th></tr></thead>"
        "<tbody><tr><td>&gt;</td></tr></tbody></table>"
    )
    assert html_table("X", (), ()).startswith("<p>X</p>")
    rows = [(i,) for i in range(102)]
    assert html_table("t", ("n",), rows).endswith(
        "<td>99</td></tr></tbody></table><p>and 2 more</p>"
    )
    assert html_table("t", ("n",), rows[:100]).endswith("<td>99</td></tr></tbody></table>")
    assert html_table("t", ("n",), rows, most=101).endswith("<p>and 1 more</p>")


def test_a_table_for_notebooks_has_bold_cells_and_a_note():
    page = html_table("t", ("a", "b"), [("<", 1), ("<", 2)], 1, bold={(0, 0), (1, 1)}, note="a < b")
    assert page.endswith(
        "<tr><td><b>&lt;</b></td><td>1</td></tr></tbody></table><p>and 1 more</p><p>a &lt; b</p>"
    )


def test_what_is_set_aside_is_python_s_own_draw_in_the_order_of_rows():
    labels = [0] * 9 + [1] * 3 + [2]
    for seed in (0, 1, 2):
        rng = random.Random(seed)
        held = {*rng.sample(range(9), 2), *rng.sample(range(9, 12), 1), *rng.sample([12], 0)}
        rest, aside = rows_of(labels).set_aside(seed)
        assert aside.items == tuple(f"i{row}" for row in sorted(held))
        assert rest.items == tuple(f"i{row}" for row in range(13) if row not in held)


def test_of_groups_one_of_each_class_is_set_aside():
    groups = ("b", "a", "b", "c", "d", "d", "e", "e")
    for seed in range(4):
        rng = random.Random(seed)
        held = {rng.choice(["a", "b", "c"])}  # the other two classes have one group
        rest, aside = rows_of([0, 0, 0, 0, 1, 1, 2, 2], groups=groups).set_aside(seed)

        assert set(aside.groups) == held
        assert set(rest.groups) == {*groups} - held


def of_everything(val: bool = True) -> Dataset:
    """A dataset whose every field says something."""
    return Dataset(
        name="toy", classnames=NAMES, templates=("a {}.", "the {}."),
        train=rows_of([0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0]),
        val=rows_of([0, 1, 2]) if val else None, test=rows_of([2, 1, 0, 0]),
        version="7", notes=("a note",), hidden=("secret",), unused=(("p", "broken"),),
    )  # fmt: skip


def test_a_dataset_says_what_it_is():
    data = of_everything()
    assert repr(data) == (
        "<Dataset toy: 3 classes: x, y, z; 11 images to learn from, 3 to validate, 4 to test>"
    )
    assert repr(of_everything(val=False)).endswith("; 11 images to learn from, 4 to test>")
    page = data._repr_html_()
    head = "<th>class</th><th>half</th><th>to learn from</th><th>to test</th>"
    assert head in page
    for cells in (("x", "base", 7, 2), ("y", "base", 2, 1), ("z", "new", 2, 1)):
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page
    said = "View base of toy: 2 classes: x, y; 9 images to learn from, 3 to test"
    assert repr(data.base) == f"<{said}>"
    assert data.base._repr_html_() == (
        f"<p>{said}</p><table><thead><tr><th>class</th><th>to learn from</th><th>to test</th></tr>"
        "</thead><tbody><tr><td>x</td><td>7</td><td>2</td></tr><tr><td>y</td><td>2</td><td>1</td>"
        "</tr></tbody></table>"
    )
    none = Dataset("toy", NAMES, ("{}",), rows_of([]), None, rows_of([]))
    assert none._repr_html_().count("<td>0</td><td>0</td>") == 3
    assert (none.version, none.notes, none.hidden, none.unused) == ("", (), (), ())
    for value in (data, data.base):
        with pytest.raises(FrozenInstanceError):
            value.name = "other"


def test_a_dataset_needs_templates_and_one_set_of_names():
    with pytest.raises(DatasetError, match="at least one template"):
        Dataset("toy", NAMES, (), rows_of([]), None, rows_of([]))
    other = rows_of([], names=("x", "y", "w"))
    same = rows_of([])
    for splits in ((other, None, same), (same, other, same), (same, same, other)):
        with pytest.raises(DatasetError, match="other class names"):
            Dataset("toy", NAMES, ("{}",), *splits)


def test_a_filter_keeps_items_and_all_else():
    data = of_everything()
    kept = data.filter(lambda item: item != "i0", name="part")
    assert (kept.name, data.filter(bool).name) == ("part", "toy")
    assert data.filter(bool, name="").name == ""
    assert kept.train.items == data.train.items[1:]
    assert kept.val.items == ("i1", "i2")
    assert kept.test.labels == (1, 0, 0)
    assert kept.hidden == data.hidden
    assert of_everything(val=False).filter(bool).val is None


def test_a_view_s_splits_know_where_they_come_from():
    data = of_everything()
    assert (data.base.name, data.new.name, data.all.name) == ("base", "new", "all")
    assert data.base.templates == data.templates
    origin = Origin("toy", "7", data.templates, ("z",), ("secret",))
    shots, shots_val = data.base.few_shot(2), data.base.few_shot_val(2)
    for split in (data.base.train, data.base.val, data.base.test, shots, shots_val):
        assert split.origin == origin
    assert data.new.train.origin.other_classes == ("x", "y")
    assert data.all.test.origin.other_classes == ()
    assert of_everything(val=False).base.val is None
    assert of_everything(val=False).base.few_shot_val() is None


def test_all_images_of_a_view_are_those_of_training_validation_and_test():
    data = of_everything()
    images = data.base.images
    parts = (data.base.train, data.base.val, data.base.test)
    assert images.items == tuple(item for part in parts for item in part.items)
    assert images.labels == tuple(label for part in parts for label in part.labels)
    assert images.classnames == ("x", "y")
    assert images.origin == data.base.test.origin
    assert images.loader is no_image
    assert len(of_everything(val=False).base.images) == 9 + 3


def test_a_draw_by_default_is_sixteen_shots_of_seed_one():
    data = dataset([0] * 40 + [1] * 40, [0] * 9 + [1] * 9, 2)
    for name in ("few_shot", "few_shot_val"):
        draw = getattr(data.base, name)
        assert draw() == draw(16, 1)
        assert draw() != draw(16, 2)
    assert len(data.base.few_shot()) == 16
    assert len(data.base.few_shot_val()) == 4
    assert len(data.base.few_shot_val(3)) == 3
    assert len(data.base.few_shot(1)) == 1
    with pytest.raises(DatasetError, match="at least 1 shot a class, got -1"):
        data.base.few_shot(-1)


def test_a_rehearsal_is_a_dataset_of_the_view_s_classes():
    data = of_everything()
    made = data.base.rehearsal()
    assert made.name == "toy:base-rehearsal"
    assert (made.classnames, made.templates) == (("x", "y"), data.templates)
    assert (made.version, made.notes, made.val) == ("7", ("a note",), None)
    assert made.hidden == ("z", "secret")
    assert (made.train, made.test) == (data.base.train, data.base.val)
    of_shots = data.base.rehearsal(shots=4, seed=2)
    rest, aside = data.base.few_shot(4, 2).set_aside(2)
    assert (of_shots.train, of_shots.test) == (rest, aside)
    without = of_everything(val=False)
    rest, aside = without.base.train.set_aside(0)
    assert (without.base.rehearsal().train, without.base.rehearsal().test) == (rest, aside)
    assert without.base.rehearsal(seed=3).test != without.base.rehearsal(seed=0).test
