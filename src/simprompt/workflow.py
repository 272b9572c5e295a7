"""What `simprompt learn` does, for Python: from a folder of images to a predictor that is measured.

::

    done = simprompt.learn_folder("my_photos", new_classes=["otter"], shots=8)
    done.accuracy            # of the prompt and of baselines, on images that were held out
    done.prompt.predict("a.jpg")
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from simprompt import methods
from simprompt.clip import domain
from simprompt.clip.catalogue import EMBEDDED, check_model
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import check_apart, unread_warning
from simprompt.config import DEFAULT_TEMPLATE, RunConfig
from simprompt.data.dataset import View
from simprompt.data.own_images import folder
from simprompt.data.own_images.parts import Parts
from simprompt.data.split import Split, check_learnable
from simprompt.errors import SimpromptError
from simprompt.experiments.result_file import UNFINISHED
from simprompt.experiments.run_key import KEY
from simprompt.novel.names import NovelList
from simprompt.novel.run_names import filled_up
from simprompt.prompt import baselines, diagnostics
from simprompt.prompt.calibration import calibrate
from simprompt.prompt.choice import Choice, choose
from simprompt.prompt.learn import keeping_last_good, prepare_run, train_alone
from simprompt.prompt.prompt import Prompt
from simprompt.prompt.storage import Calibration
from simprompt.recipes import plan
from simprompt.report import own as page
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.devices import resolve_device
from simprompt.utils.files.atomic import check_folder, write_json, write_text
from simprompt.utils.files.owned import replacing_owned
from simprompt.utils.notebook import html_table
from simprompt.utils.options import (
    AnswerOptions,
    ImageOptions,
    MethodOptions,
    ModelOptions,
    group_options,
)
from simprompt.utils.progress import report_progress

MOST_IMAGES, LEAST_SHOTS = 2000, 16
"""What `auto` learns from where no number of shots is given: so many images in all, but of each
class that has so many at least these."""


def _ignore(sentence: str) -> None:
    """Notes are for people who watch."""


def _warn(sentence: str) -> None:
    """A Python warning of a sentence."""
    warnings.warn(sentence, stacklevel=4)


@dataclass(frozen=True)
class Reporter:
    """Where sentences go while a folder is learned.

    Attributes:
        note: what was understood and chosen; by default it goes nowhere.
        warning: what may make the answers worse; by default a Python warning.
    """

    note: Callable[[str], object] = _ignore
    warning: Callable[[str], object] = _warn


@dataclass
class LearnedFolder:
    """What `learn_folder` made.

    Attributes:
        prompt: the predictor that was chosen, or the prompt or classifier that was asked for.
        result: what `result.json` holds.
        out: the folder with `prompt/`, `result.json`, `wrong.csv` and `report.html`.
        calibration: the temperature and threshold that were fitted, if they were.
        used_val: whether the folder's own val images fitted them.
    """

    prompt: Prompt
    result: dict[str, Any] = field(repr=False)
    out: Path
    calibration: Calibration | None = None
    used_val: bool = False

    @property
    def accuracy(self) -> dict[str, dict[str, float]]:
        """Percent of held-out images that are right: candidates -> classifier -> accuracy."""
        return dict(self.result["accuracy"])

    @property
    def verdict(self) -> list[str]:
        """Which classifier to take, in sentences."""
        return list(self.result["verdict"])

    def _repr_html_(self) -> str:
        rows = [(row["name"], f"{row['accuracy']:.1f} %") for row in self.result["contenders"]]
        return html_table(repr(self), ("classifier", "held-out accuracy"), rows)


def learn_folder(
    images: str | Path,
    out: str | Path = "learned",
    *,
    new_classes: Sequence[str] = (),
    new_images: str | Path | None = None,
    template: str | None = None,
    seed: int = 1,
    calibrated: bool = True,
    reporter: Reporter | None = None,
    **options: Any,
) -> LearnedFolder:
    """Learn from your own images, measure it beside baselines, and write it to `out`.

    Without a method or settings of one the best of several is taken (`prompt.choice`), and what is
    saved is learned once more from all images, those that it was measured on as well.

    The same numbers as `simprompt learn`, to the bit on a CPU. A training that was interrupted goes
    on when the same call is made again.

    Args:
        images: folder, table or ``hf:NAME``; see `data.own_images.folder.load`.
        out: a folder for the prompt, the result and the report; a prompt there is replaced.
        new_classes: names of classes without images. SAR is trained with these names.
        new_images: labelled test images of new classes; nothing is learned from them.
        template: the hand-crafted prompt; None takes the recipe's.
        seed: of the held-out split, the few-shot sample and the training.
        calibrated: also fit a temperature and a rejection threshold; trains a second time.
        reporter: takes notes and warnings while it learns.
        options: fields of `utils.options.ModelOptions`, `MethodOptions`, `ImageOptions` and
            `AnswerOptions`, such as ``model="photos"``, ``method="coop"``, ``sar="on"``,
            ``shots=8``, ``hold_out=0.2``.

    Raises:
        SimpromptError: images, names, settings or a method that cannot be used.
    """
    started, out, reporter = time.perf_counter(), Path(out), reporter or Reporter()
    model, method, reading, answer = _options(options)
    configured = _configured(str(images), method, model, template, seed)
    _check_before_reading(out, configured, model, bool(new_classes), new_images is not None)
    template = configured(model.model or domain.ICONS).template or DEFAULT_TEMPLATE
    check_folder(out, keep=False)
    found = _read(str(images), new_images, new_classes, (reading, answer), template, seed)
    if plan.automatic(method) and method.shots is None:
        most = MOST_IMAGES // len(found.known.classnames)
        method = replace(method, shots=max(LEAST_SHOTS, most))
        configured = _configured(str(images), method, model, template, seed)
    for sentence in found.described():
        reporter.note(sentence)
    clip, config, draw, unlike = _suited(found.known, model, configured, reporter)
    config = config.model_copy(update={"template": template})
    reporter.note(found.divided(draw, config.training.shots, answer.hold_out))
    complaints = _check_names(found, clip, unlike, reporter)
    if (there := out / "prompt").exists():
        reporter.note(f"{there} is there and will be replaced; another output folder keeps it.")
    choice = None
    if plan.automatic(method):
        choice = choose(clip, draw, template, seed, bool(new_classes))
        config = config.model_copy(update={"options": choice.options})
    trainer = _Trainer(clip, config, out, _novel(found, config, clip, draw, seed))
    made = _made(trainer, found, draw, calibrated, _refits(answer, found, choice))
    for sentence in made.failed:
        reporter.warning(sentence)
    made.compared["verdict"][:0] = [choice.sentence] if choice else []
    result = {
        "prompt": str(made.prompt.save(out / "prompt")),
        **_about(trainer, found, draw),
        "choice": choice.as_dict() if choice else None,
        "device": model.device,
        "dtype": model.dtype,
        "unlike_the_model": round(unlike, 3),
        "warnings": [*complaints, *made.failed],
        **made.figures(),
        **found.own.facts(),
        "new_images": found.unseen.facts() if found.unseen else None,
        "seconds": round(time.perf_counter() - started, 1),
    }
    _write(result, baselines.as_csv(made.compared), found.known.test, out)
    trainer.forget()
    return LearnedFolder(made.prompt, result, out, made.calibration, found.known.val is not None)


def _check_before_reading(
    out: Path, configured: Callable[[str], RunConfig], model: ModelOptions, *new: bool
) -> None:
    """Refuse what cannot be done, before an image is read. `new`: whether there are names without
    images, and whether there are images of them."""
    if out.exists() and not out.is_dir():
        raise SimpromptError(f"`out` takes a folder; {out} is a file.")
    # any model will do, for the method does not depend on it
    _check_takes_new(configured(domain.ICONS).method, *new)
    if model.model or model.tokenizer:
        check_model(model.model or domain.ICONS, model.tokenizer)


def _options(
    options: Mapping[str, Any],
) -> tuple[ModelOptions, MethodOptions, ImageOptions, AnswerOptions]:
    """The options by their groups, checked.

    Raises:
        SimpromptError: an option that there is not, or a part that is none.
    """
    model, method, reading, answer = group_options(
        options, ModelOptions, MethodOptions, ImageOptions, AnswerOptions
    )
    if not 0 <= answer.hold_out < 1:
        raise SimpromptError(
            f"--hold-out takes a part from 0 to less than 1, such as 0.25; got {answer.hold_out:g}."
        )
    name = None if model.model == plan.AUTO else model.model
    model = replace(model, model=name, device=resolve_device(model.device or "cpu"))
    return model, method, reading, answer


def _refits(answer: AnswerOptions, found: Parts, choice: Choice | None) -> bool:
    """Whether what is saved is learned once more: a prompt that was named stays as it was measured,
    and a test split of the user's own is not learned from, unless that is asked for."""
    default = choice is not None and found.own.held_out
    return bool(len(found.known.test) and (default if answer.refit is None else answer.refit))


