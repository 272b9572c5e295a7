"""Learn a prompt from a few images, use it, keep it: `learn`, `Prompt`, `load_prompt`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from simprompt import methods, sar_plus
from simprompt.batched import Run, fit_together, pays, train_together
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.config import SAR, Training, parse
from simprompt.data.dataset import Split
from simprompt.errors import SimpromptError
from simprompt.evaluate import accuracy
from simprompt.features import image_features, view_features, view_rng
from simprompt.files import replacing, write_json
from simprompt.methods.base import PromptLearner
from simprompt.novel.names import NovelList
from simprompt.novel.sources import novel_names
from simprompt.train import Curves, check_sar, epochs_and_steps, train

DEFAULT_TEMPLATE = "a photo of a {}."


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
        """Probabilities [N, C] of the images of a split over `names` (default: the split's)."""
        return self.learner.predict(
            images_of(self.learner, split), split.classnames if names is None else names
        )

    def accuracy(self, split: Split) -> float:
        """Top-1 accuracy in percent on a split, among the split's own class names."""
        return accuracy(self.probabilities(split), torch.tensor(split.labels))

    def predict(self, images: Sequence[Any], classes: Sequence[str]) -> list[Prediction]:
        """Classify images (paths or Pillow images) among `classes`, known before or not.

        Raises:
            SimpromptError: no classes, or a path that is no readable image.
        """
        if not classes:
            raise SimpromptError("predict() needs at least one class name to choose from.")
        pictures = [_open(image) for image in images]
        if self.learner.live_images:
            inputs = torch.stack([self.clip.preprocess(p) for p in pictures])
        else:
            inputs = self.clip.encode_images(pictures)
        rows = self.learner.predict(inputs, classes).tolist()
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]
        return [
            Prediction(classes[i], row[i], tuple(row)) for i, row in zip(best, rows, strict=True)
        ]

    def save(self, path: str | Path) -> Path:
        """Write `path`.safetensors (what was learned) and `path`.json (the card)."""
        stem = Path(path).with_suffix("") if str(path).endswith(".safetensors") else Path(path)
        weights = Path(f"{stem}.safetensors")
        state = {k: v.detach().contiguous().cpu() for k, v in self.learner.state_dict().items()}
        with replacing(weights) as partial:
            save_file(state, str(partial))
        write_json(f"{stem}.json", self.card)
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
    method: str = "coop",
    sar: SAR | None = None,
    *,
    options: dict[str, Any] | None = None,
    training: Training | None = None,
    template: str | None = None,
    novel: Sequence[str] | None = None,
    seed: int = 1,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Prompt:
    """Learn a prompt from a few labelled images.

    Args:
        shots: the training images; their class names are the base classes.
        method: a name from `simprompt methods list`.
        sar: the regulariser's settings; None trains without.
        options: the method's own settings.
        training: schedule and batch size; None takes the method's published ones.
        template: the hand-crafted prompt; None takes the dataset's.
        novel: novel class names for SAR; None takes them from the source `sar.novel` says.
        seed: of the initialisation, the batches and SAR's draws.

    Raises:
        SimpromptError: unknown names or settings, or SAR on a method whose text cannot move.
    """
    ready = prepare(
        clip, shots, method, sar, options=options, training=training, template=template,
        novel=novel, seed=seed,
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
    """All that comes before the training; takes what `learn` takes and raises what it raises."""
    learner_class = methods.find(method)
    config = parse(learner_class.Config, options or {}, f"Settings of {method}")
    origin = shots.origin
    if template is None:
        template = origin.templates[0] if origin else DEFAULT_TEMPLATE
    training = training or learner_class.schedule
    learner = learner_class(clip, shots.classnames, template, config, seed)
    names: NovelList | None = None
    regulariser = None
    if sar is not None:
        check_sar(learner)
        names = _novel_list(clip, shots, sar, novel, seed)
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
        "method": method,
        "options": config.model_dump(mode="json"),
        "template": template,
        "classnames": list(shots.classnames),
        "dataset": origin.dataset if origin else None,
        "seed": seed,
        "training": training.model_dump(mode="json"),
        "sar": sar.model_dump(mode="json") if sar else None,
        "novel": list(names.names) if names else [],
        "novel_provenance": names.provenance if names else None,
    }
    return Untrained(run, training, card, names)


