"""Several prompts that answer the same images, side by side.

Images go through a frozen tower once for all prompts that share it; a prompt whose image tower is
live sees the pixels itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from simprompt import methods, saved
from simprompt.clip.hub import is_named
from simprompt.clip.model import CLIP
from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner
from simprompt.prompt import Prompt, load_prompt

Names = tuple[str, ...]


@dataclass(frozen=True)
class Contender:
    """One of the classifiers that answer side by side.

    Args:
        name: short and unique, such as "coop+sar".
        prompt: zero-shot's has an empty card.
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

    def answers(self, names: Names) -> bool:
        """Whether it can choose from these names; a classifier of images knows its own alone."""
        return self.learner.new_classes or set(names) <= set(self.known)


@dataclass(frozen=True)
class Question:
    """An upright RGB image, and the names to choose from."""

    picture: Image
    names: Names


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

    @property
    def names(self) -> Names:
        """The classes that the prompts were learned on and the new ones they were given."""
        known = [name for contender in self.contenders for name in contender.known]
        every = [name for contender in self.contenders for name in contender.prompt.classes]
        return tuple(dict.fromkeys([*known, *every]))

    @torch.no_grad()
    def answer(self, questions: Sequence[Question]) -> list[dict[str, list[float]]]:
        """For each question the probabilities of its names, by contender.

        All pictures go through a tower in one batch. A contender that cannot choose from the names
        is left out of the answer.

        Raises:
            SimpromptError: a probability is no number.
        """
        if not questions:
            return []
        seen: dict[Hashable, Tensor] = {}
        answers: list[dict[str, list[float]]] = [{} for _ in questions]
        rows_of: dict[Names, list[int]] = {}
        for row, question in enumerate(questions):
            rows_of.setdefault(question.names, []).append(row)
        for contender in self.contenders:
            images = self._images(contender.learner, questions, seen)
            for names, rows in rows_of.items():
                if not contender.answers(names):
                    continue
                made = contender.prompt.classifier(names)(images[rows])
                if not made.isfinite().all():
                    raise SimpromptError(
                        f"A probability of {contender.name} is not a number: the prompt, or "
                        f"{contender.learner.clip.name}, gives features with NaN or infinity. "
                        "Learn the prompt again, in float32."
                    )
                for row, values in zip(rows, made.tolist(), strict=True):
                    answers[row][contender.name] = values
        return answers

    @torch.no_grad()
    def similarities(self, names: Names) -> dict[str, list[list[float]]]:
        """Cosines between the names' text features, [C][C], by contender.

        A contender that has no text of its own for a list of names is left out: a classifier of
        images, or one whose text needs an image.
        """
        made = {}
        for contender in self.contenders:
            learner = contender.learner
            if learner.new_classes and not learner.conditional:
                text = learner.text_features(learner.prompts(names)).float()
                made[contender.name] = (text @ text.T).tolist()
        return made

    def _images(
        self,
        learner: PromptLearner[Any],
        questions: Sequence[Question],
        seen: dict[Hashable, Tensor],
    ) -> Tensor:
        """What the learner takes, [N, E] features or [N, 3, S, S] pixels; made once a tower."""
        clip = learner.clip
        if ("pixels", id(clip)) not in seen:
            pixels = [clip.preprocess(question.picture) for question in questions]
            seen["pixels", id(clip)] = torch.stack(pixels).to(clip.device)
        pixels_of_all = seen["pixels", id(clip)]
        if learner.live_images:
            return pixels_of_all
        if ("features", id(clip)) not in seen:
            seen["features", id(clip)] = clip.encode_pixels(pixels_of_all, natural=True)
        features = seen["features", id(clip)]
        return features if learner.natural else torch.nn.functional.normalize(features, dim=-1)


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
    cards = [saved.read(path)[1] for path in paths]
    all_named = all(is_named(card["model"]) for card in cards)
    clips: dict[tuple[str, str | None, int | None, str], CLIP] = {}
    prompts = []
    for path, card in zip(paths, cards, strict=True):
        key = (card["model"], card.get("tokenizer"), card.get("image_size"),
               str(card.get("model_digest")))  # fmt: skip
        given = model if all_named or not is_named(card["model"]) else None
        prompt = load_prompt(path, clips.get(key), model=given, tokenizer=given and tokenizer)
        clips[key] = prompt.clip
        prompts.append(prompt)
    return prompts


def _zero_shot(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The hand-crafted prompt of each CLIP and template among these."""
    kind = methods.find("zero-shot")
    made: dict[tuple[int, str], Prompt] = {}
    for prompt in prompts:
        learner = prompt.learner
        key = (id(learner.clip), learner.template)
        if key not in made and not isinstance(learner, kind):
            plain = kind(learner.clip, learner.classnames, learner.template, kind.Config())
            made[key] = Prompt(plain, {})
    return list(made.values())


def _named(prompts: Sequence[Prompt]) -> tuple[Contender, ...]:
    """Contenders with names that tell them apart: method, +sar, and a number where that is not
    enough."""
    made: list[Contender] = []
    for prompt in prompts:
        name = prompt.card.get("method", "zero-shot") + ("+sar" if prompt.card.get("sar") else "")
        taken = {one.name for one in made}
        number, unique = 2, name
        while unique in taken:
            number, unique = number + 1, f"{name} ({number})"
        made.append(Contender(unique, prompt))
    return tuple(made)
