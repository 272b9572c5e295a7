"""Learn a prompt from a few images: prepare the training, train, return a `Prompt`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simprompt import methods, regularisers
from simprompt._version import __version__
from simprompt.clip import domain, fingerprint
from simprompt.clip.hub import public_name, remember
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import (
    check_apart,
    class_names,
    unread_warning,
)
from simprompt.clip.suffixes import Suffixes
from simprompt.config import (
    DEFAULT_TEMPLATE,
    SAR,
    RunConfig,
    Settings,
    Training,
    check_template,
    parse,
)
from simprompt.data import coop
from simprompt.data.images import READER
from simprompt.data.split import Split, check_learnable
from simprompt.errors import SimpromptError, check_argument
from simprompt.features.digests import CODE, digest, item_keys, of_model
from simprompt.methods import code_digests
from simprompt.methods.base import PromptLearner
from simprompt.novel.names import NovelList
from simprompt.novel.run_names import names_of_run
from simprompt.prompt import storage
from simprompt.prompt.loading import dtype_name
from simprompt.prompt.prompt import Prompt
from simprompt.recipes import plan
from simprompt.sar import Regulariser
from simprompt.training.divergence import DivergedError
from simprompt.training.joint import TrainingJob, fit_together, pays
from simprompt.training.loop import check_sar, train, train_together
from simprompt.training.state import Curves
from simprompt.training.views import training_views
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.gradients import training_mode
from simprompt.utils.progress import has_listener, progress_shown, report_progress


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
        volatile = {"simprompt", "notes", "format"}
        card = {name: value for name, value in self.card.items() if name not in volatile}
        origin = self.shots.origin
        templates = list(origin.templates) if origin else []  # those of SAR's ensemble
        images = [item_keys(self.shots), list(self.shots.labels)]
        regulariser = (self.card["sar"] or {}).get("regulariser")
        code = [regularisers.code_of(regulariser)] if regulariser else []
        return digest([CODE, READER, card, templates, *images, *code])

    def prompt(self, curves: Curves) -> Prompt:
        """The prompt, now that the learner is trained."""
        return Prompt(self.run.learner, self.card, curves, self.novel)


# what `learn` takes, argument by argument; see there for their order
_EXPECTED: tuple[tuple[Any, str], ...] = (
    (CLIP, 'a CLIP, such as simprompt.load_clip("icons")'),
    (Split, "a split of a dataset, such as data.base.few_shot(16)"),
    (Mapping | Training | None, "a dictionary or Training(...)"),
    (Mapping | None, "a dictionary"),
    (bool | float | int | Mapping | SAR | None, "sar=True, a weight, a dictionary, SAR()"),
    (str | None, 'a method by its name, such as "coop"'),
    (str | Path | None, "a recipe's name or file"),
    (str | None, 'a template, such as "a photo of a {}."'),
    (int, "a whole number as seed"),
    (str | Path | None, "a path as checkpoint"),
)


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
        method: a name from `simprompt list methods`; None takes the recipe's, or CoOp.
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
    values = (clip, shots, training, options, sar, method, recipe, template, seed, checkpoint)
    for value, (kind, expectation) in zip(values, _EXPECTED, strict=True):
        check_argument(value, kind, "learn()", expectation)
    if on_epoch is not None and not callable(on_epoch):
        raise SimpromptError(f"learn() takes a function as on_epoch; got {on_epoch!r:.100}.")
    recipe = None if recipe is None else str(recipe)
    check_learnable(shots.classnames, len(shots), "The split given to learn()")
    if novel is not None:
        plan.check_given_names(sar)
    config = plan.for_learn(
        shots.origin.dataset if shots.origin else "",
        clip.source["name"],
        plan.LearnArguments(method, sar, recipe, options, training, template, seed),
    )
    names = class_names(shots.classnames, "classnames")
    for sentence in unread_warning(names, clip.tokenizer):
        warnings.warn(sentence, stacklevel=2)
    if unlike := domain.unlike_warning(clip, domain.unlike_share(clip, shots)):
        warnings.warn(unlike, stacklevel=2)
    bar = on_epoch is None and not has_listener()
    with progress_shown(quiet=not progress, lines=False) if bar else nullcontext():
        # encodes the images, which may take longer than the training
        prepared = prepare_run(clip, shots, config, novel)
        kept_training = Checkpoint(checkpoint, [prepared.key()]) if checkpoint else None
        listener = on_epoch or (lambda done, total: report_progress("epochs learned", done, total))
        prompt = train_alone(prepared, listener, kept_training)
    if kept_training:
        kept_training.remove()
    return prompt


@training_mode()
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
    if not coop.is_published(origin):
        check_apart(shots.classnames, clip.tokenizer)
    if template is None:
        template = origin.templates[0] if origin else DEFAULT_TEMPLATE
    check_template(template)
    config = _with_student(config, origin.dataset if origin else "")
    training = training or learner_class.schedule
    learner = learner_class(clip, shots.classnames, template, config, seed)
    learner.set_training(training)
    names, regulariser = (None, None) if sar is None else _regulariser(learner, sar, shots, novel)
    learns = learner.parameter_count() > 0
    images = training_views(learner, shots, training, seed) if learns else torch.empty(0)
    run = TrainingJob(learner, images, torch.tensor(shots.labels), seed, regulariser)
    remember(of_model(clip), clip)  # a prompt's card names the model by its digest
    card = {
        "format": storage.FORMAT,
        "simprompt": __version__,
        **_model_of(clip),
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


def prepare_run(
    clip: CLIP, shots: Split, config: RunConfig, novel: Sequence[str] | NovelList | None = None
) -> PreparedPrompt:
    """As `prepare`, with the settings of a run."""
    return prepare(
        clip,
        shots,
        config.method,
        config.sar,
        options=config.options,
        training=config.training,
        template=plan.template_of(config),
        novel=novel,
        seed=config.seed,
    )


def _regulariser(
    learner: PromptLearner[Any], sar: SAR, shots: Split, novel: Sequence[str] | NovelList | None
) -> tuple[NovelList, tuple[Regulariser, Suffixes]]:
    """(SAR's novel names; the regulariser and the prompts of its classes, base first)."""
    check_sar(learner)
    origin = shots.origin
    names = names_of_run(
        sar,
        learner.clip,
        shots.classnames,
        origin,
        seed=learner.seed,
        given=novel,
        count_tokens=learner.prompt_tokens,
    )
    everyone = [*shots.classnames, *names.names]
    templates = origin.templates if origin else ()
    regulariser = regularisers.build(sar, learner, everyone, templates, learner.seed)
    return names, (regulariser, learner.prompts(everyone))


def _model_of(clip: CLIP) -> dict[str, Any]:
    """What a card says of the model, so that it can be found again and checked."""
    tokenizer = clip.source.get("tokenizer")
    return {
        "model": public_name(clip.source["name"]),
        "model_digest": of_model(clip),
        "model_dtype": dtype_name(clip),
        "model_origin": fingerprint.of_origin(clip),
        "device": clip.device.type,
        "tokenizer": tokenizer and public_name(tokenizer),
        "image_size": clip.source.get("image_size"),
        "notes": list(clip.notes),
    }


def _with_student(config: Settings, dataset: str) -> Settings:
    """The settings with the student template's words in place of a template set's name."""
    student = getattr(config, "student", None)
    if student is None or "{}" in student:
        return config
    return config.model_copy(
        update={"student": coop.template_in(student, re.split("[:@]", dataset)[0])}
    )


@training_mode()
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
                run.learner,
                run.images,
                run.labels,
                ready.training,
                run.seed,
                run.sar,
                on_epoch,
                checkpoint,
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


@training_mode()
def train_many(
    ready: Sequence[PreparedPrompt],
    on_epoch: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Prompt]:
    """Train prepared prompts that `fit`, as one text batch; a single one by the plain loop."""
    if len(ready) == 1:
        return [train_alone(ready[0], on_epoch, checkpoint)]
    runs = [job.run for job in ready]
    curves = train_together(runs, ready[0].training, on_epoch, checkpoint)
    return [job.prompt(curve) for job, curve in zip(ready, curves, strict=True)]


def fit(ready: Sequence[PreparedPrompt]) -> bool:
    """Whether these prompts can be trained as one text batch, and gain by it."""
    runs, training = [job.run for job in ready], ready[0].training
    uniform = all(job.training == training for job in ready)
    return uniform and fit_together(runs, training) and pays(runs)
