"""Learn a prompt from a few images, use it, keep it: `learn`, `Prompt`, `load_prompt`."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simprompt import methods
from simprompt._version import __version__
from simprompt.clip import domain, fingerprint
from simprompt.clip.hub import is_named, load_clip, public_name, remember, remembered
from simprompt.clip.layouts.common import not_finite
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import (
    check_apart,
    class_names,
    new_names,
    unique_names,
    unread_warning,
)
from simprompt.config import DEFAULT_TEMPLATE, SAR, Settings, Training, check_template, parse
from simprompt.data import coop
from simprompt.data.dataset import Origin, Split, check_learnable, html_table
from simprompt.data.images import READER, ImageError, is_one, read_image
from simprompt.errors import SimpromptError, check_argument, check_count
from simprompt.features.cache import images_of
from simprompt.features.digests import CODE, digest, item_keys, of_model
from simprompt.methods import code_digests
from simprompt.methods.base import PromptLearner
from simprompt.metrics import accuracy
from simprompt.novel.names import NovelList
from simprompt.novel.sources import names_of_run
from simprompt.prompt import storage
from simprompt.recipes import plan
from simprompt.regularisers import sar_plus
from simprompt.training.joint import TrainingJob, fit_together, pays
from simprompt.training.loop import Curves, DivergedError, check_sar, train, train_together
from simprompt.training.views import training_views
from simprompt.utils.cache import Memo
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.devices import DTYPES
from simprompt.utils.gradients import in_frozen_mode, trains
from simprompt.utils.memory import OOMRetry, advice
from simprompt.utils.prefetch import read_ahead
from simprompt.utils.progress import has_listener, progress_shown, report_progress

MOST_LISTS, MOST_NAMES = 16, 1 << 13
"""Lists of names whose classes a prompt keeps encoded, and names in all of them."""


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of one image, and the probability of every class in the given order.

    `certainty` is what a threshold for "none of these" is compared with, where it was asked for:
    the probability of `name` with the prompt's own classes among the candidates as well.
    """

    name: str
    probability: float
    probabilities: tuple[float, ...]
    certainty: float | None = None


