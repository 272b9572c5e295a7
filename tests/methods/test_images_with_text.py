"""A classifier of images joined with text: by its formula, and by scikit-learn's solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import simprompt
from simprompt.errors import SimpromptError
from simprompt.methods import closed_form, find
from simprompt.methods.closed_form import Fit, Form, calibrated, fitted, probe, quarter, solve

NAMES = ("cat", "dog", "frog", "owl")


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=g, dtype=torch.double), dim=-1)


@given(seed=st.integers(0, 99), classes=st.integers(3, 6), penalty=st.sampled_from([0.003, 0.1]))
@settings(deadline=None, max_examples=20)
def test_the_probe_is_scikit_learns(seed: int, classes: int, penalty: float) -> None:
    """mean CE + l |w|^2 is scikit-learn's C sum CE + |w|^2 / 2 with C = 1 / (2 l N)."""
    n, scale = 8 * classes, 20.0
    images, labels = unit(n, 10, seed=seed), torch.arange(n) % classes
    ours = probe(images, labels, classes, scale, penalty)
    oracle = LogisticRegression(C=1 / (2 * penalty * n), tol=1e-9, max_iter=10_000)
    oracle.fit((scale * images).numpy(), labels.numpy())
    weight, bias = ours[:, :-1], ours[:, -1] - ours[:, -1].mean()
    theirs = oracle.intercept_ - oracle.intercept_.mean()
    np.testing.assert_allclose(weight.numpy(), oracle.coef_, atol=2e-3 * np.abs(oracle.coef_).max())
    np.testing.assert_allclose(bias.numpy(), theirs, atol=5e-3 * max(1, np.abs(theirs).max()))


def made(clip, **options):
    kind = find("images+text")
    return kind(clip, NAMES, "a photo of a {}.", kind.Config(**options), seed=1)


@pytest.fixture
def shots(tiny_clip):
    return unit(24, 2, tiny_clip.embed_dim).float(), torch.arange(24) % 4


@pytest.mark.parametrize("known", ["probe", "means", "text"])
@pytest.mark.parametrize(("ridge", "map_new"), [(None, True), (0.2, True), (0.2, False)])
def test_logits_are_those_of_the_formula(tiny_clip, shots, known, ridge, map_new) -> None:
    learner = made(tiny_clip, known=known, share=0.7, ridge=ridge, map_new=map_new)
    learner.prepare(*shots)
    learner.after_training()
    x = unit(5, tiny_clip.embed_dim, seed=2)
    names = ["toad", "owl", "cat", "newt"]
    text = learner.text_features(learner.prompts(names))
    found = learner.class_logits(x.float(), text, names).double()

    images = F.normalize(F.normalize(shots[0].double(), dim=-1).mean(1), dim=-1)
    crafted = learner.teacher(NAMES).double()
    s, t = tiny_clip.scale, text.double()
    z = x
    if ridge:
        mean, weight = solve(images, shots[1], crafted, ridge)
        z = F.normalize(x + (x - mean) @ weight, dim=-1)
    a, b, c = learner.rates.double()
    w = probe(images, shots[1], 4, s, learner.config.penalty)
    for column, name in enumerate(names):
        by_text = s * z @ t[column]
        if name not in NAMES:
            expected = b * (by_text if map_new else s * x @ t[column]) + c
        else:
            k = NAMES.index(name)
            own = {
                "probe": s * x @ w[k, :-1] + w[k, -1] + 0.7 * by_text,
                "means": s * x @ F.normalize(images[shots[1] == k].sum(0), dim=0) + 0.7 * by_text,
                "text": by_text,
            }[known]
            expected = a * own
        torch.testing.assert_close(found[:, column], expected, atol=2e-3, rtol=1e-4)


