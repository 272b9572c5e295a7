"""The views of the training images that a learner takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simprompt.config import Training
from simprompt.data.split import Split
from simprompt.features.cache import image_features, view_features
from simprompt.features.pixels import Images, Pixels
from simprompt.training.schedule import epochs_and_steps

if TYPE_CHECKING:
    from simprompt.methods.base import PromptLearner


def training_views(
    learner: PromptLearner[Any], shots: Split, training: Training, seed: int
) -> Images:
    """The views that training draws from: features [N, M, E], or pixels [N, M, 3, S, S] for a live
    tower, which are read as they are needed.

    `training.views` None: the test-time crop, M = 1. A number: that many augmented views, the
    same in every run. "random": one fresh view for each epoch, in order, by the run's seed.
    """
    clip, unnormalized = learner.clip, learner.image_input == "unnormalized"
    views, seed = training.views, seed if training.views == "random" else 0
    if views == "random":
        views, _ = epochs_and_steps(len(shots), training)
    if learner.image_input == "pixels":
        return Pixels(clip.preprocess, shots, views, seed, keep=training.views != "random")
    if views is None:
        return image_features(clip, shots, unnormalized=unnormalized)[:, None]
    return view_features(clip, shots, views, seed=seed, unnormalized=unnormalized)