@dataclass
class Prompt:
    """A learned prompt on its frozen CLIP: a classifier for any list of class names.

    Thread-safe: one prompt may answer many threads at once, each as if it were alone. A call uses
    the temperature of the moment when it began, so `calibrated` changes no call that is under way.
    Training the same learner again is not thread-safe. A pickle or copy of a prompt holds the
    model and what was learned, not the encoded class names.

    Attributes:
        card: how it was made, plain JSON values; stored beside the weights.
        curves: losses while it was trained; None for a loaded prompt.
        novel: the novel class names SAR used; None without SAR or for a loaded prompt.
    """

    learner: PromptLearner[Any]
    card: dict[str, Any]
    curves: Curves | None = None
    novel: NovelList | None = field(default=None, repr=False)
    _classifiers: Memo[tuple[tuple[str, ...], float], Callable[[Tensor], Tensor]] = field(
        default_factory=lambda: Memo(MOST_NAMES), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self.calibrated(self.card.get("calibration"))

    def calibrated(self, values: Mapping[str, Any] | None) -> None:
        """Give probabilities at these values of `storage.Calibration`; None: as learned."""
        self.learner.temperature = float(values["temperature"]) if values else 1.0
        if values:
            self.card["calibration"] = dict(values)
        else:
            self.card.pop("calibration", None)

    def __repr__(self) -> str:
        sar = "+sar" if self.card.get("sar") else ""
        method = f"{self.card.get('method', type(self.learner).__name__)}{sar}"
        new = len(self.classes) - len(self.learner.classnames)
        return (
            f"<Prompt {method} on {self.clip.name}: {len(self.learner.classnames)} classes"
            f"{f' and {new} new' if new else ''}, {self.learner.parameter_count():,} numbers>"
        )

    def _repr_html_(self) -> str:
        """How it was made, for notebooks."""
        names = ("method", "model", "template", "dataset", "shots", "seed", "options", "training",
                 "sar", "calibration", "metrics")  # fmt: skip
        rows: list[tuple[object, object]] = [("classes", ", ".join(self.classes[:20]))]
        rows += [(name, self.card[name]) for name in names if self.card.get(name)]
        return html_table(repr(self), ("", ""), rows)

    @property
    def clip(self) -> CLIP:
        """The frozen model."""
        return self.learner.clip

    @torch.no_grad()
    def text_features(self, names: Sequence[str]) -> Tensor:
        """Normalised text features [C, E] of class names behind this prompt, on the CPU.

        Raises:
            SimpromptError: no list of names.
        """
        spared = OOMRetry("Encoding the class names", advice(self.clip.device.type))
        prompts = self.learner.prompts(class_names(names, "names"))
        return spared(lambda: self.learner.text_features(prompts).cpu())

    def probabilities(self, split: Split, names: Sequence[str] | None = None) -> Tensor:
        """Probabilities [N, C] of the images of a split over `names` (default: the split's), on the
        CPU.

        Raises:
            SimpromptError: a probability is NaN, or two of `names` are one text for the model.
        """
        check_argument(split, Split, "probabilities()", "a split, such as data.new.test")
        if names is not None:
            names = class_names(names, "names")
            if not _published(split.origin):
                check_apart(names, self.clip.tokenizer)
        names = split.classnames if names is None else names
        classify = self.learner.classifier(names)
        parts = [classify(part) for part in images_of(self.learner, split)]
        made = torch.cat(parts) if parts else torch.zeros(0, len(names))
        return self._numbers(made, split.items)

    def accuracy(self, split: Split) -> float:
        """Top-1 accuracy in percent on a split, among the split's own class names."""
        check_argument(split, Split, "accuracy()", "a split, such as data.new.test")
        return accuracy(self.probabilities(split), torch.tensor(split.labels))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes it was learned on, and the new ones it was given; a new one that is one text
        with a class is that class."""
        return unique_names((*self.learner.classnames, *self.card.get("new_classes", ())))

    @property
    def unknown(self) -> float:
        """The probability below which an image is none of the classes; 0 where that was not
        calibrated."""
        return float((self.card.get("calibration") or {}).get("unknown", 0.0))

    @property
    def known(self) -> tuple[str, ...]:
        """The classes that the threshold `unknown` was fitted among; `classes` without one."""
        return tuple((self.card.get("calibration") or {}).get("among") or self.classes)

    def judged_among(self, names: Sequence[str]) -> tuple[str, ...]:
        """The candidates of `Prediction.certainty`: these names, then those of `known` that are
        other texts.

        The probability of an answer says how much likelier it is than the other candidates. With
        one candidate it is always 1, so a threshold needs candidates that do not depend on what is
        asked.

        Raises:
            SimpromptError: the answers would still have a single candidate.
        """
        everyone = (*names, *new_names(self.known, names))
        if len(everyone) < 2:
            raise SimpromptError(
                f'A threshold for "none of these" needs a second name to compare with; '
                f"{everyone[0]!r} is the only one here and in the prompt. Give more names."
            )
        return everyone

    def check_threshold(self, names: Sequence[str]) -> None:
        """Whether the calibrated threshold can be used where images are classified among `names`.

        Raises:
            SimpromptError: the prompt has none, or gives a name's answers in another way beside
                names that it was not calibrated with.
        """
        if not self.card.get("calibration"):
            raise SimpromptError(
                "This prompt has no threshold of its own: it was not calibrated. Give a number, "
                "such as --unknown 0.3."
            )
        asked, fitted = self.judged_among(names), self.known
        if not self.learner.joint_answers and len(asked) > len(fitted):
            raise SimpromptError(
                f"The threshold of this {self.card['method']} prompt was fitted among "
                f"{len(fitted)} names, and with other names the method classifies in another way. "
                "Use a number, such as --unknown 0.3, or only these names."
            )

    def classifier(self, names: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """What the learner takes of N images -> probabilities [N, C] over these names.

        The names are encoded once; the lists used last are kept (`MOST_LISTS`, `MOST_NAMES`). The
        function that is returned is thread-safe and keeps the temperature of this moment.

        Raises:
            SimpromptError: no list of names, none in it, or two that are one text for the model.
        """
        key = class_names(names)

        def classifier() -> Callable[[Tensor], Tensor]:
            check_apart(key, self.clip.tokenizer)
            return self.learner.classifier(key)

        weight = max(len(key), MOST_NAMES // MOST_LISTS)
        return self._classifiers.get((key, self.learner.temperature), classifier, weight)

    def predict(
        self, images: Any, classes: Sequence[str] | None = None, *, upright: bool | None = None
    ) -> Any:
        """Classify images among `classes`, known before or not.

        Args:
            images: one image, or many: a list, an array or tensor with one dimension more, a
                generator. Each as `data.images.read_image` takes it: a path, the bytes of a file,
                an open file, a Pillow image, an array, a tensor. All are read as the training
                images were.
            classes: None takes `classes`.
            upright: turn photos as their EXIF orientation says; None does as was done with the
                images that the prompt was learned from (``card["upright"]``).

        Returns:
            A `Prediction` for one image, a list of them for many.

        Raises:
            SimpromptError: no classes, two that are one text for the model, something that
                cannot be read as an image, or a probability that is NaN.
        """
        if is_one(images):
            return next(iter(self.stream([images], classes, upright=upright)))
        return list(self.stream(images, classes, upright=upright))

    def stream(
        self,
        images: Iterable[Any],
        classes: Sequence[str] | None = None,
        *,
        upright: bool | None = None,
        batch: int = 32,
        certain: bool = False,
    ) -> Iterator[Prediction]:
        """Predictions of many images, one by one, as `predict` makes them; `batch` images are
        asked for at a time, so nothing grows with their number. `certain`: with their
        `Prediction.certainty`."""
        for made in self.stream_with_errors(
            images, classes, upright=upright, batch=batch, certain=certain
        ):
            if isinstance(made, ImageError):
                raise made
            yield made

    def stream_with_errors(
        self,
        images: Iterable[Any],
        classes: Sequence[str] | None = None,
        *,
        upright: bool | None = None,
        batch: int = 32,
        certain: bool = False,
    ) -> Iterator[Prediction | ImageError]:
        """As `stream`, with the `ImageError` in the place of an image that cannot be read."""
        if is_one(images) or not isinstance(images, Iterable):
            raise SimpromptError(
                f"stream() takes many images, such as a list of paths; got a single "
                f"{type(images).__name__}."
            )
        check_count(batch, "batch")
        names = self.classes if classes is None else class_names(classes)
        classify = self.classifier(names)
        judge = None
        if certain:  # the prompt may have no class beside these names
            among = self.judged_among(names)
            judge = classify if len(among) == len(names) else self.classifier(among)
        turn = self.card.get("upright", True) if upright is None else upright

        def read_one(numbered: tuple[int, Any]) -> tuple[str, Tensor | ImageError]:
            number, image = numbered
            path = isinstance(image, str | os.PathLike)
            label = str(image) if path else f"images[{number}]"
            return label, self._pixels(image, label, turn)

        read = read_ahead(read_one, enumerate(images), batch)
        while some := [*itertools.islice(read, batch)]:
            yield from self._answers(some, names, classify, judge)

    def _pixels(self, image: Any, label: str, turn: bool) -> Tensor | ImageError:
        """An image as the tower takes it, [3, S, S], or why not."""
        try:
            picture = read_image(image, upright=turn, name=label)
        except ImageError as error:
            return error
        return self.clip.preprocess(picture)

    def _answers(
        self,
        read: Sequence[tuple[str, Tensor | ImageError]],
        names: Sequence[str],
        classify: Callable[[Tensor], Tensor],
        judge: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Prediction | ImageError]:
        pixels = [one for _, one in read if isinstance(one, Tensor)]
        rows: Iterator[list[float]] = iter(())
        judged: Iterator[list[float]] = iter(())
        if pixels:
            labels = [label for label, one in read if isinstance(one, Tensor)]
            taken = self.taken(torch.stack(pixels))
            made = classify(taken)
            rows = iter(self._numbers(made, labels).tolist())
            if judge is not None:
                own = made if judge is classify else judge(taken)
                judged = iter(self._numbers(own, labels).tolist())
        for _, one in read:
            if isinstance(one, ImageError):
                yield one
                continue
            row = next(rows)
            best = max(range(len(row)), key=row.__getitem__)
            certainty = None if judge is None else next(judged)[best]
            yield Prediction(names[best], row[best], tuple(row), certainty)

    def taken(self, pixels: Tensor) -> Tensor:
        """What the learner takes of preprocessed pixels [N, 3, S, S]: features, or themselves."""
        if self.learner.live_images:
            return pixels
        return self.clip.encode_pixels(pixels, unnormalized=self.learner.unnormalized)

    def _numbers(self, probabilities: Tensor, images: Sequence[str]) -> Tensor:
        """Probabilities [N, C] of these images, none of which is NaN."""
        wrong = (~probabilities.isfinite()).any(-1).nonzero().flatten().tolist()
        if wrong:
            raise SimpromptError(
                f"The probabilities of {len(wrong)} of {len(images)} images are not numbers, of "
                f"{images[wrong[0]]} for one: the prompt, or {self.clip.name} in its present "
                "precision, gives features that hold NaN or infinity. Load the model in float32, "
                "or learn the prompt again."
            )
        return probabilities

    def save(self, path: str | Path) -> Path:
        """Write the prompt's folder, see `prompt.storage`; returns it. A suffix is left out.

        Raises:
            SimpromptError: what was learned is not finite, or the folder cannot be written; nothing
                is written then.
        """
        folder = str(path).removesuffix(".safetensors")
        state = self._state(folder)
        try:
            return storage.write(folder, state, dict(self.card))
        except ValueError as error:  # a name that no folder can have
            raise SimpromptError(
                f"The prompt cannot be saved to {folder!r:.200}: {error}."
            ) from None

    def write_files(self, stem: Path) -> None:
        """Write `stem`.safetensors and `stem`.json, as a run keeps them among its files.

        Raises:
            SimpromptError: what was learned is not finite; nothing is written.
        """
        state = self._state(stem)
        card = dict(self.card)
        storage.write_files(Path(f"{stem}.safetensors"), Path(f"{stem}.json"), state, card)

    def _state(self, path: str | Path) -> dict[str, Tensor]:
        state = {k: v.detach().contiguous().cpu() for k, v in self.learner.state_dict().items()}
        if name := not_finite(state):
            raise SimpromptError(
                f"The prompt is not saved to {path}: its {name} holds NaN or infinity. Learn "
                "it again, with a smaller training.lr."
            )
        return state


def _published(origin: Origin | None) -> bool:
    """Whether class names are those of the field's datasets. ImageNet's hold two names twice."""
    return origin is not None and re.split("[:@]", origin.dataset)[0] in coop.specs()


@dataclass
class PreparedPrompt:
    """A prompt before its training; what `prepare` makes.

    Attributes:
        run: the learner and all that it learns from; no images where nothing is learned.
        card, novel: as in `Prompt`.
        shots: the images that it learns from.
    """

    run: TrainingJob
    training: Training
    card: dict[str, Any]
    novel: NovelList | None
    shots: Split

    def key(self) -> str:
        """What stands for all that the training depends on, by content."""
        made = {"simprompt", "notes", "format"}
        card = {name: value for name, value in self.card.items() if name not in made}
        origin = self.shots.origin
        templates = list(origin.templates) if origin else []  # those of SAR's ensemble
        images = [item_keys(self.shots), list(self.shots.labels)]
        return digest([CODE, READER, card, templates, *images])

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
    progress: bool = True,
    checkpoint: str | Path | None = None,
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
        on_epoch: told (epochs done, epochs) instead of the bar.
        progress: show a bar, in a terminal or a notebook.
        checkpoint: a file to keep the training in every minute. If it is there, of the same
            images, model and settings, the training goes on from it, to the same bits on a CPU. It
            is deleted when the prompt is learned.

    Raises:
        SimpromptError: unknown names or settings, a recipe of another method, SAR on a method
            whose text cannot move, novel names that would have no effect, or two classes that are
            one text for the model.
        DivergedError: a loss or the prompt is not finite; its `prompt` is the last good one.
    """
    for value, kind, what in (
        (clip, CLIP, 'a CLIP, such as simprompt.load_clip("icons")'),
        (shots, Split, "a split of a dataset, such as data.base.few_shot(16)"),
        (training, Mapping | Training | None, "a dictionary or Training(...)"),
        (options, Mapping | None, "a dictionary"),
        (sar, bool | float | int | Mapping | SAR | None, "sar=True, a weight, a dictionary, SAR()"),
        (method, str | None, 'a method by its name, such as "coop"'),
        (recipe, str | Path | None, "a recipe's name or file"),
        (template, str | None, 'a template, such as "a photo of a {}."'),
        (seed, int, "a whole number as seed"),
        (checkpoint, str | Path | None, "a path as checkpoint"),
    ):
        check_argument(value, kind, "learn()", what)
    if on_epoch is not None and not callable(on_epoch):
        raise SimpromptError(f"learn() takes a function as on_epoch; got {on_epoch!r:.100}.")
    recipe = None if recipe is None else str(recipe)
    check_learnable(shots.classnames, len(shots), "The split given to learn()")
    if novel is not None:
        plan.check_given_names(sar)
    config = plan.given(
        shots.origin.dataset if shots.origin else "", clip.source["name"], method, sar,
        recipe=recipe, options=options, training=training, template=template, seed=seed,
    )  # fmt: skip
    names = class_names(shots.classnames, "classnames")
    for sentence in unread_warning(names, clip.tokenizer):
        warnings.warn(sentence, stacklevel=2)
    if unlike := domain.unlike_warning(clip, domain.unlike_share(clip, shots)):
        warnings.warn(unlike, stacklevel=2)
    bar = on_epoch is None and not has_listener()
    with progress_shown(quiet=not progress, lines=False) if bar else nullcontext():
        ready = prepare(  # encodes the images, which may take longer than the training
            clip, shots, config.method, config.sar, options=config.options,
            training=config.training, template=plan.template_of(config), novel=novel, seed=seed,
        )  # fmt: skip
        kept = Checkpoint(checkpoint, [ready.key()]) if checkpoint else None
        told = on_epoch or (lambda done, total: report_progress("epochs learned", done, total))
        prompt = train_alone(ready, told, kept)
    if kept:
        kept.remove()
    return prompt


@trains
def prepare(
    clip: CLIP,
    shots: Split,
    method: str = "coop",
    sar: SAR | None = None,
    *,
    options: dict[str, Any] | None = None,
    training: Training | None = None,
    template: str | None = None,
    novel: Sequence[str] | NovelList | None = None,
    seed: int = 1,
) -> PreparedPrompt:
    """All that comes before the training.

    Takes and raises what `learn` does, but that the settings are what they are: no recipe comes
    beneath them.
    """
    learner_class = methods.find(method)
    config = parse(learner_class.Config, options or {}, f"Settings of {method}")
    origin = shots.origin
    class_names(shots.classnames, "classnames")
    if not _published(origin):
        check_apart(shots.classnames, clip.tokenizer)
    if template is None:
        template = origin.templates[0] if origin else DEFAULT_TEMPLATE
    check_template(template)
    config = _with_student(config, origin.dataset if origin else "")
    training = training or learner_class.schedule
    learner = learner_class(clip, shots.classnames, template, config, seed)
    names: NovelList | None = None
    regulariser = None
    if sar is not None:
        check_sar(learner)
        names = names_of_run(
            sar, clip, shots.classnames, origin, seed=seed, given=novel,
            count_tokens=learner.prompt_tokens,
        )  # fmt: skip
        everyone = [*shots.classnames, *names.names]
        regulariser = (
            sar_plus.regulariser(sar, learner, everyone, origin.templates if origin else (), seed),
            learner.prompts(everyone),
        )
    learns = learner.parameter_count() > 0
    images = training_views(learner, shots, training, seed) if learns else torch.empty(0)
    run = TrainingJob(learner, images, torch.tensor(shots.labels), seed, regulariser)
    tokenizer = clip.source.get("tokenizer")
    remember(of_model(clip), clip)
    card = {
        "format": storage.FORMAT,
        "simprompt": __version__,
        "model": public_name(clip.source["name"]),
        "model_digest": of_model(clip),
        "model_dtype": _dtype(clip),
        "model_origin": fingerprint.of_origin(clip),
        "device": clip.device.type,
        "tokenizer": tokenizer and public_name(tokenizer),
        "image_size": clip.source.get("image_size"),
        "notes": list(clip.notes),
        "method": method,
        "method_code": code_digests(method, config.model_dump(mode="json")),
        "options": config.model_dump(mode="json"),
        "template": template,
        "classnames": list(shots.classnames),
        "dataset": origin.dataset if origin else None,
        "shots": len(shots),
        "upright": getattr(shots.loader, "upright", True),
        "seed": seed,
        "training": training.model_dump(mode="json"),
        "sar": sar.model_dump(mode="json") if sar else None,
        "novel": list(names.names) if names else [],
        "novel_digest": names.sha256 if names else None,
        "novel_provenance": names.provenance if names else None,
    }
    return PreparedPrompt(run, training, card, names, shots)


def _with_student(config: Settings, dataset: str) -> Settings:
    """The settings with the student template's words in place of a template set's name."""
    student = getattr(config, "student", None)
    if student is None or "{}" in student:
        return config
    return config.model_copy(
        update={"student": coop.template_in(student, re.split("[:@]", dataset)[0])}
    )


@trains
def train_alone(
    ready: PreparedPrompt,
    on_epoch: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Prompt:
    """Train one prepared prompt with `training.loop`; the same seed and thread count give the
    same bits on a CPU."""
    run, curves = ready.run, Curves()
    if run.learner.parameter_count():
        try:
            curves = train(
                run.learner, run.images, run.labels, ready.training, run.seed, run.sar, on_epoch,
                checkpoint,
            )  # fmt: skip
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


@trains
def train_many(
    ready: Sequence[PreparedPrompt],
    on_epoch: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Prompt]:
    """Train prepared prompts that `fit`, as one text batch; a single one by the plain loop."""
    if len(ready) == 1:
        return [train_alone(ready[0], on_epoch, checkpoint)]
    runs = [one.run for one in ready]
    curves = train_together(runs, ready[0].training, on_epoch, checkpoint)
    return [one.prompt(own) for one, own in zip(ready, curves, strict=True)]


def fit(ready: Sequence[PreparedPrompt]) -> bool:
    """Whether these prompts can be trained as one text batch, and gain by it."""
    runs, training = [one.run for one in ready], ready[0].training
    same = all(one.training == training for one in ready)
    return same and fit_together(runs, training) and pays(runs)


@in_frozen_mode
def load_prompt(
    path: str | Path,
    clip: CLIP | None = None,
    *,
    model: str | Path | None = None,
    tokenizer: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
) -> Prompt:
    """Read what `Prompt.save` or `simprompt run` wrote.

    A card names its model by a name of `simprompt models list`, a repository of the hub, or, of a
    checkpoint at a path, by the path's last part and a digest. A path in a card is never opened: a
    prompt may come from anywhere. The checkpoint is `model`, or where the user who reads the prompt
    last had a model of this digest.

    Args:
        path: what `prompt.storage.read` takes: a folder, a file, or ``"hf://user/repo[@revision]"``.
        clip: the model; None loads it.
        model, tokenizer: a name or path of the model instead of the card's, and a tokenizer file
            instead of the model's own, as `load_clip` takes them.
        device, dtype: where and how the model is loaded, as `load_clip` takes them.

    Raises:
        SimpromptError: a file is missing or not a saved prompt, of a newer format, what it holds
            is not finite, the model is not found, or not the one that the prompt was learned on.
    """
    check_argument(path, str | Path, "load_prompt()", "a path, or hf://user/repository")
    check_argument(clip, CLIP | None, "load_prompt()", 'a CLIP, such as load_clip("icons")')
    try:
        state, card, where = storage.read(path)
    except SimpromptError:
        raise
    except (OSError, ValueError) as error:  # a name that no file can have
        raise SimpromptError(f"There is no prompt {str(path)!r:.200}: {error!s:.200}.") from None
    method, options = card["method"], card["options"]
    names, template, seed = card["classnames"], card["template"], card["seed"]
    if name := not_finite(state):
        raise SimpromptError(
            f"The prompt {where} cannot be used: its {name} holds NaN or infinity. Learn it again."
        )
    for key in ("classnames", "new_classes"):
        class_names(card.get(key, ()), f"{key} in the card of {where}", empty=key != "classnames")
    if clip is None:
        source = model_source(card, where, model, tokenizer)
        clip = load_clip(
            source["model"], tokenizer=source["tokenizer"], image_size=card.get("image_size"),
            device=device, dtype=dtype,
        )  # fmt: skip
    _check_model(card, clip, where)
    if model is not None and card.get("model_digest") == of_model(clip):
        remember(card["model_digest"], clip)
    learner_class = methods.find(method)
    _check_code(card, where)
    config = parse(learner_class.Config, options, f"Settings of {method} in the card of {where}")
    learner = learner_class(clip, names, template, config, seed)
    try:
        learner.load_state_dict(state)
    except RuntimeError as error:
        raise SimpromptError(
            f"The prompt {where} was learned for the model {card['model']} and does not fit "
            f"{clip.name}: {error}."
        ) from None
    return Prompt(learner, card)


def model_source(
    card: Mapping[str, Any],
    where: str,
    model: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> dict[str, Any]:
    """``{"model": ..., "tokenizer": ...}`` for `load_clip`: what the user gives, else where the
    user had a model of the card's digest, else the card's model if its name is public.

    Args:
        where: the prompt, for the message.

    Raises:
        SimpromptError: the user has to give the model or the tokenizer.
    """
    known = remembered(card.get("model_digest") or "") if model is None else None
    if known:
        return known if tokenizer is None else {**known, "tokenizer": tokenizer}
    digest = f" (digest {card['model_digest'][:12]})" if card.get("model_digest") else ""
    if model is None and not is_named(card["model"]):
        raise SimpromptError(
            f"The prompt {where} was learned on the checkpoint {card['model']!r}{digest}, which "
            "has no public name. Give its path with --model PATH, in Python with "
            "load_prompt(..., model=PATH); that it is the same model is checked."
        )
    if tokenizer is None and model is None and card.get("tokenizer"):
        raise SimpromptError(
            f"The prompt {where} was learned on the model {card['model']!r}{digest} with the "
            f"tokenizer file {card['tokenizer']!r}. Give its path with --tokenizer PATH, in Python "
            "with load_prompt(..., tokenizer=PATH); that it is the same is checked."
        )
    return {"model": model or card["model"], "tokenizer": tokenizer}


def _check_model(card: Mapping[str, Any], clip: CLIP, where: str) -> None:
    """Whether this is the CLIP that a prompt was learned on, where the card says which.

    A model may be loaded in another type than the prompt was learned in. Then the digests in
    float32 are compared, or the model is rounded to the prompt's type and compared in that.

    Raises:
        SimpromptError: it is another one, be it of the same sizes.
    """
    stated = card.get("model_digest")
    if stated is None:
        return
    found = _digest_like(card, clip)
    if found is None:
        warnings.warn(
            f"The prompt {where} was learned in {card.get('model_dtype')} and {clip.name} is "
            f"loaded in {_dtype(clip)}: whether it is the same model cannot be told. Load it with "
            'dtype="float32" to have it checked.',
            stacklevel=3,
        )
        return
    ours, theirs = found
    if ours == theirs:
        return
    raise SimpromptError(
        f"The prompt {where} was learned on the model {card['model']} with the digest "
        f"{theirs[:12]}, and {clip.name} has {ours[:12]}: other weights, another "
        "tokenizer or preprocessing. Its accuracy there is unknown. Give the model that it was "
        "learned on (--model, --tokenizer), or learn it again on this one."
    )


def _check_code(card: Mapping[str, Any], where: str) -> None:
    """Warn where a method of the user's own is not the code that the prompt was learned with."""
    stated = card.get("method_code")
    if not isinstance(stated, Mapping):
        return
    now = code_digests(card["method"], card["options"])
    changed = [n for n in stated if methods.own_file(n) and now.get(n) != stated[n]]
    if changed:
        warnings.warn(
            f"The prompt {where} was learned with other code of the method {', '.join(changed)} "
            f"than {methods.own_file(changed[0])} holds now: its answers may be others. Learn it "
            "again, or bring that code back.",
            stacklevel=3,
        )


def _digest_like(card: Mapping[str, Any], clip: CLIP) -> tuple[str, str] | None:
    """(digest of this model, digest in the card) that can be compared; None for none."""
    stated, dtype = str(card["model_digest"]), card.get("model_dtype")
    if dtype == _dtype(clip):
        return of_model(clip), stated
    origin = fingerprint.of_origin(clip)
    stated_origin = stated if dtype == "float32" else card.get("model_origin")
    if origin and stated_origin:
        return origin, str(stated_origin)
    if _dtype(clip) == "float32" and dtype in DTYPES:
        number = getattr(torch, dtype)
        ours = fingerprint.of_clip(clip, number)
        if ours != stated and fingerprint.of_clip(clip, number, rounded_scale=True) == stated:
            return stated, stated
        return ours, stated
    return None


def _dtype(clip: CLIP) -> str:
    return str(clip.text.token_embedding.weight.dtype).removeprefix("torch.")