@dataclass(frozen=True)
class _Made:
    """What was learned and measured.

    Attributes:
        prompt, calibration: what is saved.
        compared: the figures of what was measured.
        failed: what went wrong, in sentences.
        refit: whether what is saved was learned once more, from `images` images.
    """

    prompt: Prompt
    calibration: Calibration | None
    compared: dict[str, Any]
    failed: list[str]
    refit: bool
    images: int

    def figures(self) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "refit": self.refit,
            "saved_from_images": self.images,
            **self.compared,
            "calibration": self.calibration.model_dump(mode="json") if self.calibration else None,
        }


def _made(trainer: _Trainer, found: Parts, draw: Split, calibrated: bool, refit: bool) -> _Made:
    prompt, calibration = trainer.learn(draw, found, calibrated and not refit)
    compared, failed = _measured(prompt, draw, found)
    if refit:
        config = trainer.config
        draw = found.everything(config.training.shots, config.seed)
        prompt, calibration = trainer.learn(draw, found, calibrated)
    prompt.card["metrics"] = compared["accuracy"]
    return _Made(prompt, calibration, compared, failed, refit, len(draw))


def _check_names(found: Parts, clip: CLIP, unlike: float, reporter: Reporter) -> list[str]:
    """Warn of names and images that the model may not understand; returns what a result keeps.

    Raises:
        SimpromptError: two names are one text for the model.
    """
    names = found.own.dataset.classnames
    check_apart(names, clip.tokenizer)
    for sentence in [*clip.notes, *unread_warning(names, clip.tokenizer)]:
        reporter.warning(sentence)
    complaints = [sentence for sentence in [domain.unlike_warning(clip, unlike)] if sentence]
    for sentence in complaints:
        reporter.warning(sentence)
    return complaints