def test_nothing_that_plays_new_is_fitted_to(monkeypatch) -> None:
    """Images of pseudo-new classes, and those that are set aside, are in no fit of their trial."""
    labels = torch.arange(30) % 5
    whole = Fit(unit(30, 8), labels, unit(5, 8, seed=1), 20.0, 0.01)
    plays = closed_form.drawn_halves(torch.zeros(30, 5), 3)
    fits = []
    plain = Fit.__init__

    def recorded(self, images, own, text, scale, penalty):
        fits.append((images, text))
        plain(self, images, own, text, scale, penalty)

    monkeypatch.setattr(Fit, "__init__", recorded)
    calibrated(Form(), whole, 3)
    assert len(fits) == len(plays)
    for new, (images, text) in zip(plays, fits, strict=True):
        rows = [int((whole.images == image).all(1).nonzero()) for image in images]
        assert not new[labels[rows]].any()
        assert len(rows) == int((~new).sum()) * 5  # of six images of a class one is set aside
        assert torch.equal(text, whole.text[~new])


def test_the_calibration_has_no_better_neighbour_where_images_are_weighted() -> None:
    labels = torch.arange(40) % 5
    by_known = unit(2, 40, 5, seed=3) + F.one_hot(labels, 5)
    by_text = unit(2, 40, 5, seed=4) + F.one_hot(labels, 5)
    new = torch.tensor([[True, False, False, True, False], [False, True, True, False, False]])
    weights = torch.rand(2, 40, generator=torch.Generator().manual_seed(1)).double()
    weights /= weights.sum()

    def loss(values: torch.Tensor) -> torch.Tensor:
        a, b, c = values
        logits = torch.where(new[:, None], b * by_text + c, a * by_known)
        each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(2), reduction="none")
        return (each * weights.flatten()).sum() + 1e-3 * values[:2].log().pow(2).sum()

    best = fitted(by_known, by_text, labels, new, 1.0, weights)
    for i in range(3):
        for step in (-0.05, 0.05):
            other = best.clone()
            other[i] += step * max(1, abs(best[i]))
            assert loss(other) > loss(best)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("each", [1, 2])
def test_the_fewest_images_give_numbers(classes: int, each: int) -> None:
    labels = torch.arange(classes * each) % classes
    whole = Fit(unit(len(labels), 6), labels, unit(classes, 6, seed=1), 20.0, 0.01)
    assert calibrated(Form(), whole, 1).isfinite().all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_quarter_of_each_class_is_set_aside_and_never_all(labels: list[int]) -> None:
    chosen = quarter(torch.tensor(labels), 4, torch.Generator().manual_seed(1))
    for label in set(labels):
        n = labels.count(label)
        count = int(chosen[torch.tensor(labels) == label].sum())
        assert count == (n // 4 or (1 if n > 1 else 0))


def test_saved_it_answers_alike_for_known_and_other_names(tmp_path) -> None:
    clip = simprompt.load_clip("icons")
    data = simprompt.load_dataset("icons/animals")
    shots = data.base.few_shot(4, seed=1)
    learned = simprompt.learn(clip, shots, method="images+text", progress=False)
    assert learned.accuracy(data.base.test) > 35
    learned.save(tmp_path / "p")
    again = simprompt.load_prompt(tmp_path / "p", clip)
    names = [*data.base.classnames, *data.new.classnames]
    split = data.new.test
    assert torch.equal(again.probabilities(split, names), learned.probabilities(split, names))
    twice = simprompt.learn(clip, shots, method="images+text", progress=False)
    for key, value in learned.learner.state_dict().items():
        assert torch.equal(value, twice.learner.state_dict()[key])


def test_a_host_is_trained_as_it_is_alone() -> None:
    clip = simprompt.load_clip("icons")
    shots = simprompt.load_dataset("icons/animals").base.few_shot(2, seed=1)
    training = {"epochs": 2, "lr": 0.02, "batch_size": 16}
    words = {"n_ctx": 4}
    alone = simprompt.learn(
        clip, shots, "coop", sar=1.0, options=words, training=training, progress=False
    )
    hosted = simprompt.learn(
        clip, shots, "images+text", sar=1.0, training=training, progress=False,
        options={"host": "coop", "host_options": words},
    )  # fmt: skip
    names = ["teapot", "whisk"]
    assert torch.equal(alone.text_features(names), hosted.text_features(names))


def test_a_host_that_cannot_be_had_is_named(tiny_clip) -> None:
    with pytest.raises(SimpromptError, match=r"images\+text cannot have 'class-means'"):
        made(tiny_clip, host="class-means")
