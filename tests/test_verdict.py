"""What `learn` says of itself: numbers by their definitions, and which classifier to take."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import simprompt
from shell import in_process
from shell import simprompt as simprompt_in_a_process
from simprompt import methods
from simprompt.cli.learn import command_with
from simprompt.clip import catalogue
from simprompt.data.names import odd_names
from simprompt.data.own_images import duplicates, folder
from simprompt.data.own_images.rows import Row
from simprompt.data.split import DatasetError, Split
from simprompt.metrics import accuracy, macro_accuracy
from simprompt.prompt import baselines
from simprompt.prompt.baselines import Baseline
from simprompt.training.divergence import DivergedError
from simprompt.utils.statistics import part_interval, sign_test

pytestmark = pytest.mark.integration


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
    good = [Baseline("coop", right), Baseline("zero-shot", zero)]
    _, told = baselines.sentences(good, labels)
    assert told.startswith("Take the prompt (coop)")
    bad = [Baseline("coop", zero), Baseline("zero-shot", right)]
    worse, take = baselines.sentences(bad, labels)
    assert "66.7 points worse than zero-shot here: learning did harm" in worse
    assert take.startswith("For these classes alone take zero-shot")
    probe = [Baseline("coop", zero), Baseline("linear-probe", right, any_name=False)]
    (told,) = baselines.sentences(probe, labels)
    assert "(100.0 % against 33.3 %)" in told
    assert "names without images, which linear-probe cannot answer" in told
    assert "nothing was measured" in baselines.sentences(good, labels[:0])[0]


def test_names_without_images_are_promised_by_what_can_take_them_alone():
    """From the learner's capability and from the figures, never from being the method trained."""
    labels = torch.tensor([0, 1, 2] * 8)
    right, third = answers(*labels.tolist()), answers(*[0] * 24)
    for mine, theirs in ((right, third), (third, right), (right, right)):
        closed = [Baseline("class-means", mine, any_name=False), Baseline("zero-shot", theirs)]
        told = " ".join(baselines.sentences(closed, labels))
        assert "without images" not in told.replace("these names mean little", "").split(
            "Answers for names without images")[0]  # fmt: skip
    most = answers(*[1, *labels.tolist()[1:]])
    able = [Baseline("coop", right), Baseline("zero-shot", most)]
    assert "takes names without images as well" in baselines.sentences(able, labels)[-1]
    against = ["On images of new classes zero-shot is right more often."]
    *told, last = baselines.sentences(able, labels, against)
    assert last == against[0]
    assert not any("without images" in one for one in told)
    chance = [Baseline("coop", right), Baseline("zero-shot", third)]
    *_, last = baselines.sentences(chance, labels)
    assert last == "Take the prompt (coop): it is best here."


def test_figures_against_new_names_are_said():
    labels = torch.tensor([0, 1, 2] * 8)
    right = Baseline("coop", answers(*labels.tolist(), of=5))
    lost = Baseline("coop", answers(*[3] * 20, *labels.tolist()[20:], of=5))
    (told,) = baselines.against_new_names(right, lost, labels, labels)
    assert "right on 16.7 % of these images instead of 100.0 %" in told
    assert baselines.against_new_names(right, right, labels, labels) == []
    assert baselines.against_new_names(right, None, labels, labels) == []
    zero = Baseline("zero-shot", right.probabilities)
    told = baselines.against_new_names(
        right, right, labels, labels, [("all", [lost, zero], labels), ("the new", [zero], labels)]
    )
    assert told == [
        "On images of new classes, among all, zero-shot is right more often (100.0 % against "
        "16.7 %): use zero-shot for names without images."
    ]


def test_what_is_better_for_sure_is_a_command(tmp_path):
    labels = torch.tensor([0, 1, 2] * 8)
    right, zero = answers(*labels.tolist()), answers(*[0] * 24)
    most = answers(*[1, *labels.tolist()[1:]])
    for mine, theirs, taken in [(zero, right, "class-means"), (right, zero, None),
                                (most, right, None)]:  # fmt: skip
        pair = [Baseline("coop", mine), Baseline("class-means", theirs, any_name=False)]
        assert baselines.surely_better(pair, labels) == taken
    assert baselines.surely_better(pair, labels[:0]) is None


