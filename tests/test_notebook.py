"""docs/example.ipynb: a notebook as Jupyter writes it, with the outputs that its cells have now."""

from __future__ import annotations

import base64
import io
import re
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

import notebook

pytestmark = pytest.mark.integration

ACCURACY = re.compile(r"(?<![\d.])\d+\.\d(?!\d)")  # in percent, as it is written
POINTS = 2.0
"""How far an accuracy may be on another machine, whose sums round otherwise."""
STORED = notebook.read()
CODE = [cell for cell in STORED["cells"] if cell["cell_type"] == "code"]
KEYS = {
    "markdown": {"cell_type", "id", "metadata", "source"},
    "code": {"cell_type", "id", "metadata", "source", "execution_count", "outputs"},
    "stream": {"output_type", "name", "text"},
    "execute_result": {"output_type", "execution_count", "metadata", "data"},
}


@pytest.fixture(scope="module")
def again() -> list[dict[str, Any]]:
    """The cells with code, run now."""
    cells = notebook.executed(STORED)["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def alike(one: str, other: str) -> bool:
    """Whether two outputs have the same words, and accuracies that are near."""
    texts = [one, other]
    words, other_words = (ACCURACY.sub("%", text).split() for text in texts)
    numbers = zip(*([float(n) for n in ACCURACY.findall(text)] for text in texts), strict=False)
    return words == other_words and all(abs(a - b) <= POINTS for a, b in numbers)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("base 42.8 % of 16", True),
        ("base  9.8 % of 16", False),
        ("base 44.7 % of 16", True),
        ("base 42.8 % of 17", False),
        ("new 42.8 % of 16", False),
        ("base 42.8 % of 16 41.1", False),
    ],
)
def test_what_is_alike(other, expected):
    assert alike("base 42.8 % of 16", other) == expected


def pixels(png: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.asarray(image).astype(int)


def test_it_is_written_as_jupyter_writes_it():
    assert notebook.NOTEBOOK.read_text(encoding="utf-8") == notebook.as_text(STORED)
    assert set(STORED) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (STORED["nbformat"], STORED["nbformat_minor"]) == (4, 5)
    assert STORED["metadata"]["kernelspec"] == {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    ids = [cell["id"] for cell in STORED["cells"]]
    assert all(re.fullmatch(r"[\w-]{1,64}", name) for name in ids)
    assert len(set(ids)) == len(ids)
    for cell in STORED["cells"]:
        assert set(cell) == KEYS[cell["cell_type"]]
        *lines, last = cell["source"]
        assert all(line.endswith("\n") for line in lines)
        assert last.strip()
        assert not last.endswith("\n")


def test_its_cells_were_run_in_order():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert 8 <= len(CODE) <= 12
    for cell in CODE:
        assert cell["outputs"]
        for output in cell["outputs"]:
            assert set(output) == KEYS[output["output_type"]]
            assert output.get("execution_count", cell["execution_count"]) == cell["execution_count"]


@pytest.mark.parametrize("number", range(len(CODE)))
def test_a_cell_shows_what_it_showed(number, again):
    stored, made = CODE[number]["outputs"], again[number]["outputs"]
    assert [o["output_type"] for o in stored] == [o["output_type"] for o in made]
    for before, now in zip(stored, made, strict=True):
        forms, forms_now = (o.get("data", {"text": o.get("text")}) for o in (before, now))
        assert forms.keys() == forms_now.keys()
        for form, shown in forms.items():
            if form == "image/png":  # another Pillow may round and compress otherwise
                difference = pixels(shown) - pixels(forms_now[form])
                assert np.abs(difference).max() <= 8
            else:
                text, text_now = "".join(shown), "".join(forms_now[form])
                assert alike(text, text_now), f"`make notebook`: {text_now}"


def test_what_it_says_of_its_table_is_so():
    (html,) = (
        "".join(output["data"]["text/html"])
        for cell in CODE if cell["id"] == "table" for output in cell["outputs"]
    )  # fmt: skip
    rows = [[float(n) for n in ACCURACY.findall(row)] for row in html.split("<tr>")[2:]]
    (base, new, h), (coop_base, coop_new, coop_h), (_, sar_new, sar_h) = rows
    assert 0 < coop_base - base < new - coop_new
    assert coop_h < h
    assert coop_new < sar_new < new
    assert coop_h < sar_h


def test_a_cell_is_run_as_jupyter_runs_it(capsys):
    source = ["import sys\n", "print('a')\n", "print('b', file=sys.stderr)\n", "x = [1]\n", "x"]
    quiet = {"cell_type": "code", "source": ["x.append(2)"]}
    shown = {"cell_type": "code", "source": source}
    address = {"cell_type": "code", "source": ["print(x)\n", "object()"]}
    made = notebook.executed({"cells": [shown, {"cell_type": "markdown"}, quiet, address]})
    first, words, second, third = made["cells"]
    assert words == {"cell_type": "markdown"}
    assert first["outputs"][0]["text"] == ["a\n"]
    assert first["outputs"][1]["data"] == {"text/plain": ["[1]"]}
    assert (second["execution_count"], second["outputs"]) == (2, [])
    assert third["outputs"][0]["text"] == ["[1, 2]\n"]
    assert third["outputs"][1]["data"] == {"text/plain": ["<object object>"]}
    assert capsys.readouterr() == ("", "b\n")
    assert "x" not in vars(sys.modules["__main__"])
