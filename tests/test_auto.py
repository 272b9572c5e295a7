"""What `auto` chooses: by images that were learned from, the same twice, and a form that can be had
by name."""

from __future__ import annotations

import json

import pytest
import torch
from benchmarks.answers import answers, as_csv, groups, summary
from hypothesis import given
from hypothesis import strategies as st

import simprompt
from shell import in_process
from simprompt.errors import SimpromptError
from simprompt.methods.closed_form import Form
from simprompt.prompt import choice as choices
from simprompt.prompt.choice import FOLDS, Measured, best, choose, difference, folds
from simprompt.prompt.sklearn import PromptClassifier
from simprompt.recipes import plan
from simprompt.utils.options import MethodOptions
from simprompt.workflow import learn_folder

pytestmark = pytest.mark.integration

TEMPLATE = "an icon of a {}."


@pytest.fixture(scope="module")
def clip():
    return simprompt.load_clip("icons")


@pytest.fixture(scope="module")
def data():
    return simprompt.load_dataset("icons/animals")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory, data):
    """Six classes of eight drawings."""
    root = tmp_path_factory.mktemp("choice") / "drawings"
    shots = data.base.few_shot(8, seed=1)
    for row, label in enumerate(shots.labels):
        if label < 6:
            place = root / shots.classnames[label]
            place.mkdir(parents=True, exist_ok=True)
            shots.load(row).save(place / f"{row}.png")
    return root


# ---- the rule


@given(
    right=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=5),
)
def test_a_tie_goes_to_the_first_and_nothing_else_does(right: list[list[bool]]) -> None:
    rows = [Measured(Form(share=i), torch.tensor(row).double()) for i, row in enumerate(right)]
    leader = max(rows, key=lambda row: row.accuracy)
    taken = best(rows)
    gap, error = difference(leader, taken)
    assert gap <= error
    for earlier in rows[: rows.index(taken)]:
        gap, error = difference(leader, earlier)
        assert gap > error


def test_the_standard_error_is_of_paired_differences() -> None:
    one = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).double()
    other = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0]).double()
    gap, error = difference(Measured(Form(), one), Measured(Form(), other))
    gaps = [0, 100, 0, 0, -100, 100, 0, 0]
    mean = sum(gaps) / 8
    variance = sum((g - mean) ** 2 for g in gaps) / 7
    assert gap == pytest.approx(mean)
    assert error == pytest.approx((variance / 8) ** 0.5)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    grouped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_folds_leave_every_class_something_to_learn_from(labels, grouped, seed) -> None:
    groups = [f"g{row % 3}" for row in range(len(labels))] if grouped else None
    fold_of = folds(labels, groups, seed).tolist()
    assert set(fold_of) <= {-1, *range(FOLDS)}
    for label in set(labels):
        rows = [row for row, own in enumerate(labels) if own == label]
        for fold in range(FOLDS):
            assert any(fold_of[row] != fold for row in rows)
        if groups:
            for name in set(groups):
                assert len({fold_of[row] for row in rows if groups[row] == name}) <= 1
        elif len(rows) > 1:
            assert all(fold_of[row] >= 0 for row in rows)


# ---- what has a say


def test_the_same_images_and_seed_choose_the_same_to_the_bit(clip, data) -> None:
    shots = data.base.few_shot(4, seed=1)
    one, two = (choose(clip, shots, TEMPLATE, 3, True) for _ in range(2))
    assert one.as_dict() == two.as_dict()
    for a, b in zip((*one.known, *one.new), (*two.known, *two.new), strict=True):
        assert torch.equal(a.right, b.right)


def test_every_candidate_is_measured_on_all_images_that_can_be_left_out(clip, data) -> None:
    shots = data.base.few_shot(4, seed=1)
    found = choose(clip, shots, TEMPLATE, 1, False)
    assert found.images == len(shots) == 104
    assert {len(one.right) for one in found.known} == {104}
    assert found.new == ()
    assert best(found.known).form == found.form
    assert found.form.map_new
    taken = next(one for one in found.known if one.form == found.form)
    assert f"right on {taken.accuracy:.1f} %" in found.sentence
    assert "; next " in found.sentence
    assert "+-" in found.sentence


