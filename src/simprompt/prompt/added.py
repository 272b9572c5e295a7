"""More classes and more images for a prompt that is learned already, without training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from simprompt.clip.same_text import class_names, match_names, new_names
from simprompt.data.split import Split
from simprompt.errors import SimpromptError, check_argument
from simprompt.features.cache import images_of
from simprompt.methods.images_with_text import ImagesWithText
from simprompt.prompt.prompt import Prompt


def with_names(prompt: Prompt, names: Sequence[str]) -> Prompt:
    """The prompt with more class names, of which it has no image.

    What it learned stays as it is. Its temperature and threshold were fitted among the names of
    before: the temperature is kept, and the threshold goes on to compare with those names.

    Args:
        names: those that are one text with a class of the prompt are there already.

    Raises:
        SimpromptError: no names, or a method that knows no other classes than its own.
    """
    names = class_names(names, "names")
    if not prompt.learner.new_classes:
        raise SimpromptError(
            f"The method {prompt.card['method']} knows the classes it was learned on and no other. "
            "Learn again with the default method, which takes names without images."
        )
    added = new_names(names, prompt.classes)
    card = copy.deepcopy(prompt.card)
    card["new_classes"] = [*card.get("new_classes", ()), *added]
    return Prompt(prompt.learner, card)


def with_images(prompt: Prompt, split: Split) -> Prompt:
    """The prompt with more images, of its classes, of names that had none, or of other classes.

    All that was computed from images is computed again, from those of before and these; nothing is
    trained, and the images of before need not be there. An image that it has already counts once;
    where all of them are such, the prompt itself is returned. Accuracies, temperature and threshold
    of before are left out: they were of other candidates.

    Args:
        split: labelled images.

    Raises:
        SimpromptError: a method that was trained, or no images.
    """
    check_argument(split, Split, "with_images()", "a split, such as data.all.train")
    learner = prompt.learner
    if not isinstance(learner, ImagesWithText):
        raise SimpromptError(
            f"Images cannot be added to a prompt of the method {prompt.card['method']}, which was "
            "trained on its images. Learn again from all of them; with the default method images "
            "can be added without training. Names alone can be added to any prompt: --add-class "
            "NAME."
        )
    if not len(split):
        raise SimpromptError("There are no images to add.")
    rows = match_names(split.classnames, learner.classnames)
    present = {split.classnames[label] for label in split.labels}
    others = [n for n, row in zip(split.classnames, rows, strict=True) if row is None]
    others = [name for name in new_names(others, learner.classnames) if name in present]
    classnames = (*learner.classnames, *others)
    numbers = match_names(split.classnames, classnames)
    labels = torch.tensor([number_of(numbers[label]) for label in split.labels])
    larger = learner.extended(classnames, torch.cat([*images_of(learner, split)]), labels)
    if len(larger.shots) == len(learner.shots):
        return prompt
    card: dict[str, Any] = copy.deepcopy(prompt.card)
    for key in ("calibration", "metrics"):
        card.pop(key, None)
    card["classnames"] = list(classnames)
    card["new_classes"] = list(new_names(card.get("new_classes", ()), classnames))
    card["shots"] = len(larger.shots)
    return Prompt(larger, card)


def number_of(row: int | None) -> int:
    """A class that is there for sure, as its number."""
    assert row is not None
    return row
