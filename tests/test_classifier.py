"""PromptClassifier keeps scikit-learn's conventions and learns what `simprompt.learn` learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simprompt
from simprompt import PromptClassifier, SimpromptError

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
    from simprompt.data.dataset import Split
    from simprompt.data.images import read_image

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
