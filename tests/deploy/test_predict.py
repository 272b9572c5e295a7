"""`simprompt predict`: rows on stdout and nothing else, whatever lies among the images."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

import simprompt
from shell import in_process
from simprompt.clip.hub import load_clip
from simprompt.data.own_images import folder
from simprompt.deploy.files import Row, listed, texts
from simprompt.prompt.loading import load_prompt


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt for food, six drawings in two folders, and a file that is no image."""
    folder = tmp_path_factory.mktemp("predict")
    data = simprompt.load_dataset("icons/food")
    shots = data.base.few_shot(2, seed=1)
    prompt = simprompt.learn(load_clip("icons"), shots, training={"max_steps": 4})
    prompt.card["new_classes"] = ["teapot"]
    prompt.save(folder / "prompt")
    for part, rows in (("a", range(0, 120, 40)), ("b", range(120, 240, 40))):
        (folder / "images" / part).mkdir(parents=True)
        for row in rows:
            data.base.test.load(row).save(folder / "images" / part / f"{row}.png")
    (folder / "images" / "b" / "broken.png").write_text("no image", encoding="utf-8")
    (folder / "images" / "notes.txt").write_text("not listed", encoding="utf-8")
    (folder / "names.txt").write_text("pizza\nteapot\nbread\n", encoding="utf-8")
    return folder


def predict(place: Path, *arguments: str):
    return in_process("predict", str(place / "prompt"), *arguments)


def test_every_image_is_a_row_and_answers_are_those_of_python(place):
    result = predict(place, str(place / "images"), "--jsonl", "--top", "2")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0
    assert [Path(row["path"]).name for row in rows] == [
        "0.png", "40.png", "80.png", "120.png", "160.png", "200.png", "broken.png"
    ]  # fmt: skip
    assert "not an image" in rows[-1]["error"]
    assert "1 of 7 images could not be read" in result.stderr
    prompt = load_prompt(place / "prompt")
    for row in rows[:-1]:
        expected = prompt.predict(row["path"])
        assert row["name"] == expected.name
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-4)
        assert row["top"][0] == [row["name"], row["probability"]]
        assert len(row["top"]) == 2
    assert "teapot" in prompt.classes


@pytest.mark.parametrize(
    "names", [["--class", "pizza", "--class", "teapot", "--class", "bread"], ["--classes", "FILE"]]
)
def test_names_of_the_users_choice(place, names):
    names = [str(place / "names.txt") if name == "FILE" else name for name in names]
    result = predict(place, str(place / "images" / "a"), "--json", "--top", "9", *names)
    for row in json.loads(result.stdout):
        assert {name for name, _ in row["top"]} == {"pizza", "teapot", "bread"}
        assert sum(p for _, p in row["top"]) == pytest.approx(1, abs=1e-4)


def test_forms(place):
    image = str(place / "images" / "a")
    text = predict(place, image).stdout.splitlines()
    assert all(len(line.split("\t")) == 2 and line.endswith(" %") for line in text)
    table = [*csv.DictReader(io.StringIO(predict(place, image, "--csv", "--top", "2").stdout))]
    rows = json.loads(predict(place, image, "--json").stdout)
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    assert [row["class"] for row in table] == [row["name"] for row in rows]
    assert [*table[0]] == ["path", "class", "probability", "class_2", "probability_2", "error"]


