"""A learned prompt on its frozen CLIP: a classifier for any list of class names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.layouts.common import not_finite
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import (
    check_apart,
    class_names,
    new_names,
    unique_names,
)
from simprompt.data import coop
from simprompt.data.image_files import ImageError
from simprompt.data.images import is_one, read_image
from simprompt.data.split import Split
from simprompt.errors import SimpromptError, check_argument, check_count
from simprompt.features.cache import images_of
from simprompt.methods.base import PromptLearner
from simprompt.metrics import accuracy
from simprompt.novel.names import NovelList
from simprompt.prompt import storage
from simprompt.training.state import Curves
from simprompt.utils.cache import Memo
from simprompt.utils.memory import OOMRetry, advice
from simprompt.utils.notebook import html_table
from simprompt.utils.prefetch import read_ahead

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
        new_count = len(self.classes) - len(self.learner.classnames)
        return (
            f"<Prompt {method} on {self.clip.name}: {len(self.learner.classnames)} classes"
            f"{f' and {new_count} new' if new_count else ''}, {self.learner.parameter_count():,} "
            "numbers>"
        )

    def _repr_html_(self) -> str:
        """How it was made, for notebooks."""
        names = (
            "method",
            "model",
            "template",
            "dataset",
            "shots",
            "seed",
            "options",
            "training",
            "sar",
            "calibration",
            "metrics",
        )
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
        retry = OOMRetry("Encoding the class names", advice(self.clip.device.type))
        prompts = self.learner.prompts(class_names(names, "names"))
        return retry(lambda: self.learner.text_features(prompts).cpu())

    def probabilities(self, split: Split, names: Sequence[str] | None = None) -> Tensor:
        """Probabilities [N, C] of the images of a split over `names` (default: the split's), on the
        CPU.

        Raises:
            SimpromptError: a probability is NaN, or two of `names` are one text for the model.
        """
        check_argument(split, Split, "probabilities()", "a split, such as data.new.test")
        if names is not None:
            names = class_names(names, "names")
            if not coop.is_published(split.origin):
                check_apart(names, self.clip.tokenizer)
        names = split.classnames if names is None else names
        classify = self.learner.classifier(names)
        chunks = [classify(chunk) for chunk in images_of(self.learner, split)]
        stacked = torch.cat(chunks) if chunks else torch.zeros(0, len(names))
        return self._numbers(stacked, split.items)

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
                "such as --reject-below 0.3."
            )
        candidates, fitted = self.judged_among(names), self.known
        if not self.learner.joint_answers and len(candidates) > len(fitted):
            raise SimpromptError(
                f"The threshold of this {self.card['method']} prompt was fitted among "
                f"{len(fitted)} names, and with other names the method classifies in another way. "
                "Use a number, such as --reject-below 0.3, or only these names."
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
        for prediction in self.stream_with_errors(
            images, classes, upright=upright, batch=batch, certain=certain
        ):
            if isinstance(prediction, ImageError):
                raise prediction
            yield prediction

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

        reader = read_ahead(read_one, enumerate(images), batch)
        while batch_read := [*itertools.islice(reader, batch)]:
            yield from self._answers(batch_read, names, classify, judge)

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
        pixels = [entry for _, entry in read if isinstance(entry, Tensor)]
        rows: Iterator[list[float]] = iter(())
        judged: Iterator[list[float]] = iter(())
        if pixels:
            labels = [label for label, entry in read if isinstance(entry, Tensor)]
            inputs = self.taken(torch.stack(pixels))
            answers = classify(inputs)
            rows = iter(self._numbers(answers, labels).tolist())
            if judge is not None:
                judgements = answers if judge is classify else judge(inputs)
                judged = iter(self._numbers(judgements, labels).tolist())
        for _, entry in read:
            if isinstance(entry, ImageError):
                yield entry
                continue
            row = next(rows)
            top = max(range(len(row)), key=row.__getitem__)
            certainty = None if judge is None else next(judged)[top]
            yield Prediction(names[top], row[top], tuple(row), certainty)

    def taken(self, pixels: Tensor) -> Tensor:
        """What the learner takes of preprocessed pixels [N, 3, S, S]: features, or themselves."""
        taken = self.learner.image_input
        if taken == "pixels":
            return pixels
        return self.clip.encode_pixels(pixels, unnormalized=taken == "unnormalized")

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
