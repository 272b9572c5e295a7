"""A training setting reaches the loss of every method."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import simprompt
from simprompt import methods
from simprompt.methods.base import Batch

LEARNING = [name for name in methods.names() if name not in ("zero-shot",)]


@pytest.mark.parametrize("name", LEARNING)
def test_label_smoothing_changes_the_loss_as_torch_s_does(name, make_clip):
    clip = make_clip()
    kind = methods.find(name)
    learner = kind(clip, ("cat", "dog", "fish"), "a photo of a {}.", kind.Config(), 1)
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0])
    if learner.image_input == "pixels":
        size = clip.preprocess.size
        views = torch.randn(4, 1, 3, size, size, generator=generator)
    else:
        views = F.normalize(torch.randn(4, 1, clip.embed_dim, generator=generator), dim=-1)
    learner.prepare(views, labels)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    rows = torch.arange(4)
    batch = Batch(views[:, 0], labels, rows, torch.zeros(4, dtype=torch.long))
    plain = learner.loss(batch)
    calls = []
    real = learner.cross_entropy
    learner.set_training(kind.schedule.model_copy(update={"label_smoothing": 0.3}))
    inner = getattr(learner, "host", learner)
    inner.cross_entropy = lambda logits, wanted: (
        calls.append((logits, wanted)) or real(logits, wanted)
    )
    smoothed = learner.loss(batch)
    assert smoothed != plain
    for logits, wanted in calls:
        expected = F.cross_entropy(logits, wanted, label_smoothing=0.3)
        assert torch.equal(real(logits, wanted), expected)


def test_it_is_a_setting_of_every_run():
    clip = simprompt.load_clip("icons")
    shots = simprompt.load_dataset("icons/animals").base.few_shot(2, seed=1)
    short = {"epochs": 2}
    prompts = [
        simprompt.learn(clip, shots, "coop", training={**short, **more})
        for more in ({}, {"label_smoothing": 0.0}, {"label_smoothing": 0.2})
    ]
    texts = [prompt.text_features(["stone"]) for prompt in prompts]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
