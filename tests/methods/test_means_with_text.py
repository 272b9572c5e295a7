"""Class means and a prompt as one set of answers, calibrated on base classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from simprompt.methods import find
from simprompt.methods.closed_form import fitted

NAMES = ("cat", "dog", "frog", "owl")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.fixture
def learner(tiny_clip):
    kind = find("means+text")
    return kind(tiny_clip, NAMES, "a photo of a {}.", kind.Config(), seed=1)


@pytest.fixture
def shots(tiny_clip):
    images = F.normalize(normal(16, 2, tiny_clip.embed_dim).float(), dim=-1)
    return images, torch.arange(16) % 4


def test_known_names_are_told_by_means_and_others_by_text(learner, shots, tiny_clip) -> None:
    images, labels = shots
    learner.prepare(images, labels)
    x = F.normalize(normal(5, tiny_clip.embed_dim, seed=2).float(), dim=-1)
    names = ["toad", "owl", "cat", "newt"]
    text = learner.text_features(learner.prompts(names))
    found = learner.class_logits(x, text, names)
    a, b, c = learner.blend
    for column, name in enumerate(names):
        if name in NAMES:
            own = F.normalize(images[labels == NAMES.index(name)].mean(1), dim=-1)
            expected = a * x @ F.normalize(own.sum(0), dim=-1)
        else:
            expected = b * x @ text[column] + c
        torch.testing.assert_close(found[:, column], expected, atol=1e-4, rtol=1e-4)


def test_the_fit_has_no_better_neighbour() -> None:
    labels = torch.arange(40) % 5
    by_means = 0.5 + 0.1 * normal(40, 5) + 0.2 * F.one_hot(labels, 5)
    by_text = 0.1 * normal(40, 5, seed=1) + 0.1 * F.one_hot(labels, 5)
    new = torch.tensor([[True, False, False, True, False], [False, True, True, False, False]])

    def loss(values: torch.Tensor) -> torch.Tensor:
        a, b, c = values
        logits = torch.where(new[:, None], b * by_text + c, a * by_means)
        penalty = 1e-3 * (values[:2].log() - torch.tensor(20.0).log()).pow(2).sum()
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat(2)) + penalty

    best = fitted(by_means, by_text, labels, new, 20.0)
    for i in range(3):
        for step in (-0.05, 0.05):
            other = best.clone()
            other[i] += step * max(1, abs(best[i]))
            assert loss(other) > loss(best)


def test_images_far_from_any_text_do_not_hide_the_new_classes() -> None:
    """Cosines of images with images are all high, those with texts low: the offset mends it."""
    labels = torch.arange(60) % 6
    by_means = 0.8 + 0.02 * normal(60, 6) + 0.05 * F.one_hot(labels, 6)
    by_text = 0.1 + 0.02 * normal(60, 6, seed=1) + 0.05 * F.one_hot(labels, 6)
    new = torch.arange(6)[None] < 3
    a, b, c = fitted(by_means, by_text, labels, new, 30.0)
    naive = torch.where(new, 30 * by_text, 30 * by_means).argmax(1)
    made = torch.where(new, b * by_text + c, a * by_means).argmax(1)
    unseen = labels < 3
    assert (naive[unseen] < 3).double().mean() == 0
    assert (made == labels).double().mean() > 0.8


def test_saved_it_answers_alike(learner, shots, tiny_clip) -> None:
    learner.prepare(*shots)
    kind = find("means+text")
    again = kind(tiny_clip, NAMES, "a photo of a {}.", kind.Config(), seed=2)
    again.load_state_dict(learner.state_dict())
    names = ["owl", "toad"]
    assert torch.equal(learner.predict(shots[0][:, 0], names), again.predict(shots[0][:, 0], names))
