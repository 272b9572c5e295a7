"""What is done to a trained prompt afterwards, at no training: blends with the hand-crafted text, a
map of image features, class means. Each is measured on the same trained prompts.

A *control* begins with the prompt of one of a study's points. Its settings are chosen on base
classes alone, by rehearsals (`data.catalogue.REHEARSAL_RANDOM`) of the same points, and are then
measured on the real halves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.config import RunConfig
from simprompt.data.split import Split
from simprompt.experiments import inputs
from simprompt.experiments.protocols.common import limit
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.runner import identify
from simprompt.experiments.store import run_folder
from simprompt.features.cache import images_of
from simprompt.methods import closed_form, image_map
from simprompt.methods.context_prompt import ContextPrompt
from simprompt.metrics import accuracy, base_new_area, calibration_error, harmonic_mean
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.prompt import Prompt
from simprompt.studies import Control
from simprompt.studies.grid import Plan
from simprompt.training.views import training_views
from simprompt.utils.gradients import frozen_mode
from simprompt.utils.progress import report_progress

Texts = tuple[Tensor, Tensor, Tensor]  # of base names, new names and nouns


@dataclass(frozen=True)
class Task:
    """What a trained prompt's task is made of, float64: unit features, labels from 0.

    Attributes:
        shots, shot_labels: the training images, mean of their views.
        images, labels: test images of the base classes and of the new ones.
        crafted: text features of base and new names and of nouns, by the hand-crafted prompt.
        learned: the same by the learned prompt, by the share of the hand-crafted one in its
            context; 0 is the prompt as it was learned.
        averaged: the same by the mean of the contexts of all seeds, where one is asked for.
        scale: the model's logit scale.
        seed: of the run.
    """

    shots: Tensor
    shot_labels: Tensor
    images: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]
    crafted: Texts
    learned: dict[float, Texts]
    scale: float
    seed: int
    averaged: Texts | None = None


@frozen_mode()
def task_of(
    prompt: Prompt,
    config: RunConfig,
    shares: Iterable[float] = (),
    mean_context: Tensor | None = None,
) -> Task:
    """The task that a run's prompt was learned for.

    Args:
        shares: of the hand-crafted prompt in the context, beside 0.
        mean_context: of all seeds, [M, W].
    """
    data = inputs.dataset_of(config)
    learner = prompt.learner
    shots = data.base.few_shot(config.training.shots, config.seed)
    views = training_views(learner, shots, config.training, config.seed)
    assert isinstance(views, Tensor)
    sides = [limit(view.test, config.max_test_per_class) for view in (data.base, data.new)]
    nouns = image_map.drawn_nouns(learner, image_map.ImageMapConfig().hold_names)
    groups = (data.base.classnames, data.new.classnames, tuple(nouns))
    return Task(
        closed_form.mean_of_views(views),
        torch.tensor(shots.labels),
        (_features(learner, sides[0]), _features(learner, sides[1])),
        (torch.tensor(sides[0].labels), torch.tensor(sides[1].labels)),
        _each(lambda names: learner.teacher(names), groups),
        {
            share: _learned(prompt, groups, partial(ContextPrompt.mix, share=share))
            for share in sorted({0.0, *shares})
        },
        learner.clip.scale,
        config.seed,
        None
        if mean_context is None
        else _learned(prompt, groups, lambda learner: learner.ctx.copy_(mean_context)),
    )


def _features(learner: Any, split: Split) -> Tensor:
    chunks = [F.normalize(chunk.double(), dim=-1) for chunk in images_of(learner, split)]
    return torch.cat(chunks) if chunks else torch.zeros(0, learner.clip.embed_dim).double()


def _each(encode: Callable[[Sequence[str]], Tensor], groups: Iterable[Sequence[str]]) -> Texts:
    base, new, nouns = (encode(names).cpu().double() for names in groups)
    return base, new, nouns


def _learned(
    prompt: Prompt, groups: Iterable[Sequence[str]], change: Callable[[ContextPrompt[Any]], object]
) -> Texts:
    """Text features after a change of what was learned; the prompt is left as it is."""
    learner = prompt.learner
    if not isinstance(learner, ContextPrompt):
        return _each(prompt.text_features, groups)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    change(learner)
    try:
        return _each(prompt.text_features, groups)
    finally:
        learner.load_state_dict(before)


def scores(control: Control, task: Task) -> tuple[Tensor, Tensor, float]:
    """Logits [N, C] of the base and of the new images over all names, base names first, and the
    seconds that fitting took."""
    started = time.perf_counter()
    texts = task.averaged if control.over_seeds else task.learned[control.context]
    assert texts is not None
    base, new, nouns = (
        F.normalize(control.blend * crafted + (1 - control.blend) * learned, dim=-1)
        for crafted, learned in zip(task.crafted, texts, strict=True)
    )
    if control.switch:
        new = task.crafted[1]
    text = torch.cat([base, new])
    move = _map(control, task, base, nouns, torch.ones(len(base), dtype=torch.bool))
    if not control.means:
        seconds = time.perf_counter() - started
        of_base, of_new = (task.scale * move(z) @ text.T for z in task.images)
        return of_base, of_new, seconds
    means, by_means = closed_form.class_means(task.shots, task.shot_labels, len(base))
    plays_new = closed_form.drawn_halves(by_means, task.seed)
    # a map that has seen the images of pseudo-new classes would make their text look too good
    by_text = torch.stack(
        [
            _map(control, task, task.crafted[0], nouns, ~new_here)(task.shots) @ task.crafted[0].T
            for new_here in plays_new
        ]
    )
    a, b, offset = closed_form.fitted(by_means, by_text, task.shot_labels, plays_new, task.scale)
    seconds = time.perf_counter() - started
    of_base, of_new = (
        torch.cat([a * z @ means.T, b * move(z) @ new.T + offset], dim=1) for z in task.images
    )
    return of_base, of_new, seconds


def _map(
    control: Control, task: Task, base: Tensor, nouns: Tensor, seen: Tensor
) -> Callable[[Tensor], Tensor]:
    """What moves unit image features, fitted on the shots of the classes that are `seen` [C]."""
    if control.ridge is None:
        return lambda images: images
    rows = seen[task.shot_labels]
    numbers = seen.long().cumsum(0) - 1
    mean, weight = closed_form.solve(
        task.shots[rows], numbers[task.shot_labels[rows]], base[seen], control.ridge, control.hold,
        nouns,
    )  # fmt: skip
    return lambda images: F.normalize(images + (images - mean) @ weight, dim=-1)


def measures(control: Control, task: Task) -> dict[str, float]:
    """Base, New, their H and the area of the joint label space in percent, calibration errors, and
    seconds of fitting."""
    of_base, of_new, seconds = scores(control, task)
    n_base = len(task.crafted[0])
    halves = (of_base[:, :n_base], of_new[:, n_base:])
    base, new = (accuracy(s, labels) for s, labels in zip(halves, task.labels, strict=True))
    ece_base, ece_new = (
        calibration_error(s.softmax(-1), labels)
        for s, labels in zip(halves, task.labels, strict=True)
    )
    area = base_new_area(of_base, task.labels[0], of_new, task.labels[1] + n_base, n_base)
    return {
        "base": base, "new": new, "h": harmonic_mean(base, new), "area": area,
        "ece_base": ece_base, "ece_new": ece_new, "fit_seconds": seconds,
    }  # fmt: skip


def measured(
    plan: Plan,
    results: Mapping[str, RunResult],
    runs: str | Path,
    controls: Sequence[Control],
) -> list[dict[str, Any]]:
    """Every control on every trained prompt of its point: rows like run results, whose `method` is
    the control's label.

    Args:
        runs: the folder of the plan's runs, with their prompts.
    """
    jobs = [
        (point.label, config)
        for point, configs in plan.rows
        for config in configs
        if config.handle in results and any(c.source == point.label for c in controls)
    ]

    def prompt_of(config: RunConfig) -> Prompt:
        folder = Path(run_folder(runs, identify(config))) / "prompt"
        return load_prompt(folder, inputs.clip_of(config))

    averaged = {control.source for control in controls if control.over_seeds}
    means: dict[tuple[str, str], Tensor] = {}
    rows = []
    for number, (label, config) in enumerate(jobs):
        report_progress(f"controls of {config.dataset} {label}", number, len(jobs))
        mine = [control for control in controls if control.source == label]
        place = label, config.dataset
        if label in averaged and place not in means:
            of_seeds = [prompt_of(c) for at, c in jobs if (at, c.dataset) == place]
            contexts: list[Tensor] = [prompt.learner.get_parameter("ctx") for prompt in of_seeds]
            means[place] = torch.stack(contexts).detach().mean(0)
        task = task_of(
            prompt_of(config), config, [control.context for control in mine], means.get(place)
        )
        rows += [
            {
                "dataset": config.dataset, "method": control.label, "seed": config.seed,
                **measures(control, task),
            }
            for control in mine
        ]  # fmt: skip
    return rows


def own_points(plan: Plan) -> list[Control]:
    """Each point as it was trained, as a control that does nothing; points of one series are a
    family, of which base classes choose."""
    return [Control(p.label, p.label, p.series, x=p.x) for p, _ in plan.rows]
