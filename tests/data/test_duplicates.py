"""What is held out of somebody's own images where nothing says what to test on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from simprompt.data.own_images import folder
from simprompt.data.own_images.check import check_folder
from simprompt.data.own_images.duplicates import hold_out
from simprompt.data.own_images.rows import Row
from simprompt.data.split import DatasetError


def rows(*classes: int) -> list[Row]:
    """So many images for each class, class after class."""
    return [Row(f"{c}/{i}", str(c)) for c, count in enumerate(classes) for i in range(count)]


def held(made: list[Row], digests: dict[str, str], seed: int) -> set[str]:
    label_of = {row.name: int(row.name) for row in made}
    train, test = hold_out(made, label_of, digests, seed)
    assert train == [row for row in made if row not in test]
    assert test == [row for row in made if row in test]
    return {row.item for row in test}


@pytest.mark.parametrize(
    ("images", "tested"), [(1, 0), (2, 1), (3, 1), (4, 1), (7, 1), (8, 2), (40, 10)]
)
def test_a_quarter_of_each_class_is_tested_on_and_one_at_least_of_two(images, tested):
    assert len(held(rows(images), {}, 0)) == tested


def test_the_draw_is_python_s_own_class_after_class():
    made = rows(9, 4, 12)
    for seed in (0, 1, 2):
        rng = random.Random(seed)
        wanted: set[str] = set()
        for name, count in (("0", 2), ("1", 1), ("2", 3)):
            wanted |= set(rng.sample([row.item for row in made if row.name == name], count))
        assert held(made, {}, seed) == wanted
        assert held(made[13:] + made[:13], {}, seed) == wanted, "in the order of labels"


def test_copies_count_as_one_image_and_stay_together():
    made = rows(8)
    digests = {row.item: f"image {i // 2}" for i, row in enumerate(made)}
    for seed in range(4):
        out = held(made, digests, seed)
        assert len(out) == 2
        assert len({digests[item] for item in out}) == 1


def test_an_image_under_two_classes_is_never_tested_on():
    made = rows(2, 2)
    digests = {"0/0": "same", "1/0": "same"}
    assert all(held(made, digests, seed) == {"0/1", "1/1"} for seed in range(4))
    digests = {"0/0": "one", "1/0": "one", "0/1": "two", "1/1": "two"}
    assert held(made, digests, 0) == set()


@pytest.fixture
def blank(tmp_path: Path, monkeypatch) -> Path:
    """Four classes of four black pictures, no two files of the same bytes, and one drawing."""
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for row, name in enumerate(("ant", "bee", "cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(4):
            side = 40 + 8 * row + i
            Image.new("RGB", (side, side)).save(root / name / f"{i}.{'png' if i else 'bmp'}")
    Image.fromarray(np.eye(48, dtype=np.uint8) * 255).save(root / "ant" / "drawing.png")
    return root


def test_different_files_that_are_one_picture_are_reported(blank):
    for _ in range(2):  # from the files, and from the record
        own = folder.load(blank)
        (sentence,) = [note for note in own.notes if "identical after reading" in note]
        assert sentence.startswith("16 of 17 images are identical after reading")
        assert len(own.facts()["one_picture"]) == 1
        assert "ant/drawing.png" not in own.twins.pictures[0]
    with pytest.raises(DatasetError, match="16 of 17 images are identical"):
        folder.load(blank, strict=True)
    notes = [f for f in check_folder(blank).findings if "identical after reading" in f.what]
    assert [(f.kind, f.item) for f in notes] == [("note", "ant/0.bmp")]
    assert "15 of 17 images" in notes[0].what


def test_data_check_prints_it(blank):
    from simprompt.cli.main import app

    result = CliRunner().invoke(app, ["check", str(blank)])
    assert "16 of 17 images are identical after reading" in result.output


def test_copies_of_a_file_are_not_reported_as_one_picture(blank):
    for name in ("ant", "bee", "cat", "dog"):
        for path in (blank / name).iterdir():
            path.unlink()
        Image.fromarray(np.full((9, 9), ord(name[0]), np.uint8)).save(blank / name / "a.png")
        shutil.copyfile(blank / name / "a.png", blank / name / "b.png")
    own = folder.load(blank)
    assert not own.twins.pictures
    assert not any("identical" in f.what for f in check_folder(blank).findings)