def _measured(prompt: Prompt, draw: Split, found: Parts) -> tuple[dict[str, Any], list[str]]:
    """(the prompt beside baselines on held-out images; what went wrong, in sentences)."""
    clip, card = prompt.clip, prompt.card
    trained, failed = baselines.train_baselines(
        clip, draw, card["template"], card["seed"], card["method"]
    )
    compared = baselines.compare(prompt, trained, found.known, found.own, found.unseen)
    if unlearned := diagnostics.only_warmed_up(prompt):
        failed = [unlearned, *failed]
    return compared, failed


def _about(trainer: _Trainer, found: Parts, draw: Split) -> dict[str, Any]:
    """What a result says of the classes, the model and the number of images."""
    return {
        "classes": list(found.known.classnames),
        "new_classes": list(found.own.new_classes),
        "model": trainer.clip.source["name"],
        "training_images": len(draw),
        "test_images": len(found.known.test),
        "trained_with_new_names": bool(trainer.novel and found.own.new_classes),
    }


def _write(result: dict[str, Any], wrong: str, test: Split, out: Path) -> None:
    """The result, the images that were classified wrongly as CSV, and the page of both."""
    with replacing_owned(out, "result.json") as partial_out:
        write_json(partial_out / "result.json", result)
        write_text(partial_out / "wrong.csv", wrong)
        page.write(result, test, partial_out / "report.html")


def _configured(
    images: str, method: MethodOptions, model: ModelOptions, template: str | None, seed: int
) -> Callable[[str], RunConfig]:
    """A model's name -> the settings of the run with it."""
    if plan.automatic(method):
        method = replace(method, method=plan.ANSWER)
    return lambda name: plan.own(images, seed, replace(model, model=name), method, template)


