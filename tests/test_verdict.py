"""What `learn` says of itself: numbers by their definitions, and which classifier to take."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import simprompt
from shell import in_process
from simprompt import verdict
from simprompt.data import folder, twins
from simprompt.data.dataset import DatasetError, Split
from simprompt.data.names import odd_names
from simprompt.data.rows import Row
from simprompt.evaluate import accuracy, macro_accuracy, part_interval, sign_test
from simprompt.verdict import Contender


def answers(*given: int, of: int = 3, sure: float = 0.9) -> torch.Tensor:
    rows = torch.full((len(given), of), (1 - sure) / (of - 1))
    rows[range(len(given)), list(given)] = sure
    return rows


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_interval_of_a_part_solves_wilsons_equation(count: int, more: int):
    n = max(count, more)
    low, high = (value / 100 for value in part_interval(count, n))
    assert 0 <= low <= count / n + 1e-12
    assert count / n - 1e-12 <= high <= 1
    for edge in (low, high):
        if 1e-9 < edge < 1 - 1e-9:  # |p - edge| = z sqrt(edge (1 - edge) / n)
            z = abs(count / n - edge) / math.sqrt(edge * (1 - edge) / n)
            assert z == pytest.approx(1.959963984540054, abs=1e-6)


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_sign_test_counts_all_ways_that_are_as_uneven(better: int, worse: int):
    n = better + worse
    even = [abs(bin(way).count("1") * 2 - n) for way in range(2**n)] if n <= 12 else None
    p = sign_test(better, worse)
    assert p == sign_test(worse, better) <= 1
    if even is not None and n:
        assert p == pytest.approx(sum(e >= abs(better - worse) for e in even) / 2**n)


def test_micro_and_macro():
    labels = torch.tensor([0] * 8 + [1] * 2)
    p = answers(*[0] * 10)
    assert accuracy(p, labels) == 80
    assert macro_accuracy(p, labels) == 50  # the third class has no image and does not count


def test_the_best_is_named_and_a_prompt_that_harms():
    labels = torch.tensor([0, 1, 2] * 8)
    right, zero = answers(*labels.tolist()), answers(*[0] * 24)
    good = [Contender("coop", right), Contender("zero-shot", zero)]
    (told,) = verdict.sentences(good, labels)
    assert told.startswith("Take the prompt (coop)")
    bad = [Contender("coop", zero), Contender("zero-shot", right)]
    worse, take = verdict.sentences(bad, labels)
    assert "worse than zero-shot here (surely)" in worse
    assert take.startswith("For these classes alone take zero-shot")
    probe = [Contender("coop", zero), Contender("linear-probe", right)]
    (told,) = verdict.sentences(probe, labels)
    assert "names without images, which linear-probe cannot answer" in told
    assert "nothing was measured" in verdict.sentences(good, labels[:0])[0]


def test_a_rare_class_that_fails_is_said():
    rows = [{"name": "cat", "images": 400, "accuracy": 99.0},
            {"name": "lynx", "images": 4, "accuracy": 0.0}]  # fmt: skip
    said = verdict.imbalance(rows, 98.0, 49.5)
    assert "98.0 % of the images" in said
    assert "'lynx' (4 images" in said
    assert verdict.imbalance(rows[:1], 99, 99) is None
    rows[1]["accuracy"] = 97.0
    assert verdict.imbalance(rows, 98.0, 98.0) is None


def test_mistakes_pairs_and_the_table_of_them():
    split = Split(("a.png", "b.png", "=c.png"), (0, 1, 2), ("cat", "dog", "=cmd"), lambda _: None)
    p = torch.tensor([[0.1, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.4]])
    rows = verdict.wrong(p, split)
    assert [(row["path"], row["truth"], row["answer"]) for row in rows] == [
        ("a.png", "cat", "dog"), ("=c.png", "=cmd", "dog")
    ]  # fmt: skip
    pairs = verdict.confusions([*rows, {**rows[0], "path": "d.png"}])
    assert (pairs[0]["truth"], pairs[0]["count"], pairs[0]["examples"]) == (
        "cat", 2, ["a.png", "d.png"]
    )  # fmt: skip
    table = [*csv.reader(io.StringIO(verdict.as_csv(rows)))]
    assert table[2][:2] == ["'=c.png", "'=cmd"]


@pytest.mark.parametrize(
    "name", ["heli copter (2)", "sunflower flower final v2", "class 3", "0", "n02084071", "x",
             "a" * 41, "photo.zip", "cats copy"],
)  # fmt: skip
def test_odd_names(name):
    assert odd_names(
        [name, "golden retriever", "737-800", "BMW", "rock & roll", "Mercedes-Benz"]
    ) == [name]


# ---- images that are there twice


def rows(**parts: str) -> dict[str, list[Row]]:
    """rows(train="a:cat b:dog") and so on."""
    return {
        part: [Row(*one.split(":")) for one in parts.get(part, "").split()]
        for part in ("train", "val", "test")
    }


def test_copies_are_found_across_splits_and_classes():
    parts = rows(train="a:cat b:dog c:dog", val="d:cat", test="e:cat f:dog")
    digests = {"a": "1", "b": "2", "c": "1", "d": "4", "e": "1", "f": "9"}
    same = twins.find(parts, digests)
    assert same.tested == (("e", "a"),)
    assert same.contradictory == (("c", "dog", "a", "cat"),)
    told = " ".join(same.sentences())
    assert "1 test image is among the training images" in told
    assert "1 image lies under two classes" in told
    assert twins.find(parts, {}).sentences() == []


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    split = simprompt.load_dataset("icons/food").base.train
    for label, found in list(split.rows_by_label().items())[:3]:
        place = tmp_path / "photos" / split.classnames[label]
        place.mkdir(parents=True)
        for row in found[:8]:
            split.load(row).save(place / f"{row}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("seed", range(6))
def test_what_is_held_out_holds_no_copy_of_what_is_learned_from(drawings, seed):
    first, second, _ = sorted(drawings.iterdir())
    for number, path in enumerate(sorted(first.iterdir())[:4]):
        shutil.copy(path, first / f"copy{number}.png")
    shutil.copy(next(first.iterdir()), second / "elsewhere.png")
    own = folder.load(drawings, seed=seed)
    assert own.twins.tested == ()
    assert len(own.twins.contradictory) == 1
    learned = {own.digests[item] for item in own.dataset.train.items}
    tested = {own.digests[item] for item in own.dataset.test.items}
    assert tested
    assert not learned & tested


def test_copies_between_given_splits_are_said_and_strict_stops(drawings, tmp_path):
    root = tmp_path / "split"
    for part in ("train", "test"):
        shutil.copytree(drawings, root / part)
    own = folder.load(root)
    assert len(own.twins.tested) == 24
    assert any("24 test images are among the training images" in note for note in own.notes)
    assert any("24 test images" in note for note in own.dataset.notes)
    with pytest.raises(DatasetError, match="24 test images"):
        folder.load(root, strict=True)


# ---- the command


def test_learn_says_and_writes_what_came_out(drawings, tmp_path):
    names = simprompt.load_dataset("icons/food").new
    for label, found in list(names.test.rows_by_label().items())[:2]:
        place = tmp_path / "new" / names.classnames[label]
        place.mkdir(parents=True)
        for row in found[:3]:
            names.test.load(row).save(place / f"{row}.png")
    (tmp_path / "names.txt").write_text("\n".join(names.classnames[:3]), encoding="utf-8")
    command = ["learn", str(drawings), "--new-classes", str(tmp_path / "names.txt"), "--set",
               "training.epochs=3", "--no-calibrate", "--out", str(tmp_path / "out")]  # fmt: skip
    done = in_process(*command)
    assert done.returncode == 0, done.stderr
    assert "was not measured; --new-images FOLDER measures it" in done.stdout
    for name in ("zero-shot", "linear-probe", "tip-adapter", "coop+sar", "macro"):
        assert name in done.stdout
    done = in_process(*command, "--new-images", str(tmp_path / "new"), "--json")
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["contenders"]] == [
        "coop+sar", "zero-shot", "linear-probe", "tip-adapter"
    ]  # fmt: skip
    measured = [key for key in result["accuracy"] if key.startswith("on 6 images of new classes")]
    assert len(measured) == 2
    assert all(set(result["accuracy"][key]) == {"coop+sar", "zero-shot"} for key in measured)
    out = tmp_path / "out"
    wrong = [*csv.DictReader((out / "wrong.csv").open(encoding="utf-8"))]
    assert len(wrong) == len(result["wrong"])
    right = sum(row["images"] for row in result["by_class"]) - len(wrong)
    assert result["contenders"][0]["accuracy"] == pytest.approx(100 * right / result["test_images"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(row["name"] in page for row in result["by_class"])
    assert page.count("data:image/png") == min(len(wrong), 24)
    twice = in_process(*command, "--new-images", str(drawings))
    assert twice.returncode == 2
    assert "images of new classes alone" in twice.stderr


def test_photographs_on_the_icon_model_are_said(tmp_path):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("meadow", "beach"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            noise = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / name / f"{i}.jpg")
    done = in_process("learn", str(tmp_path / "photos"), "--set", "training.epochs=1",
                      "--no-calibrate", "--out", str(tmp_path / "out"))  # fmt: skip
    assert done.returncode == 0
    assert "knows icons and not photographs" in done.stderr
    assert json.loads((tmp_path / "out/result.json").read_text("utf-8"))["unlike_the_model"] == 1