def test_sources(place, monkeypatch):
    pattern = str(place / "images" / "*" / "*0.png")
    assert len(predict(place, pattern, "--jsonl").stdout.splitlines()) == 6
    some = [str(place / "images" / "a" / "0.png"), str(place / "images" / "a" / "40.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(some) + "\n\n"))
    rows = predict(place, "-", "--jsonl").stdout.splitlines()
    assert [json.loads(row)["path"] for row in rows] == some
    assert listed([some[0], some[0], some[1]]) == (some, [])
    missing = predict(place, str(place / "nowhere.png"), some[0], "--jsonl")
    assert [("error" in json.loads(r)) for r in missing.stdout.splitlines()] == [True, False]
    assert missing.returncode == 0
    nothing = predict(place, str(place / "nowhere.png"), "--jsonl")
    assert "error" in json.loads(nothing.stdout)
    assert nothing.returncode == 2
    assert "1 of 1 images could not be read. The rows say why." in nothing.stderr


def test_a_folder_is_read_as_learn_reads_it(place, tmp_path: Path):
    """By content, not suffix; what is not used is counted, as `learn` counts it."""
    images = tmp_path / "images"
    shutil.copytree(place / "images" / "a", images / "a")
    (images / "a" / "0.png").rename(images / "a" / "bare")
    (images / "a" / "40.png").rename(images / "a" / "photo.jfif")
    (images / "a" / "text.md").write_text("no image", encoding="utf-8")
    (images / ".hidden").mkdir()
    shutil.copy(images / "a" / "80.png", images / ".hidden" / "80.png")
    (images / "__MACOSX").mkdir()
    (images / "__MACOSX" / "._80.png").write_text("x", encoding="utf-8")
    (images / "link").symlink_to(images)
    result = predict(place, str(images), "--jsonl")
    found = {Path(json.loads(row)["path"]).name for row in result.stdout.splitlines()}
    assert found == {"bare", "photo.jfif", "80.png"}
    own = folder.load(images)
    assert found == {Path(item).name for item in own.dataset.train.items + own.dataset.test.items}
    for reason, count in own.facts()["unused_by_reason"].items():
        assert f"not used: {count} x {reason}" in result.stderr
    strict = predict(place, str(images), "--jsonl", "--strict")
    assert strict.returncode == 2
    assert "Without --strict" in strict.stderr
    assert not strict.stdout
    unreadable = predict(place, str(place / "images" / "b"), "--jsonl", "--strict")
    assert unreadable.returncode == 2
    assert len(unreadable.stdout.splitlines()) == 4


def test_unknown_images_and_copies(place, tmp_path: Path):
    result = predict(place, str(place / "images"), "--jsonl", "--reject-below", "1",
                     "--copy-to", str(tmp_path / "sorted"))  # fmt: skip
    names = {json.loads(row).get("name") for row in result.stdout.splitlines()}
    assert names == {"none of these", None}
    copied = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    assert copied == [
        f"sorted/none-of-these/{n}.png" for n in ("0", "120", "160", "200", "40", "80")
    ]
    again = predict(place, str(place / "images" / "a"), "--reject-below", "1",
                    "--copy-to", str(tmp_path / "sorted"))  # fmt: skip
    assert again.returncode == 0
    assert len([*tmp_path.rglob("*.png")]) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["IMAGES", "--csv", "--json"], "One form at a time"),
        (["IMAGES", "--reject-below", "2"], "from 0 to 1"),
        (["IMAGES", "--reject-below", "auto"], "not calibrated"),
        (["IMAGES", "--class", "a", "--class", "a"], "there twice"),
        (["IMAGES", "--class", "a", "--classes", "names.txt"], "the same thing"),
        (["/nowhere/*.png"], "No file matches"),
        (["IMAGES", "--copy-to", "FILE"], "is a file"),
    ],
)
def test_mistakes_are_said_in_one_paragraph(place, arguments, sentence):
    known = {"IMAGES": str(place / "images"), "FILE": str(place / "names.txt")}
    result = predict(place, *(known.get(one, one) for one in arguments))
    assert result.returncode == 2
    assert result.stdout == ""
    assert sentence in result.stderr


def test_what_a_file_is_called_is_never_obeyed():
    evil = "\x1b]0;title\x07=cmd|' /C calc'!A0.png"
    row = Row(path=evil, name="=1+1", probability=1.0, top=[["=1+1", 1.0]])
    (text,) = texts([row], "text", 1)
    assert "\x1b" not in text
    assert "\x07" not in text
    header, line = texts([Row(row, path="=a.png")], "csv", 1)
    assert header.startswith("path,class,probability")
    assert line.startswith("'=a.png,'=1+1,")