def test_one_image_a_class_chooses_nothing_and_says_so(clip, data) -> None:
    found = choose(clip, data.base.few_shot(1, seed=1), TEMPLATE, 1, False)
    assert found.form == choices.FORMS[0]
    assert "as always where no class has two images" in found.sentence


def test_what_new_classes_are_and_how_they_look_changes_no_choice(drawings, tmp_path, data) -> None:
    options = {"calibrated": False, "model": "icons"}
    names = list(data.new.classnames[:4])
    images = tmp_path / "new"
    for row, label in enumerate(data.new.test.labels):
        if label < 4 and row % 4 == 0:
            place = images / data.new.classnames[label]
            place.mkdir(parents=True, exist_ok=True)
            data.new.test.load(row).save(place / f"{row}.png")
    one = learn_folder(drawings, tmp_path / "1", new_classes=names, new_images=images, **options)
    two = learn_folder(drawings, tmp_path / "2", new_classes=["teapot", "whisk"], **options)
    assert one.result["choice"] == two.result["choice"]
    state = [made.prompt.learner.state_dict() for made in (one, two)]
    assert all(torch.equal(value, state[1][key]) for key, value in state[0].items())


# ---- what it is


def test_auto_is_the_method_that_it_chose_to_the_bit(drawings, tmp_path) -> None:
    chosen = learn_folder(drawings, tmp_path / "auto", refit=False, calibrated=False)
    options = chosen.result["choice"]["options"]
    assert chosen.result["choice"]["method"] == "images+text"
    named = learn_folder(
        drawings, tmp_path / "named", method="images+text", calibrated=False,
        shots=333, settings={f"options.{key}": value for key, value in options.items()},
    )  # fmt: skip
    assert named.result["choice"] is None
    assert not named.result["refit"]
    assert chosen.accuracy == named.accuracy
    state = [made.prompt.learner.state_dict() for made in (chosen, named)]
    assert all(torch.equal(value, state[1][key]) for key, value in state[0].items())


