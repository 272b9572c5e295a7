"""The nearest class mean, by its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.methods import find
from simprompt.training.loop import train

NAMES = ("cat", "dog", "frog")


@pytest.fixture
def learned(tiny_clip):
    kind = find("class-means")
    learner = kind(tiny_clip, NAMES, "a photo of a {}.", kind.Config(), seed=1)
    g = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(12, 2, tiny_clip.embed_dim, generator=g), dim=-1)
    labels = torch.arange(12) % 3
    train(learner, images, labels, Training(**{**kind.schedule.model_dump(), "batch_size": 4}), 1)
    return learner, images, labels


def test_the_means_are_those_of_the_images_whatever_steps_were_taken(learned) -> None:
    learner, images, labels = learned
    for c in range(3):
        own = images[labels == c].flatten(0, 1)
        torch.testing.assert_close(learner.means[c].detach(), F.normalize(own.mean(0), dim=0))


def test_probabilities_are_a_softmax_of_scaled_cosines(learned, tiny_clip) -> None:
    learner, _, _ = learned
    x = torch.randn(5, tiny_clip.embed_dim, generator=torch.Generator().manual_seed(3))
    x = F.normalize(x, dim=-1)
    expected = (tiny_clip.scale * x @ learner.means.detach()[[2, 0]].T).softmax(-1)
    torch.testing.assert_close(learner.predict(x, ["frog", "cat"]), expected)


def test_a_name_without_images_is_refused(learned) -> None:
    learner, images, _ = learned
    with pytest.raises(SimpromptError, match="'toad' is none of them"):
        learner.predict(images[:, 0], ["cat", "toad"])
