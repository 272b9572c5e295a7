"""What is no label is refused with its row, wherever labels come in."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simprompt.data.labels import check_labels, is_missing, problem
from simprompt.data.own_images import folder
from simprompt.data.split import DatasetError, Split
from simprompt.errors import SimpromptError
from simprompt.prompt.sklearn import PromptClassifier

NONE_OF_THEM = [
    float("nan"), np.nan, np.float32("nan"), None, b"cat", 0.5, float("inf"), np.datetime64("NaT"),
    " ", "", ["cat"], {"a": 1}, Decimal("1"), ("cat",),
]  # fmt: skip


def missing_of_pandas() -> list[object]:
    pandas = pytest.importorskip("pandas")
    return [pandas.NA, pandas.NaT]


@pytest.mark.parametrize("value", NONE_OF_THEM, ids=repr)
def test_values_that_are_no_labels(value):
    with pytest.raises(SimpromptError, match=r"^y\[2\] is "):
        check_labels(["cat", 1, value])


def test_missing_values_of_pandas():
    for value in missing_of_pandas():
        assert problem(value) == "a missing value"


@given(st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans()))
def test_missing_is_what_pandas_calls_so(value):
    pandas = pytest.importorskip("pandas")
    assert is_missing(value) == bool(pandas.isna(value))


@pytest.mark.parametrize(
    "labels", [["a", "b"], [0, 1], [0.0, 1.0], [True, False], np.array([0, 1], np.uint8),
               np.array(["a", "b"])],
)  # fmt: skip
def test_what_is_a_label(labels):
    check_labels(labels)


@pytest.mark.parametrize("value", [float("nan"), None, b"cat", 0.5], ids=repr)
def test_fit_refuses_the_row(tiny_clip, value):
    images = [Image.new("RGB", (9, 9), (50 * i, 0, 0)) for i in range(4)]
    labels = ["dog", "cat", "dog", value]
    pandas = pytest.importorskip("pandas")
    for given_labels in (labels, pandas.Series(labels, dtype=object)):
        with pytest.raises(SimpromptError, match=r"y\[3\] is "):
            PromptClassifier(tiny_clip, sar=False).fit(images, given_labels)


@pytest.mark.parametrize("value", [0.5, {"a": 1}])
def test_a_table_refuses_the_row(tmp_path, value):
    rows = []
    for i, label in enumerate(["cat", "cat", value, "dog", "dog", None]):
        Image.new("RGB", (9, 9), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
        rows.append({"path": f"{i}.png", "label": label})
    table = tmp_path / "images.json"
    table.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"images\.json, entry 3: the label is"):
        folder.load(table)


@pytest.mark.parametrize("value", [0.5, None, float("nan"), "1", b"1"], ids=repr)
def test_a_split_refuses_the_row(value):
    with pytest.raises(DatasetError, match=r"labels\[1\], of the item 'b', is "):
        Split(("a", "b"), (0, value), ("cat", "dog"), lambda _: Image.new("RGB", (9, 9)))
    Split(("a", "b"), (np.int64(0), 1), ("cat", "dog"), lambda _: Image.new("RGB", (9, 9)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"new_classes": "zebra"}, "new_classes has to be a list"),
     ({"new_classes": [None]}, r"new_classes\[0\] has to be a class name"),
     ({"names": "zebra"}, "names has to be a dictionary"),
     ({"names": ["zebra"]}, "names has to be a dictionary")],
)  # fmt: skip
def test_a_text_is_no_list(tiny_clip, arguments, said):
    images = [Image.new("RGB", (9, 9), (50 * i, 0, 0)) for i in range(4)]
    with pytest.raises(SimpromptError, match=said):
        PromptClassifier(tiny_clip, sar=False, **arguments).fit(images, ["a cat", "dog"] * 2)