def test_the_command_and_python_and_the_classifier_are_one(drawings, tmp_path) -> None:
    out = tmp_path / "shell"
    done = in_process("learn", str(drawings), "--no-calibrate", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    by_shell = json.loads(done.stdout)
    made = learn_folder(drawings, tmp_path / "python", calibrated=False)
    assert made.result["choice"] == by_shell["choice"]
    assert made.verdict[0] == by_shell["choice"]["sentence"] == by_shell["verdict"][0]
    prompts = [simprompt.load_prompt(out / "prompt"), made.prompt]
    state = [prompt.learner.state_dict() for prompt in prompts]
    assert all(torch.equal(value, state[1][key]) for key, value in state[0].items())
    assert made.result["choice"]["sentence"] in (tmp_path / "python/report.html").read_text(
        "utf-8"
    ).replace("&#43;", "+")

    paths = sorted(drawings.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    classifier = PromptClassifier(method="auto", model="auto").fit(paths, labels)
    assert classifier.choice_ is not None
    twice = PromptClassifier().fit(paths, labels)
    assert twice.choice_.as_dict() == classifier.choice_.as_dict()
    assert (twice.predict_proba(paths) == classifier.predict_proba(paths)).all()
    kind = classifier.prompt_.card
    assert (kind["method"], kind["sar"]) == ("images+text", None)
    named = PromptClassifier(
        "icons", "images+text", options=classifier.choice_.options
    ).fit(paths, labels)  # fmt: skip
    assert (named.predict_proba(paths) == classifier.predict_proba(paths)).all()


def test_it_is_learned_once_more_from_all_images(drawings, tmp_path) -> None:
    made = learn_folder(drawings, tmp_path / "out", hold_out=0.5)
    result = made.result
    assert (result["training_images"], result["test_images"]) == (24, 24)
    assert result["refit"]
    assert result["saved_from_images"] == 48 == made.prompt.card["shots"]
    assert result["contenders"][0]["name"] == "images+text"
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "24 images of 6 classes" in page
    assert "learned once more from all 48 images" in page
    whole = learn_folder(drawings, tmp_path / "whole", hold_out=0)
    assert whole.result["test_images"] == 0
    assert not whole.result["refit"]
    assert whole.prompt.card["shots"] == 48


def test_a_test_split_of_the_users_own_is_not_learned_from(drawings, tmp_path) -> None:
    for part, name in (("train", "0"), ("test", "1")):
        for path in drawings.rglob("*.png"):
            if str(int(path.stem) % 2) == name:
                place = tmp_path / "split" / part / path.parent.name
                place.mkdir(parents=True, exist_ok=True)
                (place / path.name).write_bytes(path.read_bytes())
    made = learn_folder(tmp_path / "split", tmp_path / "out", calibrated=False)
    assert not made.result["refit"]
    assert made.prompt.card["shots"] == 24


# ---- when it is asked for


@pytest.mark.parametrize(
    ("options", "automatic"),
    [
        ({}, True), ({"shots": 4}, True), ({"method": "auto"}, True), ({"method": "coop"}, False),
        ({"sar": "on"}, False), ({"sar": "off"}, False), ({"recipe": "coop@icons"}, False),
        ({"settings": ["lr=0.1"]}, False), ({"regulariser": "sar"}, False),
    ],
)  # fmt: skip
def test_settings_of_a_prompt_ask_for_a_prompt(options, automatic) -> None:
    assert plan.automatic(MethodOptions(**options)) is automatic


@pytest.mark.parametrize("given", [{"sar": "on"}, {"settings": ["lr=0.1"]}, {"recipe": "sar+"}])
def test_auto_with_settings_of_a_prompt_is_refused(drawings, tmp_path, given) -> None:
    with pytest.raises(SimpromptError, match="chooses its settings itself"):
        learn_folder(drawings, tmp_path / "out", method="auto", **given)
    with pytest.raises(SimpromptError, match="chooses its settings itself"):
        PromptClassifier(method="auto", training={"epochs": 1}).fit(["a", "b"], ["x", "y"])


@pytest.mark.parametrize("part", [-0.1, 1, 3])
def test_a_part_that_is_none_is_refused(drawings, tmp_path, part) -> None:
    with pytest.raises(SimpromptError, match="--hold-out takes a part"):
        learn_folder(drawings, tmp_path / "out", hold_out=part)


# ---- the benchmark


def test_the_benchmark_compares_auto_with_the_best_of_the_others_draw_by_draw() -> None:
    def row(seed: int, method: str, known: float, new: float | None) -> dict[str, object]:
        return {
            "dataset": "d", "shots": 4, "seed": seed, "method": method, "known": known,
            "new": new, "all": None, "seconds": 1.0, "chosen": "",
        }  # fmt: skip

    rows = [
        row(1, "auto", 80.0, 40.0), row(1, "zero-shot", 50.0, 42.5), row(1, "probe", 80.9, None),
        row(2, "auto", 70.0, 40.0), row(2, "zero-shot", 50.0, 30.0), row(2, "probe", 74.0, None),
    ]  # fmt: skip
    assert len(groups(rows)) == 2
    known, new = summary(rows).splitlines()[-2:]
    assert "within one point of the best in 50 % of 2, at worst 4.0 below" in known
    assert "within one point of the best in 50 % of 2, at worst 2.5 below" in new
    assert as_csv(rows).splitlines()[3] == "d,4,1,probe,80.90,,,1.00,"


def test_a_classifier_of_its_own_classes_answers_one_question(clip, data) -> None:
    shots = data.base.few_shot(2, seed=1)
    parts = (data.base.test, data.new.test)
    probe = simprompt.learn(clip, shots, "class-means", progress=False)
    found = answers(probe, probe, parts)
    assert found["new"] is found["all"] is None
    zero = simprompt.learn(clip, shots, "zero-shot", progress=False)
    found = answers(zero, zero, parts)
    names = [*data.base.classnames, *data.new.classnames]
    right = [
        (zero.probabilities(split, names).argmax(1) == torch.tensor(split.labels) + first)
        for split, first in ((parts[0], 0), (parts[1], len(data.base.classnames)))
    ]
    assert found["all"] == pytest.approx(50 * sum(part.double().mean().item() for part in right))