def train_alone(ready: Untrained, on_epoch: Callable[[int, int], None] | None = None) -> Prompt:
    """Train one prepared prompt; the same seed and thread count give the same bits on a CPU."""
    run, curves = ready.run, Curves()
    if run.learner.parameter_count():
        curves = train(
            run.learner, run.images, run.labels, ready.training, run.seed, run.sar, on_epoch
        )
    return ready.prompt(curves)


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


def _novel_list(
    clip: CLIP, shots: Split, sar: SAR, names: Sequence[str] | None, seed: int
) -> NovelList:
    if names is not None:
        return NovelList(tuple(names), "given", {"source": "given by the caller"})
    if sar.novel_count == 0 or sar.novel == "none":
        return NovelList((), "none")
    origin = shots.origin
    return novel_names(
        sar.novel,
        shots.classnames,
        n=sar.novel_count,
        seed=seed,
        dataset=re.split("[:@]", origin.dataset)[0] if origin else "",
        new=origin.other_classes if origin else None,
        keep_overlap=sar.keep_overlap,
        encode=clip.encode_texts,
        count_tokens=lambda name: len(clip.tokenizer.encode(name)),
        max_tokens=clip.config.text.context_length - 8,
    )


def images_of(learner: PromptLearner, split: Split) -> Tensor:
    """What the learner takes: cached features [N, E], or pixels [N, 3, S, S] for a live tower."""
    if not learner.live_images:
        return image_features(learner.clip, split)
    preprocess = learner.clip.preprocess
    return torch.stack([preprocess(split.load(i)) for i in range(len(split))])


def training_views(learner: PromptLearner, shots: Split, training: Training, seed: int) -> Tensor:
    """The views that training draws from: features [N, M, E], or pixels [N, M, 3, S, S].

    `training.views` None: the test-time crop, M = 1. A number: that many augmented views, the
    same in every run. "live": one fresh view for each epoch, in order, by the run's seed.

    Raises:
        SimpromptError: "live" for a learner that needs pixels; they would not fit in memory.
    """
    views = training.views
    if views is None:
        return images_of(learner, shots)[:, None]
    if not learner.live_images:
        if views == "live":
            epochs, _ = epochs_and_steps(len(shots), training)
            return view_features(learner.clip, shots, epochs, seed=seed)
        return view_features(learner.clip, shots, views)
    if views == "live":
        raise SimpromptError(
            f"training.views=live is for methods with a frozen image tower; "
            f"{type(learner).__name__} learns in it. Give a number of views instead."
        )
    see = learner.clip.preprocess.view
    return torch.stack(
        [
            torch.stack([see(shots.load(i), view_rng(0, item, m)) for m in range(views)])
            for i, item in enumerate(shots.items)
        ]
    )


def load_prompt(path: str | Path, clip: CLIP | None = None) -> Prompt:
    """Read what `Prompt.save` wrote.

    Args:
        path: with or without `.safetensors`.
        clip: the model; None loads the one the card names.

    Raises:
        SimpromptError: a file is missing or not a saved prompt, or the model is another size.
    """
    stem = str(path).removesuffix(".safetensors").removesuffix(".json")
    try:
        card = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
        state = load_file(f"{stem}.safetensors")
        method, options = card["method"], card["options"]
    except Exception as error:
        raise SimpromptError(
            f"{stem}.safetensors with its card {stem}.json is not a saved prompt: {error}. "
            "Give the path that Prompt.save or `simprompt run` wrote."
        ) from None
    clip = clip or load_clip(card["model"], tokenizer=card.get("tokenizer"))
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


def _open(image: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Image.Image):
        return image
    try:
        with Image.open(image) as opened:
            opened.load()
            return opened
    except (OSError, UnidentifiedImageError) as error:
        raise SimpromptError(f"{image} could not be read as an image: {error}.") from None
