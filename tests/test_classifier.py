"""PromptClassifier keeps scikit-learn's conventions and learns what `simprompt.learn` learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simprompt
from simprompt import PromptClassifier, SimpromptError

pytestmark = pytest.mark.integration

QUICK = {"max_steps": 8, "lr": 0.01}


@pytest.fixture(scope="module")
def food() -> tuple[list, list[str]]:
    """(pictures, labels): six of each of four kinds of food."""
    data = simprompt.load_dataset("icons/food")
    pictures, labels = [], []
    for label, rows in list(data.base.train.rows_by_label().items())[:4]:
        for row in rows[:6]:
            pictures.append(data.base.train.load(row))
            labels.append(data.base.classnames[label])
    return pictures, labels


@pytest.fixture(scope="module")
def fitted(food) -> PromptClassifier:
    return PromptClassifier(training=QUICK, new_classes=["teapot"]).fit(*food)


def test_it_answers_known_labels_and_new_names(fitted, food):
    pictures, labels = food
    assert fitted.classes_.tolist() == [*sorted(set(labels)), "teapot"]
    assert set(fitted.predict(pictures)) <= set(fitted.classes_)
    assert fitted.score(pictures, labels) > 0.5
    rows = fitted.predict_proba(pictures)
    assert rows.shape == (len(pictures), 5)
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-5)
    assert fitted.predict_proba([]).shape == (0, 5)


def test_it_learns_what_learn_learns(food, tmp_path: Path):
    pictures, labels = food
    made = PromptClassifier(training=QUICK, sar=False, template="an icon of a {}.").fit(*food)
    names = sorted(set(labels))
    folder = tmp_path / "photos"
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        path = folder / label / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    paths = [str(p) for label in names for p in sorted((folder / label).iterdir())]
    again = PromptClassifier(training=QUICK, sar=False, template="an icon of a {}.")
    again.fit(paths, [Path(p).parent.name for p in paths])
    order = np.argsort(np.asarray(labels), kind="stable")
    np.testing.assert_allclose(
        made.predict_proba([pictures[i] for i in order]), again.predict_proba(paths), atol=1e-5
    )
    from simprompt.clip.hub import load_clip
    from simprompt.data.images import read_image
    from simprompt.data.split import Split

    split = Split(tuple(paths), tuple(names.index(Path(p).parent.name) for p in paths),
                  tuple(names), read_image)  # fmt: skip
    prompt = simprompt.learn(load_clip("icons"), split, sar=False, training=QUICK,
                             template="an icon of a {}.")  # fmt: skip
    np.testing.assert_array_equal(
        prompt.predict(paths, names)[0].probabilities, again.predict_proba(paths)[0].tolist()
    )


def test_labels_keep_their_type_and_may_have_names(food):
    pictures, labels = food
    names = sorted(set(labels))
    numbers = [names.index(label) for label in labels]
    by_number = PromptClassifier(
        training=QUICK, sar=False, names=dict(enumerate(names)), template="an icon of a {}."
    ).fit(pictures, numbers)
    assert by_number.classes_.tolist() == [0, 1, 2, 3]
    assert by_number.predict(pictures[:1]).dtype.kind == "i"
    by_name = PromptClassifier(training=QUICK, sar=False, template="an icon of a {}.").fit(*food)
    np.testing.assert_array_equal(
        by_number.predict_proba(pictures), by_name.predict_proba(pictures)
    )
    by_number.add_classes(["teapot"])
    assert by_number.classes_.tolist() == [0, 1, 2, 3, "teapot"]


def test_added_classes_are_candidates_and_change_nothing_else(food):
    pictures, _ = food
    made = PromptClassifier(training=QUICK, sar=False).fit(*food)
    before = made.predict_proba(pictures)
    made.add_classes(["teapot", "anvil"])
    after = made.predict_proba(pictures)
    assert after.shape[1] == before.shape[1] + 2
    known = after[:, : before.shape[1]]
    np.testing.assert_allclose(known / known.sum(1, keepdims=True), before, atol=1e-5)
    with pytest.raises(SimpromptError, match="one text"):
        made.add_classes(["Anvil"])


def test_saved_and_loaded_it_is_the_same(fitted, food, tmp_path: Path):
    pictures, _ = food
    fitted.save(tmp_path / "kept")
    again = PromptClassifier.load(tmp_path / "kept")
    assert again.get_params() == fitted.get_params() | {"new_classes": ["teapot"]}
    assert again.classes_.tolist() == fitted.classes_.tolist()
    np.testing.assert_array_equal(again.predict_proba(pictures), fitted.predict_proba(pictures))
    (tmp_path / "kept" / "classifier.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(SimpromptError, match="format 99 is newer"):
        PromptClassifier.load(tmp_path / "kept")
    with pytest.raises(SimpromptError, match="not a saved classifier"):
        PromptClassifier.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("X", "y", "sentence"),
    [
        ("a.png", ["a"], "X has to be a list"),
        ([b"", b""], ["a", "b", "c"], "one label an image"),
        ([b"x", b"y"], ["a", "a"], "at least two classes"),
        ([[1.0, 2.0], [3.0, 4.0]], ["a", "b"], "no image"),
        (np.zeros((4, 3)), ["a", "b", "a", "b"], "table of numbers"),
        ([1, 2], ["a", "b"], "holds numbers"),
        (["/nowhere/a.png", "/nowhere/b.png"], ["a", "b"], "missing"),
        ([b"x", b"y"], ["cat", "CAT"], "one text"),
    ],
)
def test_what_is_no_images_and_labels_is_refused(X, y, sentence):
    with pytest.raises(SimpromptError, match=sentence):
        PromptClassifier(training=QUICK, sar=False).fit(X, y)


def test_nested_settings():
    made = PromptClassifier(sar=0.4)
    assert made.set_params(sar__temperature=0.02).sar == {"weight": 0.4, "temperature": 0.02}
    assert made.set_params(training__lr=0.1).training == {"lr": 0.1}
    assert made.get_params()["sar__weight"] == 0.4
    assert PromptClassifier().set_params(sar__weight=0.1, sar=True).sar == {"weight": 0.1}
    with pytest.raises(SimpromptError, match="no argument 'weights'"):
        made.set_params(weights=1)


def test_scikit_learn_takes_it(food):
    pytest.importorskip("sklearn")
    from sklearn.base import clone, is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.utils import estimator_checks

    made = PromptClassifier(training=QUICK, sar={"weight": 0.4, "novel_count": 10})
    for check in (  # the checks that give it no table of numbers
        "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed",
        "check_no_attributes_set_in_init", "check_parameters_default_constructible",
        "check_get_params_invariance", "check_set_params", "check_valid_tag_types",
        "check_mixin_order",
    ):  # fmt: skip
        getattr(estimator_checks, check)("PromptClassifier", made)
    assert is_classifier(made)
    with pytest.raises(NotFittedError):
        made.predict([])
    assert clone(made).get_params() == made.get_params()
    pictures, labels = food
    scores = cross_val_score(clone(made), pictures, labels, cv=2)
    assert scores.shape == (2,)
    pipeline = make_pipeline(FunctionTransformer(), clone(made)).fit(pictures, labels)
    assert pipeline.score(pictures, labels) > 0.5
    search = GridSearchCV(made, {"sar__weight": [0.1, 0.4]}, cv=2).fit(pictures, labels)
    assert search.best_params_["sar__weight"] in (0.1, 0.4)
    assert search.predict(pictures[:2]).shape == (2,)


# ---- saved with all that it was made with


def test_it_is_loaded_with_the_models_size_tokenizer_and_dtype(food, tmp_path: Path):
    """A CLIP at another size, in another precision, with another tokenizer file."""
    import shutil

    from simprompt.clip.catalogue import EMBEDDED

    words = tmp_path / "words.json"
    shutil.copy(EMBEDDED["icons"].folder / "tokenizer.json", words)
    clip = simprompt.load_clip("icons", image_size=64, dtype="bfloat16", tokenizer=words)
    pictures, labels = food
    made = PromptClassifier(clip, "zero-shot", False, names={label: label for label in labels},
                            new_classes=[],
                            template="an icon of a {}.", upright=False, seed=3)  # fmt: skip
    made.fit(pictures, labels).save(tmp_path / "kept")
    again = PromptClassifier.load(tmp_path / "kept")
    assert (again.model.source["image_size"], again.model.text.dtype) == (64, clip.text.dtype)
    differing = {
        name for name, value in made.get_params(deep=False).items()
        if again.get_params(deep=False)[name] != value
    }  # fmt: skip
    assert differing == {"model"}, "which is an equal CLIP"
    np.testing.assert_array_equal(again.predict_proba(pictures), made.predict_proba(pictures))
    again.fit(pictures, labels)
    np.testing.assert_array_equal(again.predict_proba(pictures), made.predict_proba(pictures))
    assert str(tmp_path) not in (tmp_path / "kept" / "classifier.json").read_text("utf-8")
    loaded = PromptClassifier.load(tmp_path / "kept", model=clip)
    assert loaded.prompt_.clip is clip


def test_a_second_save_keeps_other_files_and_the_old_classifier_if_it_fails(fitted, tmp_path):
    from unittest import mock

    fitted.save(tmp_path / "kept")
    (tmp_path / "kept" / "my_app.py").write_text("mine", encoding="utf-8")
    (tmp_path / "kept" / "prompt" / "notes.txt").write_text("mine", encoding="utf-8")
    before = {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*") if p.is_file()}
    with (
        mock.patch("simprompt.prompt.sklearn.write_json", side_effect=OSError(28, "full")),
        pytest.raises(SimpromptError, match="No space left"),
    ):
        fitted.save(tmp_path / "kept")
    assert {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*") if p.is_file()} == before
    fitted.save(tmp_path / "kept")
    assert PromptClassifier.load(tmp_path / "kept").classes_.tolist() == fitted.classes_.tolist()
    assert {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*") if p.is_file()} == before
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("mine", encoding="utf-8")
    with pytest.raises(SimpromptError, match="other files and no classifier"):
        fitted.save(tmp_path / "src")


# ---- what scikit-learn hands over


def zero_shot(**more) -> PromptClassifier:
    return PromptClassifier("icons", "zero-shot", False, template="an icon of a {}.", **more)


@pytest.fixture(scope="module")
def paths(food, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    made = [str(folder / f"{number}.png") for number in range(len(food[0]))]
    for path, picture in zip(made, food[0], strict=True):
        picture.save(path)
    return made


def test_encoded_labels_need_names_and_say_so(food, paths):
    pytest.importorskip("sklearn")
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.model_selection import cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier

    labels = food[1]
    names = dict(enumerate(sorted(set(labels))))
    expected = zero_shot().fit(paths, labels).predict_proba(paths)

    def rows(made):
        return cross_val_predict(made, paths, labels, cv=2, method="predict_proba")

    def voting(made):
        return VotingClassifier([("a", made)], voting="soft").fit(paths, labels)

    for work in (rows, voting, OneVsRestClassifier(zero_shot()).fit):
        arguments = (paths, labels) if work not in (rows, voting) else (zero_shot(),)
        with pytest.raises(SimpromptError, match=r"say nothing to CLIP.*names=\{0: 'cat'.*sorted"):
            work(*arguments)
    np.testing.assert_allclose(rows(zero_shot(names=names)), expected, atol=1e-6)
    np.testing.assert_allclose(
        voting(zero_shot(names=names)).predict_proba(paths), expected, atol=1e-6
    )
    stacked = StackingClassifier([("a", zero_shot(names=names))], cv=2).fit(paths, labels)
    assert stacked.predict(paths).shape == (len(paths),)
    with pytest.warns(UserWarning, match="got no image of"):
        OneVsRestClassifier(zero_shot(names=names)).fit(paths, labels)


def test_names_that_say_nothing_are_warned_of(food, paths):
    letters = dict(zip(sorted(set(food[1])), "abcd", strict=True))
    with pytest.warns(UserWarning, match="a, b, c, d say nothing"):
        zero_shot().fit(paths, [letters[label] for label in food[1]])


@pytest.mark.parametrize("shape", ["series", "frame", "[n, 1]", "rows", "objects"])
def test_one_column_is_a_list(shape, food, paths):
    if shape in ("series", "frame"):
        pandas = pytest.importorskip("pandas")

    def shaped(values):
        return {
            "series": lambda: pandas.Series(values, index=range(5, 5 + len(values))),
            "frame": lambda: pandas.DataFrame({"c": values}, index=range(5, 5 + len(values))),
            "[n, 1]": lambda: np.asarray(values)[:, None],
            "rows": lambda: [[value] for value in values],
            "objects": lambda: np.asarray(values, dtype=object)[:, None],
        }[shape]()

    labels = food[1]
    made = zero_shot().fit(shaped(paths), shaped(labels))
    wanted = zero_shot().fit(paths, labels)
    np.testing.assert_array_equal(made.predict_proba(shaped(paths)), wanted.predict_proba(paths))
    assert made.score(shaped(paths), shaped(labels)) == wanted.score(paths, labels)
    if shape == "frame":
        with pytest.raises(SimpromptError, match=r"columns p, q; give one of them.*frame\['p'\]"):
            made.predict(pandas.DataFrame({"p": paths, "q": paths}))


def test_a_weight_of_two_is_the_image_twice(food, paths):
    labels = food[1]
    weights = [number % 3 for number in range(len(paths))]
    rows = [row for row, weight in enumerate(weights) for _ in range(weight)]

    def means() -> PromptClassifier:
        return PromptClassifier("icons", "linear-probe", False, training={"max_steps": 3})

    made = means().fit(paths, labels, sample_weight=np.asarray(weights) * 0.5)
    wanted = means().fit([paths[row] for row in rows], [labels[row] for row in rows])
    np.testing.assert_array_equal(made.predict_proba(paths), wanted.predict_proba(paths))
    right = wanted.predict(paths) == np.asarray(labels)
    assert made.score(paths, labels, sample_weight=weights) == np.average(right, weights=weights)
    for wrong, sentence in (
        ([1.0, 1.5, *[1.0] * (len(paths) - 2)], "whole multiples"), ([1.0], "24 numbers"),
        ([0.0] * len(paths), "not all 0"), ([-1.0] * len(paths), "from 0"),
        (["a"] * len(paths), "24 numbers"), ([float("nan")] * len(paths), "24 numbers"),
    ):  # fmt: skip
        with pytest.raises(SimpromptError, match=sentence):
            means().fit(paths, labels, sample_weight=wrong)


def test_photographs_are_given_the_model_for_photographs(food, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    labels = ["cat", "dog"] * 4
    from simprompt.clip.catalogue import EMBEDDED, Embedded

    if EMBEDDED["photos"].installed:
        made = PromptClassifier(method="zero-shot", sar=False).fit(noise, labels)
        assert made.prompt_.card["model"] == "photos"
    assert PromptClassifier(method="zero-shot", sar=False).fit(*food).prompt_.clip.name == "icons"
    monkeypatch.setattr(Embedded, "installed", False)
    with pytest.warns(UserWarning, match="unlike the drawings"):
        made = PromptClassifier(method="zero-shot", sar=False).fit(noise, labels)
    assert made.prompt_.card["model"] == "icons"
    from simprompt.data.images import read_image
    from simprompt.data.split import Split

    split = Split(
        tuple("abcdefgh"),
        (0, 1) * 4,
        ("cat", "dog"),
        lambda item: read_image(noise["abcdefgh".index(item)]),
    )
    with pytest.warns(UserWarning, match="unlike the drawings"):
        simprompt.learn(simprompt.load_clip("icons"), split, "zero-shot", progress=False)
