"""Learn a prompt from a few images, use it, keep it: `learn`, `Prompt`, `load_prompt`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from simprompt import methods, plans, sar_plus
from simprompt.batched import Run, fit_together, pays
from simprompt.clip.hub import load_clip
from simprompt.clip.layouts.common import not_finite
from simprompt.clip.model import CLIP
from simprompt.config import DEFAULT_TEMPLATE, SAR, Settings, Training, parse
from simprompt.data import coop
from simprompt.data.dataset import Split
from simprompt.data.images import read_image
from simprompt.errors import SimpromptError
from simprompt.evaluate import accuracy
from simprompt.features import images_of, training_views
from simprompt.files.whole import checksum, replacing, write_json
from simprompt.methods.base import PromptLearner
from simprompt.novel.names import NovelList
from simprompt.novel.sources import names_of_run
from simprompt.train import Curves, DivergedError, check_sar, train, train_together


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of one image, and the probability of every class in the given order."""

    name: str
    probability: float
    probabilities: tuple[float, ...]


@dataclass
class Prompt:
    """A learned prompt on its frozen CLIP: a classifier for any list of class names.

    Attributes:
        card: how it was made, plain JSON values; stored beside the weights.
        curves: losses while it was trained; None for a loaded prompt.
        novel: the novel class names SAR used; None without SAR or for a loaded prompt.
    """

    learner: PromptLearner
    card: dict[str, Any]
    curves: Curves | None = None
    novel: NovelList | None = field(default=None, repr=False)

    @property
    def clip(self) -> CLIP:
        return self.learner.clip

    @torch.no_grad()
    def text_features(self, names: Sequence[str]) -> Tensor:
        """Normalised text features [C, E] of class names behind this prompt."""
        return self.learner.text_features(self.learner.prompts(names))

    def probabilities(self, split: Split, names: Sequence[str] | None = None) -> Tensor:
        """Probabilities [N, C] of the images of a split over `names` (default: the split's).

        Raises:
            SimpromptError: a probability is NaN.
        """
        given = images_of(self.learner, split)
        made = self.learner.predict(given, split.classnames if names is None else names)
        return self._numbers(made, split.items)

    def accuracy(self, split: Split) -> float:
        """Top-1 accuracy in percent on a split, among the split's own class names."""
        return accuracy(self.probabilities(split), torch.tensor(split.labels))

    def predict(
        self, images: Sequence[Any], classes: Sequence[str], *, upright: bool | None = None
    ) -> list[Prediction]:
        """Classify images among `classes`, known before or not.

        Args:
            images: each one as `data.images.read_image` takes it: a path, the bytes of a file, an
                open file, a Pillow image, an array. All are read as the training images were.
            upright: turn photos as their EXIF orientation says; None does as was done with the
                images that the prompt was learned from (``card["upright"]``).

        Raises:
            SimpromptError: no classes, one that cannot be read as an image, or a probability that
                is NaN.
        """
        if not classes:
            raise SimpromptError("predict() needs at least one class name to choose from.")
        if isinstance(images, str | bytes | Path | Image.Image):
            raise SimpromptError("predict() takes a list of images; put the one image into [].")
        turn = self.card.get("upright", True) if upright is None else upright
        names = [
            str(image) if isinstance(image, str | os.PathLike) else f"images[{i}]"
            for i, image in enumerate(images)
        ]
        pictures = [
            read_image(image, upright=turn, name=name)
            for image, name in zip(images, names, strict=True)
        ]
        if self.learner.live_images:
            inputs = torch.stack([self.clip.preprocess(p) for p in pictures])
        else:
            inputs = self.clip.encode_images(pictures, natural=self.learner.natural)
        rows = self._numbers(self.learner.predict(inputs, classes), names).tolist()
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]
        return [
            Prediction(classes[i], row[i], tuple(row)) for i, row in zip(best, rows, strict=True)
        ]

    def _numbers(self, probabilities: Tensor, images: Sequence[str]) -> Tensor:
        """Probabilities [N, C] of these images, none of which is NaN."""
        wrong = (~probabilities.isfinite()).any(-1).nonzero().flatten().tolist()
        if wrong:
            raise SimpromptError(
                f"The probabilities of {len(wrong)} of {len(images)} images are not numbers, of "
                f"{images[wrong[0]]} for one: the prompt, or {self.clip.name} in its present "
                "precision, gives features that hold NaN or infinity."
            )
        return probabilities

    def save(self, path: str | Path) -> Path:
        """Write `path`.safetensors (what was learned) and `path`.json (the card).

        Raises:
            SimpromptError: what was learned is not finite; nothing is written.
        """
        stem = Path(path).with_suffix("") if str(path).endswith(".safetensors") else Path(path)
        weights = Path(f"{stem}.safetensors")
        state = {k: v.detach().contiguous().cpu() for k, v in self.learner.state_dict().items()}
        if name := not_finite(state):
            raise SimpromptError(
                f"The prompt is not saved to {weights}: its {name} holds NaN or infinity."
            )
        with replacing(weights) as partial:
            save_file(state, str(partial))
        write_json(f"{stem}.json", {**self.card, "checksum": checksum(weights.read_bytes())})
        return weights


