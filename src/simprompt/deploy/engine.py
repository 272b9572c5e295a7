"""Several prompts that answer the same images, side by side.

Images go through a frozen tower once for all prompts that share it; a prompt whose image tower is
live sees the pixels itself. Each prompt sees an image as `simprompt predict` reads it: its card
says whether photos are turned by their EXIF.
"""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simprompt import methods
from simprompt.clip.hub import is_named
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import all_known, repeated, unique_names
from simprompt.data.image_files import ImageError
from simprompt.data.images import read_image
from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner
from simprompt.prompt import storage
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.prompt import Prompt

Names = tuple[str, ...]
View = tuple[int, bool]
"""How a prompt looks at an image: the `id` of its CLIP, and whether photos are turned upright."""

FORMATS = frozenset(
    {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF"}
)
"""Of images that are decoded for others. Pillow knows formats that start programs, such as EPS."""


@dataclass(frozen=True)
class ServedPrompt:
    """One of the classifiers that answer side by side.

    Args:
        name: short and unique, such as "coop+sar".
        prompt: zero-shot's card says only how images are read.
    """

    name: str
    prompt: Prompt

    @property
    def learner(self) -> PromptLearner[Any]:
        """What turns names into text features."""
        return self.prompt.learner

    @property
    def known(self) -> Names:
        """The classes it was learned on."""
        return self.learner.classnames

    @property
    def view(self) -> View:
        """How it looks at an image."""
        return id(self.learner.clip), bool(self.prompt.card.get("upright", True))

    def answers(self, names: Names) -> bool:
        """Whether it can choose from these names; a classifier of images knows its own alone."""
        return self.learner.new_classes or all_known(names, self.known)

    def probabilities(self, images: Tensor, names: Names) -> Tensor:
        """Probabilities [N, C] of what the learner takes of N images.

        Raises:
            SimpromptError: one is no number.
        """
        probabilities = self.prompt.classifier(names)(images)
        if not probabilities.isfinite().all():
            raise SimpromptError(
                f"A probability of {self.name} is not a number: the prompt, or "
                f"{self.learner.clip.name}, gives features with NaN or infinity. Learn the prompt "
                "again, in float32."
            )
        return probabilities

    def certainties(
        self, images: Tensor, names: Names, probabilities: Tensor
    ) -> Sequence[float | None]:
        """`Judgement.certainty` of N images, whose probabilities [N, C] are given."""
        if len(unique_names((*names, *self.prompt.known))) < 2:
            return [None] * len(images)
        candidates = self.prompt.judged_among(names)
        if not self.learner.joint_answers and len(candidates) > len(self.prompt.known):
            return [None] * len(images)
        everyone = probabilities
        if len(candidates) > len(names):
            everyone = self.probabilities(images, candidates)
        top = probabilities.argmax(-1, keepdim=True)
        certainties: list[float] = everyone.gather(1, top)[:, 0].tolist()
        return certainties


@dataclass(frozen=True)
class Picture:
    """An image as the prompts see it.

    Args:
        width, height: of the whole image, in pixels, turned as the first prompt has it.
        views: 8-bit RGB of each model's size, by `ServedPrompt.view`.
    """

    width: int
    height: int
    views: Mapping[View, Image.Image]


@dataclass(frozen=True)
class Question:
    """An image, and the names to choose from."""

    picture: Picture
    names: Names


@dataclass(frozen=True)
class Judgement:
    """What a contender says of an image.

    Args:
        probabilities: of the names, [C].
        certainty: what a threshold for "none of these" is compared with: the probability of the
            likeliest name where the prompt's own classes are candidates as well. None where that
            says nothing: a single candidate, or a method whose answers change with the candidates.
    """

    probabilities: list[float]
    certainty: float | None


class Engine:
    """Zero-shot and the given prompts as one classifier with several answers.

    Args:
        prompts: at least one. For each CLIP and template among them a zero-shot contender comes
            first.

    Attributes:
        contenders: in the order of the answers; names are unique.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        if not prompts:
            raise SimpromptError(
                "There is no prompt to answer with. Give one that `simprompt learn` made."
            )
        self.contenders = _named([*_zero_shot(prompts), *prompts])

    @cached_property
    def names(self) -> Names:
        """The classes that the prompts were learned on and the new ones they were given; of names
        that are one text for a model, the first."""
        names_known = [name for contender in self.contenders for name in contender.known]
        every = [name for contender in self.contenders for name in contender.prompt.classes]
        names = list(unique_names([*names_known, *every]))
        for clip in {id(one.learner.clip): one.learner.clip for one in self.contenders}.values():
            later = {
                position for group in repeated(names, clip.tokenizer) for position in group[1:]
            }
            names = [name for position, name in enumerate(names) if position not in later]
        return tuple(names)

    @cached_property
    def _clips(self) -> Mapping[View, CLIP]:
        return {contender.view: contender.learner.clip for contender in self.contenders}

    def picture(self, data: bytes, label: str, most_pixels: int) -> Picture:
        """An image file as the prompts see it.

        Args:
            label: what errors call it.

        Raises:
            ImageError: it cannot be read, or has more pixels.
        """
        width = height = 0
        views: dict[View, Image.Image] = {}
        for upright in dict.fromkeys(upright for _, upright in self._clips):
            image = read_image(data, upright=upright, name=label, most_pixels=most_pixels)
            width, height = (width, height) if views else image.size
            for view, clip in self._clips.items():
                if view[1] == upright:
                    views[view] = clip.preprocess.crop(image)
        return Picture(width, height, views)

    @torch.no_grad()
    def answer(self, questions: Sequence[Question]) -> list[dict[str, Judgement]]:
        """For each question what the contenders say, by their names.

        All pictures go through a tower in one batch. A contender that cannot choose from the names
        is left out of the answer.

        Raises:
            SimpromptError: a probability is no number.
        """
        if not questions:
            return []
        cache: dict[Hashable, Tensor] = {}
        answers: list[dict[str, Judgement]] = [{} for _ in questions]
        rows_of: dict[Names, list[int]] = {}
        for row, question in enumerate(questions):
            rows_of.setdefault(question.names, []).append(row)
        for contender in self.contenders:
            images = self._images(contender, questions, cache)
            for names, rows in rows_of.items():
                if not contender.answers(names):
                    continue
                probabilities = contender.probabilities(images[rows], names)
                certainties = contender.certainties(images[rows], names, probabilities)
                for row, values, certainty in zip(
                    rows, probabilities.tolist(), certainties, strict=True
                ):
                    answers[row][contender.name] = Judgement(values, certainty)
        return answers

    @torch.no_grad()
    def similarities(self, names: Names) -> dict[str, list[list[float]]]:
        """Cosines between the names' text features, [C][C], by contender.

        A contender that has no text of its own for a list of names is left out: a classifier of
        images, or one whose text needs an image.
        """
        matrices = {}
        for contender in self.contenders:
            learner = contender.learner
            if learner.new_classes and not learner.conditional:
                text = learner.text_features(learner.prompts(names)).float()
                cosines = (text @ text.T).cpu().numpy().astype(np.float64)
                matrices[contender.name] = cosines.round(7).tolist()
        return matrices

    def _images(
        self,
        contender: ServedPrompt,
        questions: Sequence[Question],
        seen: dict[Hashable, Tensor],
    ) -> Tensor:
        """What the learner takes, [N, E] features or [N, 3, S, S] pixels; made once a view."""
        learner, view = contender.learner, contender.view
        clip = learner.clip
        if ("pixels", view) not in seen:
            crops = np.stack([np.asarray(question.picture.views[view]) for question in questions])
            seen["pixels", view] = clip.preprocess.normalise(crops).to(clip.device)
        pixels_of_all = seen["pixels", view]
        if learner.image_input == "pixels":
            return pixels_of_all
        if ("features", view) not in seen:
            seen["encode", view] = clip.encode_pixels(pixels_of_all, unnormalized=True)
        features = seen["encode", view]
        if learner.image_input == "unnormalized":
            return features
        return torch.nn.functional.normalize(features, dim=-1)


def pixels_of(data: bytes, label: str, most: int) -> int:
    """Pixels of an image file, of which only the header is read.

    Raises:
        ImageError: there are more than `most`, or it is of a kind that is not decoded for others.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height, kind = image.width, image.height, str(image.format)
    except Exception:  # `read_image` tells what is wrong with it
        return 0
    if kind not in FORMATS:
        raise ImageError(f"{label}: a file of type {kind}; send a JPEG, PNG or WebP.")
    if width * height > most:
        raise ImageError(f"{label}: {width} x {height} pixels; at most {most:,} are taken.")
    return width * height


def load_prompts(
    paths: Sequence[str | Path], model: str | None = None, tokenizer: str | None = None
) -> list[Prompt]:
    """Saved prompts; those that were learned on the same CLIP share it in memory.

    Args:
        model, tokenizer: for prompts whose model has no public name, as `load_prompt` takes them;
            for all if every prompt's has one.

    Raises:
        SimpromptError: as `load_prompt` does.
    """
    cards = [storage.read(path)[1] for path in paths]
    all_named = all(is_named(card["model"]) for card in cards)
    clips: dict[tuple[str, str | None, int | None, str], CLIP] = {}
    prompts = []
    for path, card in zip(paths, cards, strict=True):
        key = (
            card["model"],
            card.get("tokenizer"),
            card.get("image_size"),
            str(card.get("model_digest")),
        )
        model_given = model if all_named or not is_named(card["model"]) else None
        prompt = load_prompt(
            path, clips.get(key), model=model_given, tokenizer=model_given and tokenizer
        )
        clips[key] = prompt.clip
        prompts.append(prompt)
    return prompts


def _zero_shot(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The hand-crafted prompt of each CLIP and template among these."""
    kind = methods.find("zero-shot")
    by_model: dict[tuple[int, str], Prompt] = {}
    for prompt in prompts:
        learner = prompt.learner
        key = (id(learner.clip), learner.template)
        if key not in by_model and not isinstance(learner, kind):
            untrained = kind(learner.clip, learner.classnames, learner.template, kind.Config())
            by_model[key] = Prompt(untrained, {"upright": prompt.card.get("upright", True)})
    return list(by_model.values())


def _named(prompts: Sequence[Prompt]) -> tuple[ServedPrompt, ...]:
    """Contenders with names that tell them apart: method, +sar, and a number where that is not
    enough."""
    served: list[ServedPrompt] = []
    for prompt in prompts:
        name = prompt.card.get("method", "zero-shot") + ("+sar" if prompt.card.get("sar") else "")
        labels_taken = {contender.name for contender in served}
        number, unique = 2, name
        while unique in labels_taken:
            number, unique = number + 1, f"{name} ({number})"
        served.append(ServedPrompt(unique, prompt))
    return tuple(served)
