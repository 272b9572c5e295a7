"""A layout of somebody's own images is one file: recognised in order, read, and nothing else."""

from __future__ import annotations

import textwrap

import pytest
from PIL import Image

from simprompt.data import layouts
from simprompt.data.own_images import folder
from simprompt.data.split import DatasetError

FLAT = """
from pathlib import Path

from simprompt.data.images import FileLoader
from simprompt.data.own_images.rows import Reading, Row

ORDER = 40


def recognises(source, wanted):
    return (Path(source) / "flat").is_file()


def read(source, wanted):
    root = Path(source)
    images = sorted(root.glob("*.png"))
    rows = [Row(path.name, path.with_suffix(".label").read_text("utf-8")) for path in images]
    return Reading(source, FileLoader(root), {"train": rows, "val": [], "test": []})
"""


def test_the_order_is_stated_and_class_folders_are_last():
    orders = [layout.ORDER for layout in layouts.layouts()]
    assert orders == sorted(orders)
    assert layouts.layouts()[-1].__name__.endswith("class_folders")
    assert len(orders) >= 4


def test_a_layout_of_ones_own_is_one_file(tmp_path, monkeypatch):
    photos, more = tmp_path / "photos", tmp_path / "more"
    photos.mkdir()
    more.mkdir()
    for number in range(3):
        for name in ("cat", "dog"):
            stem = photos / f"{number}{len(list(photos.iterdir()))}"
            Image.new("RGB", (9, 9), (80 * number, 5, ord(name[0]))).save(f"{stem}.png")
            stem.with_suffix(".label").write_text(name, encoding="utf-8")
    (photos / "flat").touch()
    with pytest.raises(DatasetError, match="no class folders"):
        folder.load(photos)
    (more / "flat_names.py").write_text(textwrap.dedent(FLAT), encoding="utf-8")
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(more)])
    data = folder.load(photos).dataset
    assert data.classnames == ("cat", "dog")
    assert len(data.train) + len(data.test) == 6