@dataclass
class Untrained:
    """A prompt before its training; what `prepare` makes.

    Attributes:
        run: the learner and all that it learns from; no images where nothing is learned.
        card, novel: as in `Prompt`.
    """

    run: Run
    training: Training
    card: dict[str, Any]
    novel: NovelList | None

    def prompt(self, curves: Curves) -> Prompt:
        """The prompt, now that the learner is trained."""
        return Prompt(self.run.learner, self.card, curves, self.novel)


def learn(
    clip: CLIP,
    shots: Split,
    method: str | None = None,
    sar: bool | float | Mapping[str, Any] | SAR | None = False,
    *,
    recipe: str | None = None,
    options: Mapping[str, Any] | None = None,
    training: Training | Mapping[str, Any] | None = None,
    template: str | None = None,
    novel: Sequence[str] | None = None,
    seed: int = 1,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Prompt:
    """Learn a prompt from a few labelled images, as `simprompt run` and `simprompt learn` do.

    Settings begin with a recipe. A dict changes single settings of it, an object takes the place
    of all of them: `training={"epochs": 20}` and `training=Training(epochs=20)`.

    Args:
        shots: the training images; their class names are the base classes.
        method: a name from `simprompt methods list`; None takes the recipe's, or CoOp.
        sar: False or None trains without SAR, True with the recipe's, a number with the recipe's
            and this weight; a dict or `SAR(...)` as said above.
        recipe: a recipe's name or file; "published" for the settings of the method's authors.
            None takes the recipe METHOD@MODEL, such as `coop@icons`; the published settings where
            there is none.
        options: the method's own settings, over the recipe's.
        training: schedule and batch size, as said above.
        template: the hand-crafted prompt; None takes the recipe's, or else the dataset's.
        novel: novel class names for SAR; None takes them from the source `sar.novel` says.
        seed: of the initialisation, the batches and SAR's draws.

    Raises:
        SimpromptError: unknown names or settings, a recipe of another method, SAR on a method
            whose text cannot move, or novel names that would have no effect.
        DivergedError: a loss or the prompt is not finite; its `prompt` is the last good one.
    """
    if novel is not None:
        plans.check_given_names(sar)
    config = plans.given(
        shots.origin.dataset if shots.origin else "", clip.source["name"], method, sar,
        recipe=recipe, options=options, training=training, template=template, seed=seed,
    )  # fmt: skip
    ready = prepare(
        clip, shots, config.method, config.sar, options=config.options, training=config.training,
        template=plans.template_of(config), novel=novel, seed=seed,
    )  # fmt: skip
    return train_alone(ready, on_epoch)


def prepare(
    clip: CLIP,
    shots: Split,
    method: str = "coop",
    sar: SAR | None = None,
    *,
    options: dict[str, Any] | None = None,
    training: Training | None = None,
    template: str | None = None,
    novel: Sequence[str] | None = None,
    seed: int = 1,
) -> Untrained:
    """All that comes before the training.

    Takes and raises what `learn` does, but that the settings are what they are: no recipe comes
    beneath them.
    """
    learner_class = methods.find(method)
    config = parse(learner_class.Config, options or {}, f"Settings of {method}")
    origin = shots.origin
    if template is None:
        template = origin.templates[0] if origin else DEFAULT_TEMPLATE
    config = _with_student(config, origin.dataset if origin else "")
    training = training or learner_class.schedule
    learner = learner_class(clip, shots.classnames, template, config, seed)
    names: NovelList | None = None
    regulariser = None
    if sar is not None:
        check_sar(learner)
        names = names_of_run(sar, clip, shots.classnames, origin, seed=seed, given=novel)
        everyone = [*shots.classnames, *names.names]
        regulariser = (
            sar_plus.regulariser(sar, learner, everyone, origin.templates if origin else (), seed),
            learner.prompts(everyone),
        )
    learns = learner.parameter_count() > 0
    images = training_views(learner, shots, training, seed) if learns else torch.empty(0)
    run = Run(learner, images, torch.tensor(shots.labels), seed, regulariser)
    card = {
        "format": 1,
        "model": clip.source["name"],
        "tokenizer": clip.source.get("tokenizer"),
        "image_size": clip.source.get("image_size"),
        "notes": list(clip.notes),
        "method": method,
        "options": config.model_dump(mode="json"),
        "template": template,
        "classnames": list(shots.classnames),
        "dataset": origin.dataset if origin else None,
        "upright": getattr(shots.loader, "upright", True),
        "seed": seed,
        "training": training.model_dump(mode="json"),
        "sar": sar.model_dump(mode="json") if sar else None,
        "novel": list(names.names) if names else [],
        "novel_provenance": names.provenance if names else None,
    }
    return Untrained(run, training, card, names)


def _with_student(config: Settings, dataset: str) -> Settings:
    """The settings with the student template's words in place of a template set's name."""
    student = getattr(config, "student", None)
    if student is None or "{}" in student:
        return config
    return config.model_copy(
        update={"student": coop.template_in(student, re.split("[:@]", dataset)[0])}
    )


def train_alone(ready: Untrained, on_epoch: Callable[[int, int], None] | None = None) -> Prompt:
    """Train one prepared prompt; the same seed and thread count give the same bits on a CPU."""
    run, curves = ready.run, Curves()
    if run.learner.parameter_count():
        try:
            curves = train(
                run.learner, run.images, run.labels, ready.training, run.seed, run.sar, on_epoch
            )
        except DivergedError as error:
            if error.restored:
                card = ready.card | {"diverged": str(error)}
                error.prompt = Prompt(run.learner, card, None, ready.novel)
            raise
    return ready.prompt(curves)


@contextmanager
def keeping_last_good(path: str | Path) -> Iterator[None]:
    """If learning diverges in here, save the last good prompt to `path` and say so."""
    try:
        yield
    except DivergedError as error:
        if error.prompt is None:
            raise
        raise DivergedError(f"{error} It is kept in {error.prompt.save(path)}.") from error


def train_many(ready: Sequence[Untrained]) -> list[Prompt]:
    """Train prepared prompts that `fit`, as one text batch; a single one by the plain loop."""
    if len(ready) == 1:
        return [train_alone(ready[0])]
    curves = train_together([one.run for one in ready], ready[0].training)
    return [one.prompt(own) for one, own in zip(ready, curves, strict=True)]


def fit(ready: Sequence[Untrained]) -> bool:
    """Whether these prompts can be trained as one text batch, and gain by it."""
    runs, training = [one.run for one in ready], ready[0].training
    same = all(one.training == training for one in ready)
    return same and fit_together(runs, training) and pays(runs)


def load_prompt(path: str | Path, clip: CLIP | None = None) -> Prompt:
    """Read what `Prompt.save` wrote.

    Args:
        path: with or without `.safetensors`.
        clip: the model; None loads the one the card names.

    Raises:
        SimpromptError: a file is missing or not a saved prompt, what it holds is not finite, or
            the model is another size.
    """
    stem = str(path).removesuffix(".safetensors").removesuffix(".json")
    try:
        card = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
        written = card.pop("checksum", None)
        if written and checksum(Path(f"{stem}.safetensors").read_bytes()) != written:
            raise ValueError("the weights are not those that the card was written with")
        state = load_file(f"{stem}.safetensors")
        method, options = card["method"], card["options"]
    except Exception as error:
        raise SimpromptError(
            f"{stem}.safetensors with its card {stem}.json is not a saved prompt: {error}. "
            "Give the path that Prompt.save or `simprompt run` wrote."
        ) from None
    if name := not_finite(state):
        raise SimpromptError(
            f"The prompt {stem}.safetensors cannot be used: its {name} holds NaN or infinity. "
            "Learn it again."
        )
    clip = clip or load_clip(
        card["model"], tokenizer=card.get("tokenizer"), image_size=card.get("image_size")
    )
    learner_class = methods.find(method)
    config = parse(learner_class.Config, options, f"Settings of {method} in {stem}.json")
    learner = learner_class(clip, card["classnames"], card["template"], config, card["seed"])
    try:
        learner.load_state_dict(state)
    except RuntimeError as error:
        raise SimpromptError(
            f"The prompt {stem} was learned for the model {card['model']} and does not fit "
            f"{clip.name}: {error}."
        ) from None
    return Prompt(learner, card)