def _check_takes_new(method: str, new_classes: bool, new_images: bool) -> None:
    if (new_classes or new_images) and not methods.find(method).new_classes:
        unused = "the new classes" if new_classes else "the test images of new classes"
        raise SimpromptError(
            f"{method} tells apart the classes it has images of and no others: leave {unused} out, "
            "or take a prompt method such as coop."
        )


def _read(
    images: str,
    new_images: str | Path | None,
    new_classes: Sequence[str],
    options: tuple[ImageOptions, AnswerOptions],
    template: str,
    seed: int,
) -> Parts:
    reading, answer = options
    own = folder.load(
        images,
        new_classes=new_classes,
        template=template,
        strict=reading.strict,
        seed=seed,
        hold_out=answer.hold_out,
        **reading.reading,
    )
    unseen = None
    if new_images:  # every image of them is measured on, however their classes are split
        unseen = replace(folder.load(str(new_images), template=template, seed=seed), untested=())
    known_view = View(own.dataset, "known", own.known)
    if len(own.known) < 2:
        check_learnable(known_view.classnames, len(own.dataset.train), images)
    if unseen:
        baselines.check_unseen(unseen, own)
    return Parts(own, unseen, known_view)


def _suited(
    known: View, model: ModelOptions, configured: Callable[[str], RunConfig], reporter: Reporter
) -> tuple[CLIP, RunConfig, Split, float]:
    """(the model, its settings, the few-shot draw, the share of images unlike the model's own).

    Photographs get the model for photographs where none is named.
    """
    name = model.model or domain.ICONS
    clip = load_clip(name, **model.loading)
    config = configured(name)
    draw = known.few_shot(config.training.shots, config.seed)
    unlike = domain.unlike_share(clip, draw)
    free = not (model.model or model.tokenizer or model.image_size)
    if free and unlike > domain.MANY and EMBEDDED[domain.PHOTOS].installed:
        clip, config = load_clip(domain.PHOTOS, **model.loading), configured(domain.PHOTOS)
        draw = known.few_shot(config.training.shots, config.seed)
        unlike = domain.unlike_share(clip, draw)
        reporter.note(
            f'The images look like photographs: using the model "{domain.PHOTOS}" (override with '
            "--model, in Python model=...)."
        )
    return clip, config, draw, unlike


def _novel(found: Parts, config: RunConfig, clip: CLIP, draw: Split, seed: int) -> NovelList | None:
    """SAR's novel names where new classes are named: these, filled up with others."""
    if not (config.sar and found.own.new_classes):
        return None
    return filled_up(
        found.own.new_classes, config.sar, clip, found.known.classnames, draw.origin, seed=seed
    )


@dataclass
class _Trainer:
    """Trains with one set of settings; each training is kept until `forget`."""

    clip: CLIP
    config: RunConfig
    out: Path
    novel: NovelList | None
    _checkpoints: list[Checkpoint] = field(default_factory=list)

    def __call__(self, shots: Split) -> Prompt:
        goal = "calibration" if self._checkpoints else "the prompt"
        prepared = prepare_run(self.clip, shots, self.config, self.novel)
        key = prepared.key()
        checkpoint = Checkpoint(self.out / UNFINISHED / f"{key[:KEY]}.safetensors", [key])
        self._checkpoints.append(checkpoint)
        return train_alone(
            prepared, partial(report_progress, f"epochs learned for {goal}"), checkpoint
        )

    def learn(
        self, draw: Split, found: Parts, calibrated: bool
    ) -> tuple[Prompt, Calibration | None]:
        """The prompt, and its calibration if it is wanted; saved before the calibration begins."""
        with keeping_last_good(self.out / "last-good"):
            prompt = self(draw)
        prompt.card["new_classes"] = list(found.own.new_classes)
        prompt.save(self.out / "prompt")  # whatever fails from here on, it is not lost
        if not calibrated:
            return prompt, None
        return prompt, calibrate(prompt, draw, self, val=found.known.val, seed=self.config.seed)

    def forget(self) -> None:
        """All is written: the trainings need not be kept."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()