def test_the_command_can_be_run(tmp_path):
    """It is read by the program itself, with what the user had said but for the method."""
    words = ["learn", "my photos", "--method", "coop", "--sar=on", "--set", "training.lr=0.1",
             "--new-classes", "n.txt", "--shots", "8", "--out", "a"]  # fmt: skip
    command = command_with(words, "class-means", Path("a"))
    assert command == (
        "simprompt learn 'my photos' --shots 8 --method class-means --out a-class-means"
    )
    open_one = shlex.split(command_with(words, "images+text", Path("a")))
    assert open_one[open_one.index("--new-classes") + 1] == "n.txt"
    done = in_process(*shlex.split(command)[1:])
    assert done.returncode == 2  # only the folder is not there
    assert "my photos" in done.stderr


def test_a_difference_that_may_be_chance_is_called_that():
    labels = torch.tensor([0, 1, 2] * 4)
    right, most = answers(*labels.tolist()), answers(*[1, *labels.tolist()[1:]])
    lost, take = baselines.sentences([Baseline("coop", most), Baseline("zero-shot", right)], labels)
    assert "8.3 points worse than zero-shot here, which on 12 images may be chance" in lost
    assert "though the difference may be chance" in take
    rest = [Baseline("zero-shot", most), Baseline("linear-probe", right)]
    (told,) = baselines.sentences([Baseline("coop", right), *rest], labels)
    assert "On 12 images zero-shot and linear-probe may be as good." in told


def test_a_rare_class_that_fails_is_said():
    rows = [{"name": "cat", "images": 400, "accuracy": 99.0},
            {"name": "lynx", "images": 4, "accuracy": 0.0}]  # fmt: skip
    said = baselines.imbalance(rows, 98.0, 49.5)
    assert "98.0 % of the images" in said
    assert "'lynx' (4 images" in said
    assert baselines.imbalance(rows[:1], 99, 99) is None
    common = {"name": "fox", "images": 300, "accuracy": 0.0}  # is no less plain for that
    assert "'lynx' (4 images" in baselines.imbalance([*rows, common], 60.0, 33.0)
    rows[1]["accuracy"] = 97.0
    assert baselines.imbalance(rows, 98.0, 98.0) is None


def test_mistakes_pairs_and_the_table_of_them():
    split = Split(("a.png", "b.png", "=c.png"), (0, 1, 2), ("cat", "dog", "=cmd"), lambda _: None)
    p = torch.tensor([[0.1, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.4]])
    rows = baselines.wrong(p, split, split.classnames)
    assert [(row["path"], row["truth"], row["answer"]) for row in rows] == [
        ("a.png", "cat", "dog"), ("=c.png", "=cmd", "dog")
    ]  # fmt: skip
    pairs = baselines.confusions([*rows, {**rows[0], "path": "d.png"}])
    assert (pairs[0]["truth"], pairs[0]["count"], pairs[0]["examples"]) == (
        "cat", 2, ["a.png", "d.png"]
    )  # fmt: skip
    more = baselines.wrong(p[:, [0, 1, 1]], split, ["dog", "fox", "cat"])  # whatever their order
    assert [(row["truth"], row["answer"]) for row in more] == [
        ("dog", "fox"), ("cat", "fox"), ("=cmd", "fox")
    ]  # fmt: skip
    table = [*csv.reader(io.StringIO(baselines.as_csv({"wrong": rows, "wrong_with_new": more})))]
    assert table[2][:2] == ["'=c.png", "'=cmd"]
    assert [line[-1] for line in table] == ["among", *["your classes"] * 2,
                                            *["with the new classes"] * 3]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["heli copter (2)", "sunflower flower final v2", "class 3", "0", "n02084071", "x",
             "a" * 41, "photo.zip", "cats copy"],
)  # fmt: skip
def test_odd_names(name):
    assert odd_names(
        [name, "golden retriever", "737-800", "BMW", "rock & roll", "Mercedes-Benz"]
    ) == [name]


