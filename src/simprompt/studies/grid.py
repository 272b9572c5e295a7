"""A study -> its runs, and how long they should take."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise

from simprompt import recipes
from simprompt.config import RunConfig
from simprompt.data import icons
from simprompt.data.catalogue import REHEARSAL_RANDOM
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs
from simprompt.prompt.learn import prepare, train_alone
from simprompt.recipes import plan as plans
from simprompt.studies import Point, Study
from simprompt.training.schedule import epochs_and_steps
from simprompt.utils.options import ModelOptions, RecipeOptions


@dataclass(frozen=True)
class Preset:
    """How large a study is run.

    Attributes:
        datasets: how many of the study's datasets; None: all.
        seeds: which.
        settings: put before the point's own, so that a point may overrule them.
        max_test_per_class: see `RunConfig`.
    """

    datasets: int | None
    seeds: tuple[int, ...]
    settings: tuple[str, ...] = ()
    max_test_per_class: int | None = None


PRESETS = {
    # shows that a study works, and nothing else: its numbers mean nothing
    "smoke": Preset(1, (1,), ("training.max_steps=5", "training.shots=4", "training.lr=0.05"), 2),
    "full": Preset(None, (1, 2, 3)),
}
REHEARSAL_SEEDS = (1, 2, 3, 4, 5, 6)
SMOKE_TASK = "icons/places"  # few classes


@dataclass(frozen=True)
class Plan:
    """A study's runs: `rows` has the runs of each point, `left_out` the points whose packages
    are not installed."""

    study: Study
    preset: str
    rows: tuple[tuple[Point, tuple[RunConfig, ...]], ...]
    left_out: tuple[Point, ...] = ()

    @property
    def configs(self) -> list[RunConfig]:
        """Each run once; points of a study may share some."""
        return list({c.handle: c for _, configs in self.rows for c in configs}.values())


def plan(
    study: Study,
    preset: str = "full",
    *,
    datasets: Sequence[str] = (),
    seeds: Sequence[int] = (),
    model: ModelOptions | None = None,
    recipe: RecipeOptions | None = None,
) -> Plan:
    """The runs of a study.

    Args:
        datasets, seeds, model: instead of the study's and the preset's.
        recipe: its settings go over those of all points; the recipe itself is taken instead of
            `METHOD@MODEL`, for the points of its method (and zero-shot) that name none themselves.

    Raises:
        SimpromptError: no such preset, settings that are none or have no effect, or a recipe of a
            method that the study does not have.
    """
    model, recipe = model or ModelOptions(), recipe or RecipeOptions()
    settings = recipe.settings or []
    plans.check(settings, "study")
    if preset not in PRESETS:
        raise SimpromptError(f"--preset takes {' or '.join(PRESETS)}; got {preset!r}.")
    size = PRESETS[preset]
    points = study.points
    if preset == "smoke":
        points = points[: study.smoke]
        # a study of a real dataset shows on icons that it works
        names = tuple(datasets) or (SMOKE_TASK,)
        clip = model.model or "icons"
    else:
        names = tuple(datasets) or study.datasets or icons.tasks()
        clip = model.model or study.model
    recipe_values = _recipes(recipe.recipe, points)
    rows, left_out = [], []
    for point in points:
        if any(find_spec(package) is None for package in point.needs):
            left_out.append(point)
            continue
        values = recipes.assign(
            recipes.of_run(point.method, clip, point.recipe or recipe_values.get(point.method)),
            [*size.settings, *point.settings, *settings],
        )
        values.setdefault("max_test_per_class", size.max_test_per_class)
        configs = plans.spread(
            values,
            point.method,
            [_of_domain(name, point) for name in names],
            seeds or size.seeds,
            [point.sar],
            model=clip,
            protocol=study.protocol,
            **model.run_settings,
        )
        rows.append((point, tuple(configs)))
    return Plan(study, preset, tuple(rows), tuple(left_out))


def rehearsal(
    plan_of_study: Plan,
    *,
    seeds: Sequence[int] = (),
    model: ModelOptions | None = None,
    recipe: RecipeOptions | None = None,
) -> Plan:
    """The same runs inside the base classes of the same datasets, each seed (by default those of
    `REHEARSAL_SEEDS`) with other pseudo-new classes: to choose on."""
    study, preset = plan_of_study.study, plan_of_study.preset
    names = dict.fromkeys(config.dataset for config in plan_of_study.configs)
    return plan(
        study,
        preset,
        datasets=[name + REHEARSAL_RANDOM for name in names],
        seeds=seeds or (PRESETS[preset].seeds if preset == "smoke" else REHEARSAL_SEEDS),
        model=model,
        recipe=recipe,
    )


def _recipes(recipe: str | None, points: Sequence[Point]) -> dict[str, str]:
    """By method, the recipe that was asked for."""
    if recipe is None:
        return {}
    waiting = [point.method for point in points if point.recipe is None]
    fitting = {method: recipe for method in waiting if recipes.fits(recipe, method)}
    if not set(fitting) - {"zero-shot"}:
        raise SimpromptError(
            f"The recipe {recipe} is one of {recipes.method_of(recipe)}, and no point of the study "
            f"is: they are {', '.join(dict.fromkeys(waiting))}."
        )
    return fitting


def _of_domain(dataset: str, point: Point) -> str:
    plain = dataset.startswith("icons/") and "@" not in dataset
    return dataset + point.suffix if plain else dataset


def training_seconds(configs: Sequence[RunConfig]) -> tuple[float, dict[str, float]]:
    """How long these runs should train one after the other, from steps measured here and now.

    A few steps of each method, with and without SAR and for each size of SAR's work, are taken on
    the first of its datasets.

    Returns:
        Seconds in all, and milliseconds of a mean step by method.
    """
    measured: dict[tuple[object, ...], float] = {}
    seconds: dict[str, float] = {}
    steps = Counter[str]()
    for config in configs:
        if config.method == "zero-shot":
            continue
        sar = config.sar
        compare_with = getattr(sar, "compare_with", "sample")
        work = (
            config.label,
            sar and (sar.classes_per_step, compare_with, sar.novel_count, sar.novel),
        )
        if work not in measured:
            measured[work] = step_seconds(config)
        steps[config.label] += _steps(config)
        took = measured[work] * _steps(config)
        seconds[config.label] = seconds.get(config.label, 0.0) + took
    return sum(seconds.values()), {label: 1000 * seconds[label] / steps[label] for label in steps}


def _shots(config: RunConfig) -> Split:
    data = inputs.dataset_of(config)
    view = data.base if config.protocol in ("base-to-new", "generalised") else data.all
    return view.few_shot(config.training.shots, config.seed)


def _steps(config: RunConfig) -> int:
    epochs, steps = epochs_and_steps(len(_shots(config)), config.training)
    return epochs * steps


def step_seconds(config: RunConfig, batches: int = 3) -> float:
    """Median seconds of a training step of this run, from as many epochs of a single batch."""
    shots = _shots(config)
    times: list[float] = []

    def mark(done: int, epochs: int) -> None:
        times.append(time.perf_counter())

    untrained = prepare(
        inputs.clip_of(config),
        shots.take(range(min(len(shots), config.training.batch_size))),
        config.method,
        config.sar,
        options=config.options,
        training=config.training.model_copy(update={"epochs": batches + 1, "max_steps": None}),
        template=plans.template_of(config),
        seed=config.seed,
    )
    train_alone(untrained, on_epoch=mark)
    gaps = [b - a for a, b in pairwise(times)]
    return statistics.median(gaps) if gaps else 0.0