def test_names_that_people_say_are_not_odd():
    """The words of copies and versions are odd at the end of a name, not in it."""
    said = ["old english sheepdog", "new york", "test tube", "v8 engine", "final fantasy",
            "copy machine", "crane, bird", "café", "T-shirt/top", "newfoundland"]  # fmt: skip
    assert odd_names(said) == []


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
    same = duplicates.find(parts, digests)
    assert same.tested == (("e", "a"),)
    assert same.contradictory == (("c", "dog", "a", "cat"),)
    told = " ".join(same.sentences())
    assert "1 test image is among the training images" in told
    assert "1 image lies under two classes" in told
    assert duplicates.find(parts, {}).sentences() == []


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


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(0, 5),
)
def test_holding_out_tears_no_image_apart_and_leaves_every_class_one(pairs, seed):
    """`pairs`: the label and the image of each row; few images, so most are there twice."""
    made = [Row(str(i), str(label)) for i, (label, _) in enumerate(pairs)]
    image = {str(i): str(number) for i, (_, number) in enumerate(pairs)}
    train, test = duplicates.hold_out(made, {str(label): label for label in range(4)}, image, seed)
    assert sorted([*train, *test]) == sorted(made)
    assert not {image[row.item] for row in train} & {image[row.item] for row in test}
    assert {row.name for row in train} == {row.name for row in made}
    under: dict[str, set[str]] = {}
    for row in made:
        under.setdefault(image[row.item], set()).add(row.name)
    for label in {row.name for row in made}:
        own = {i for i, names in under.items() if label in names}
        alone = [i for i in own if len(under[i]) == 1]
        tested = {image[row.item] for row in test if row.name == label}
        wanted = len(own) // 4 or (len(own) > 1)
        assert len(tested) == min(wanted, len(alone))


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
    assert "was not measured; pass --new-test-images FOLDER to measure it" in done.stdout
    for name in ("zero-shot", "class-means", "linear-probe", "tip-adapter", "coop+sar", "macro"):
        assert name in done.stdout
    done = in_process(*command, "--new-test-images", str(tmp_path / "new"), "--json")
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["contenders"]] == [
        "coop+sar", "zero-shot", "class-means", "linear-probe", "tip-adapter"
    ]  # fmt: skip
    measured = [key for key in result["accuracy"] if key.startswith("on 6 images of new classes")]
    assert len(measured) == 2
    assert all(set(result["accuracy"][key]) == {"coop+sar", "zero-shot"} for key in measured)
    out = tmp_path / "out"
    wrong = [*csv.DictReader((out / "wrong.csv").open(encoding="utf-8"))]
    assert len(wrong) == len(result["wrong"]) + len(result["wrong_with_new"])
    wrong = [row for row in wrong if row["among"] == "your classes"]
    everything = result["accuracy"]["with the new classes added"]["coop+sar"]
    assert 100 * len(result["wrong_with_new"]) == pytest.approx(
        (100 - everything) * result["test_images"]
    )
    right = sum(row["images"] for row in result["by_class"]) - len(wrong)
    assert result["contenders"][0]["accuracy"] == pytest.approx(100 * right / result["test_images"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(row["name"] in page for row in result["by_class"])
    assert page.count("data:image/png") == min(len(wrong), 24)
    twice = in_process(*command, "--new-test-images", str(drawings))
    assert twice.returncode == 2
    assert "images of new classes alone" in twice.stderr


METHODS = methods.names()


@pytest.mark.parametrize("method", METHODS)
def test_the_accuracy_that_is_said_is_that_of_predict(drawings, tmp_path, method):
    """Of the saved prompt, asked as `simprompt predict` asks it: of the files, among its names."""
    (tmp_path / "names.txt").write_text("bread\npizza\nknife", encoding="utf-8")
    known = methods.find(method)
    more = ["--new-classes", str(tmp_path / "names.txt")] if known.new_classes else []
    batch = [] if method in ("zero-shot", "class-means") else ["--set", "training.batch_size=12"]
    done = in_process(
        "learn", str(drawings), "--method", method, *more, *batch, "--sar", "off", "--shots", "4",
        "--set", "training.max_steps=4", "--no-calibrate", "--json", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    said = result["predicted"][0]
    prompt = simprompt.load_prompt(tmp_path / "out")
    test = folder.load(
        drawings, new_classes=["bread", "pizza", "knife"] if more else []
    ).dataset.test
    found = prompt.predict([str(drawings / item) for item in test.items])
    truth = [test.classnames[label] for label in test.labels]
    right = sum(one.name == name for one, name in zip(found, truth, strict=True))
    assert said["accuracy"] == pytest.approx(100 * right / len(test))
    page = (tmp_path / "out" / "prompt" / "README.md").read_text(encoding="utf-8")
    assert ("among any names" in page) == known.new_classes
    assert "it takes any name" not in " ".join(result["verdict"])


QUICK = ("--set", "training.epochs=1", "--no-calibrate", "--json")


def test_new_images_are_read_before_anything_is_learned(drawings, tmp_path):
    (tmp_path / "names.txt").write_text(f"{min(drawings.iterdir()).name} = thing", encoding="utf-8")
    new = tmp_path / "new" / "plate"
    new.mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(new / "0.png")
    (new / "notes.txt").write_text("no image", encoding="utf-8")
    command = ("learn", str(drawings), *QUICK, "--out", str(tmp_path / "out"))
    done = in_process(*command, "--new-test-images", str(tmp_path / "nowhere"))
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    done = in_process(*command, "--new-test-images", str(tmp_path / "new"),
                      "--rename", str(tmp_path / "names.txt"))  # fmt: skip
    result = json.loads(done.stdout)
    assert result["accuracy"]["on 1 images of new classes, among the new"]["zero-shot"] == 100
    assert result["new_images"]["unused_by_reason"] == {"not an image": 1}


def test_new_images_of_a_known_class_in_other_letters_are_refused(drawings, tmp_path):
    name = min(drawings.iterdir()).name
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in name if letter.isalpha())
    assert wide != name
    (tmp_path / "new" / wide).mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "new" / wide / "0.png")
    done = in_process("learn", str(drawings), *QUICK, "--out", str(tmp_path / "out"),
                      "--new-test-images", str(tmp_path / "new"))  # fmt: skip
    assert done.returncode == 2
    assert "which the prompt is learned on" in done.stderr


def test_new_images_that_are_learned_from_are_refused(drawings, tmp_path):
    (tmp_path / "new" / "plate").mkdir(parents=True)
    item = folder.load(drawings).dataset.train.items[0]
    shutil.copy(drawings / item, tmp_path / "new" / "plate" / "0.png")
    done = in_process("learn", str(drawings), *QUICK, "--out", str(tmp_path / "out"),
                      "--new-test-images", str(tmp_path / "new"))  # fmt: skip
    assert done.returncode == 2
    assert f"1 images that the prompt is learned on: plate/0.png is {item}" in done.stderr


def test_the_prompt_is_kept_whatever_fails_beside_it(drawings, tmp_path, monkeypatch):
    train_alone = baselines.train_alone

    def failing(ready):
        if ready.card["method"] == "linear-probe":
            raise DivergedError("the loss is NaN")
        return train_alone(ready)

    monkeypatch.setattr(baselines, "train_alone", failing)
    command = ("learn", str(drawings), *QUICK, "--out", str(tmp_path / "out"))
    result = json.loads(in_process(*command).stdout)
    warm_up, beside = result["warnings"]
    assert "which is the warm-up" in warm_up
    assert beside == "linear-probe could not be learned beside it: the loss is NaN"
    assert [row["name"] for row in result["contenders"]] == [
        "coop+sar", "zero-shot", "class-means", "tip-adapter"
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(baselines, "by_class", lambda *given: 1 / 0)
    done = in_process(*command)
    assert done.returncode == 3
    assert "This is a fault of simprompt" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr
    assert simprompt.load_prompt(tmp_path / "out" / "prompt")


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_file_names_that_are_no_utf8_are_written_and_printed(drawings, tmp_path, monkeypatch):
    first, second, third = sorted(drawings.iterdir())
    for number, path in enumerate([*second.iterdir(), *third.iterdir()]):  # to be mistaken
        os.rename(path, os.fsencode(first) + b"/\xff%d.png" % number)
    shutil.copytree(first, second, dirs_exist_ok=True)
    third.rmdir()
    for path in second.iterdir():
        path.write_bytes(path.read_bytes() + b"\0")  # no copies
    Path(os.fsdecode(os.fsencode(first) + b"/\xfe.txt")).write_text("no image", encoding="utf-8")
    done = in_process("learn", str(drawings), *QUICK, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["unused"][0]["path"] == f"{first.name}/\udcfe.txt"
    assert any((drawings / row["path"]).name.startswith("\udcff") for row in result["wrong"])
    assert all((drawings / row["path"]).exists() for row in result["wrong"])
    assert "\\udcff" in (tmp_path / "out" / "wrong.csv").read_text(encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")  # as in most people's locales
    printed = simprompt_in_a_process("check", str(drawings))
    assert f"{first.name}/\\udcfe.txt" in printed.stdout, printed.stderr


def test_a_classifier_of_images_has_no_use_for_new_images(drawings, tmp_path):
    more = ("--method", "linear-probe", "--new-test-images", "new", "--out", str(tmp_path))
    done = in_process("learn", str(drawings), *more)
    assert done.returncode == 2
    assert "leave the test images of new classes out" in done.stderr


@pytest.fixture
def noise(tmp_path) -> list[str]:
    """A `learn` of images that are no drawings."""
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("meadow", "beach"):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / name / f"{i}.jpg")
    return ["learn", str(tmp_path / "noise"), "--set", "training.epochs=1", "--no-calibrate",
            "--out", str(tmp_path / "out")]  # fmt: skip


def test_photographs_get_the_model_for_them_where_none_is_named(noise, drawings, tmp_path):
    done = in_process(*noise)
    assert done.returncode == 0
    assert 'The images look like photographs: using the model "photos"' in done.stdout
    result = json.loads((tmp_path / "out/result.json").read_text("utf-8"))
    assert result["model"] == "photos"
    assert result["unlike_the_model"] == 0
    assert simprompt.load_prompt(tmp_path / "out" / "prompt").clip.name == "photos"
    own = json.loads(
        in_process("learn", str(drawings), *QUICK, "--out", str(tmp_path / "own")).stdout
    )
    assert own["model"] == "icons"


@pytest.mark.parametrize("there", [True, False], ids=["named", "no extra"])
def test_photographs_on_the_icon_model_are_said(noise, there, tmp_path, monkeypatch):
    if there:
        noise += ["--model", "icons"]
    else:
        monkeypatch.setattr(catalogue.Embedded, "installed", False)
    done = in_process(*noise)
    assert done.returncode == 0
    assert "knows icons and not photographs" in done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text("utf-8"))
    assert result["unlike_the_model"] == 1
    assert "knows icons and not photographs" in result["warnings"][0]
    assert "knows icons and not photographs" in (tmp_path / "out/report.html").read_text("utf-8")


def test_names_that_mean_nothing_to_the_model_are_said_to() -> None:
    labels = torch.arange(40) % 4
    guess = answers(*((labels + torch.arange(40) // 4) % 4).tolist(), of=4)  # right on a quarter
    right = answers(*labels.tolist(), of=4)
    coop = Baseline("coop", right)
    told = " ".join(baselines.sentences([coop, Baseline("zero-shot", guess)], labels))
    assert "these names mean little to this model" in told
    assert "guessing on 25.0 %" in told
    told = " ".join(baselines.sentences([coop, Baseline("zero-shot", right)], labels))
    assert "mean little" not in told


def test_a_run_of_photographs_on_the_icon_model_is_said(noise, tmp_path):
    images = noise[1]
    more = ("--method", "zero-shot", "--seeds", "1", "--out", str(tmp_path / "runs"))
    done = in_process("run", "--dataset", images, *more)
    assert done.returncode == 0
    assert "knows icons and not photographs" in done.stderr
