"""Options and recipes -> the runs they mean, for Python, the commands and the studies alike.

The settings of a run come from, each over the one before: the method's published schedule, the
recipe, single settings (`--set`, a dict in Python), and options of their own such as `--shots`.
What would be overruled or has no use is refused, with the option to use instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simprompt import methods as hosts
from simprompt import recipes
from simprompt.config import OWN_IMAGES, SAR, RunConfig, Training
from simprompt.data import catalogue, coop
from simprompt.errors import SimpromptError, check_argument
from simprompt.novel.sources import check_source
from simprompt.utils.options import ImageOptions, MethodOptions, ModelOptions

NO_USE = "`simprompt learn` has no use for it"

# settings that `--set` cannot say, by verb: the option that says them, or why nothing does
_RUNS = {
    "dataset": "--dataset",
    "model": "--model",
    "method": "--method",
    "seed": "--seeds",
    "tokenizer": "--tokenizer",
    "image_size": "--image-size",
    "device": "--device",
    "dtype": "--dtype",
}
_READING = {name: f"--{name.replace('_', '-')}" for name in OWN_IMAGES} | {"names": "--rename"}
OWNED: dict[str, dict[str, str]] = {
    "run": {**_RUNS, **_READING, "max_test_per_class": "--max-test-per-class"},
    "tune": _RUNS,
    "study": {
        **_RUNS,
        "method": "a study's points name their methods",
        "protocol": "a study has its protocol",
    },
    "learn": {
        **dict.fromkeys(RunConfig.model_fields, NO_USE),
        **_RUNS,
        **_READING,
        "dataset": "the images are the command's argument",
        "seed": "--seed",
        "template": "--template",
        "sar.keep_overlap": "the new classes are among SAR's names, as --new-classes says",
    },
}


AUTO = "auto"
"""As a method of `simprompt learn`: the best of several for somebody's images."""
ANSWER = "images+text"
"""The method that all candidates of `AUTO` are forms of."""


def is_auto(value: object) -> bool:
    """Whether an argument is the word `AUTO`."""
    return isinstance(value, str) and value == AUTO


OWN_SOURCE = "random-nouns"
"""Where SAR's novel names for somebody's own images come from, as no list of names ships for
them, where neither the recipe nor the settings name a source."""


SAR_WORDS: dict[str, tuple[bool, ...]] = {"off": (False,), "on": (True,), "both": (False, True)}


def sar_choices(
    text: str, words: Sequence[str] = tuple(SAR_WORDS), weight: bool = True
) -> tuple[bool | float, ...]:
    """Values of `--sar` for `plan`: "both" -> (False, True), "0.4" -> (0.4,).

    Args:
        words: those that the command takes.
        weight: whether it takes a weight, too.

    Raises:
        SimpromptError: another word, or a weight that is no number from 0.
    """
    if text in words:
        return SAR_WORDS[text]
    try:
        number = float(text)
        if weight and 0 <= number < math.inf:
            return (number,)
    except ValueError:
        pass
    takes = [*words, "a weight such as 0.4"] if weight else words
    raise SimpromptError(f"--sar takes {', '.join(takes[:-1])} or {takes[-1]}; got {text!r}.")


def sar_choice(given: str | bool | float | None, text_moves: bool) -> bool | float:
    """Whether one run has SAR, or its weight; None: on where the method learns text."""
    if given is None:
        return text_moves
    if isinstance(given, str):
        return sar_choices(given, ("off", "on"))[0]
    return given


def template_of(config: RunConfig) -> str | None:
    """The hand-crafted prompt that a run's settings ask for; None: the dataset's own.

    An explicit template comes first, then the set that the dataset's name brings
    ("dtd@kgcoop"), then `template_set`, which only the field's datasets know.
    """
    if config.template or not config.template_set or "@" in config.dataset:
        return config.template
    return coop.template_in(config.template_set, re.split("[:@]", config.dataset)[0])


def plan(
    datasets: Sequence[str],
    seeds: Sequence[int],
    model: ModelOptions,
    method: MethodOptions,
    *,
    images: ImageOptions | None = None,
    max_test_per_class: int | None = None,
) -> list[RunConfig]:
    """The runs of `simprompt run`: every method on every dataset with every seed.

    Args:
        model: "auto" devices are for `utils.devices.resolve_device`.
        method: its name may be several with commas, or "all"; `sar` None is "both". A method whose
            text cannot move is run without SAR.
        images: how somebody's own images are read.

    Raises:
        SimpromptError: a name or setting that is none, or one that would have no effect.
    """
    reading = images.reading if images else {}
    return _plan(
        "run",
        datasets,
        seeds,
        sar_choices(method.sar or "both"),
        model,
        method,
        max_test_per_class=max_test_per_class,
        **reading,
    )


def grid(
    points: Sequence[Sequence[str]],
    datasets: Sequence[str],
    seeds: Sequence[int],
    model: ModelOptions,
    method: MethodOptions,
) -> list[list[RunConfig]]:
    """The runs of each point of `simprompt tune`; a point is settings, over those of `method`.

    Raises:
        SimpromptError: as `plan`; or a setting stands in `method` and in the points.
    """
    sar = sar_choices(method.sar or "on", ("off", "on"), weight=False)
    settings = method.key_values
    origins = {key: flag for key, (flag, _) in method.option_values.items()}
    origins |= dict.fromkeys(check(settings, "tune"), "--set")
    for point in points:
        if both := [name for name in check(point, "tune", "--grid") if name in origins]:
            raise SimpromptError(
                f"{both[0]} stands in {origins[both[0]]} and in --grid, which would overrule it: "
                "leave one out."
            )
    return [
        _plan("tune", datasets, seeds, sar, model, replace(method, settings=[*settings, *point]))
        for point in points
    ]


def own(
    images: str, seed: int, model: ModelOptions, method: MethodOptions, template: str | None = None
) -> RunConfig:
    """The settings of `simprompt learn`; takes what `plan` takes.

    `method.sar`: also True, False or a number; None is on where the method learns text.
    """
    name = method.method or recipes.method_of(method.recipe)
    sar = sar_choice(method.sar, hosts.find(name).text_moves)
    (config,) = _plan(
        "learn", [images], [seed], [sar], model, method, source=OWN_SOURCE, template=template
    )
    return config


def automatic(method: MethodOptions) -> bool:
    """Whether `simprompt learn` chooses the predictor itself: asked to, or asked for nothing but
    `--shots`. Settings are those of a prompt.

    Raises:
        SimpromptError: `auto` with settings of a prompt.
    """
    settings = {
        "--sar": method.sar,
        "--recipe": method.recipe,
        "--regulariser": method.regulariser,
        "--set": method.settings,
    }
    given = [flag for flag, value in settings.items() if value not in (None, "", [])]
    if method.method == AUTO and given:
        raise SimpromptError(
            f"The method {AUTO} chooses its settings itself, and {given[0]} is one of a prompt: "
            "leave it out, or name the method, such as --method coop."
        )
    return method.method == AUTO or (method.method is None and not given)


@dataclass(frozen=True)
class LearnArguments:
    """Arguments of `simprompt.learn`, which says what they mean."""

    method: str | None = None
    sar: bool | float | Mapping[str, Any] | SAR | None = False
    recipe: str | None = None
    options: Mapping[str, Any] | None = None
    training: Training | Mapping[str, Any] | None = None
    template: str | None = None
    seed: int = 1


def for_learn(
    dataset: str, model: str, arguments: LearnArguments, source: str | None = None
) -> RunConfig:
    """The settings that `simprompt.learn` trains with.

    `source`: of SAR's novel names, where nothing else says one.
    """
    check_argument(arguments.method, str | None, "method", 'a name such as "coop"')
    method = arguments.method or recipes.method_of(arguments.recipe)
    sar, training = arguments.sar, arguments.training
    values = recipes.of_run(method, model, arguments.recipe)
    given = dict(arguments.options or {})
    values["options"] = recipes.of_host(values.get("options") or {}, given.get("host")) | given
    if isinstance(training, Mapping):
        if "shots" in training:
            raise SimpromptError("training={'shots': ...} has no effect: the split has its shots.")
        values["training"] = {
            **(values.get("training") or {}),
            **recipes.renamed("training", training),
        }
    elif training is not None:
        values["training"] = training.model_dump()
    if isinstance(sar, Mapping):
        values["sar"] = {**(values.get("sar") or {}), **recipes.renamed("sar", sar)}
        sar = True
    if source is not None:
        values["sar"] = {"novel": source, **(values.get("sar") or {})}
    choice = True if isinstance(sar, SAR) else False if sar is None else sar
    (config,) = spread(
        values,
        method,
        [dataset],
        [arguments.seed],
        [choice],
        model=model,
        template=arguments.template,
    )
    return config.model_copy(update={"sar": sar}) if isinstance(sar, SAR) else config


def check_given_names(sar: bool | float | Mapping[str, Any] | SAR | None) -> None:
    """Whether `learn(novel=[...], sar=sar)` uses the names.

    Raises:
        SimpromptError: it trains without SAR, or `sar` says another source.
    """
    if sar is None or sar is False:
        raise SimpromptError("novel=[...] has no effect without SAR; add sar=True.")
    if isinstance(sar, Mapping):
        for name in ("novel", "novel_count", "keep_overlap"):
            if name in sar:
                raise SimpromptError(f"novel=[...] overrules sar={{{name!r}: ...}}: leave one out.")


def spread(
    values: Mapping[str, Any],
    method: str,
    datasets: Sequence[str],
    seeds: Sequence[int],
    sar: Sequence[bool | float],
    **fixed: Any,
) -> list[RunConfig]:
    """A method's runs with settings that are complete: a recipe's `values` with all put in.

    Args:
        sar: as in `plan`.
        fixed: settings of the run itself, the same for all.
    """
    return [
        recipes.build(own_values, with_sar, method=method, dataset=dataset, seed=seed, **fixed)
        for dataset in dict.fromkeys(datasets)
        for seed in dict.fromkeys(seeds)
        for own_values, with_sar in (
            _with_sar(_with_source(values, dataset), choice) for choice in sar
        )
    ]


def _with_source(values: Mapping[str, Any], dataset: str) -> Mapping[str, Any]:
    """Settings whose novel names come from `OWN_SOURCE` if the images are somebody's own and
    nothing else names a source."""
    if not catalogue.is_own(catalogue.without_rehearsal(dataset)):
        return values
    return {**values, "sar": {"novel": OWN_SOURCE, **(values.get("sar") or {})}}


def check_sources(configs: Sequence[RunConfig]) -> None:
    """Whether all runs can have their novel names, before the first of them is made.

    Raises:
        SimpromptError: as `novel.sources.check_source`, with the setting to change.
    """
    sources = {
        (config.sar.novel, re.split("[:@]", name)[0])
        for config in configs
        if config.sar is not None and config.sar.novel_count
        for name in (catalogue.without_rehearsal(config.dataset),)
        if catalogue.is_known(name) or catalogue.is_own(name)  # else the run says there is none
    }
    for source, dataset in sorted(sources):
        try:
            check_source(source, dataset)
        except SimpromptError as error:
            raise SimpromptError(
                f"SAR has no novel names for {dataset} from {source!r}. {error} The setting is "
                "sar.novel, such as --set sar.novel=wordnet."
            ) from None


def check(settings: Sequence[str], verb: str, option: str = "--set") -> list[str]:
    """The settings' full names, "training.lr" for "lr", if each of them has an effect.

    Args:
        verb: a key of `OWNED`.
        option: what they were given by.

    Raises:
        SimpromptError: one belongs to another option or to none, or stands there twice.
    """
    names: list[str] = []
    for text in settings:
        key, value = recipes.split(text)
        group, field = recipes.place(key)
        name = field if group == "run" else f"{group}.{field}"
        owner = OWNED[verb].get(name)
        if owner and owner.startswith("--"):
            raise SimpromptError(f"{option} {text} has an option of its own: use {owner} {value}.")
        if owner:
            raise SimpromptError(f"{option} {text} would have no effect: {owner}.")
        if name in names:
            raise SimpromptError(f"{option} says {name} twice, at last {text}: leave one out.")
        names.append(name)
    return names


def _plan(
    verb: str,
    datasets: Sequence[str],
    seeds: Sequence[int],
    sar: Sequence[bool | float],
    model: ModelOptions,
    method: MethodOptions,
    source: str | None = None,
    **fixed: Any,
) -> list[RunConfig]:
    """The runs of a verb.

    Args:
        sar: with what each method is run: False without SAR, True with the recipe's, a number with
            the recipe's and this weight.
        source: of SAR's novel names, where nothing else says one.
        fixed: more of a run's settings, for all of them.
    """
    settings, recipe = method.key_values, method.recipe
    clip = model.model or RunConfig.model_fields["model"].default
    names = check(settings, verb)
    options = {name: f"{flag} {value}" for name, (flag, value) in method.option_values.items()}
    for choice in sar:
        if not isinstance(choice, bool):
            options["sar.weight"] = f"--sar {choice:g}"
    for name, option in options.items():
        if name in names:
            text = settings[names.index(name)]
            raise SimpromptError(f"{option} overrules --set {text}: leave one of them out.")
    choices: dict[str, list[bool | float]] = {}
    for host in _methods(method) if verb == "run" else [method.method or recipes.method_of(recipe)]:
        # where SAR is all that was asked for, the training says why it cannot be had
        moves = hosts.find(host).text_moves or False not in sar
        choices[host] = [choice for choice in sar if choice is False or moves]
    used = dict(zip(names, settings, strict=True)) | options
    idle = [text for name, text in used.items() if name.startswith("sar.")]
    if idle and not any(choice is not False for own in choices.values() for choice in own):
        raise SimpromptError(
            f"The setting {idle[0]} would have no effect: no run here is "
            "with SAR. Use --sar on, and a method that SAR can be added to."
        )
    configs = []
    for host, own_choices in choices.items():
        values = recipes.assign(recipes.of_run(host, clip, recipe), settings)
        for name, (_, value) in method.option_values.items():
            recipes.put(values, name, value)
        if source is not None:
            values["sar"] = {"novel": source, **(values.get("sar") or {})}
        configs += spread(
            values, host, datasets, seeds, own_choices, model=clip, **model.run_settings, **fixed
        )
    check_sources(configs)
    return configs


def _methods(method: MethodOptions) -> list[str]:
    """The methods that are named: several with commas, "all", or the recipe's."""
    if method.method == "all":
        return hosts.names()
    names = (method.method or "").split(",")
    return [name for name in names if name] or [recipes.method_of(method.recipe)]


def _with_sar(values: Mapping[str, Any], choice: bool | float) -> tuple[dict[str, Any], bool]:
    """`values` with SAR's weight, if the choice is one; and whether the run has SAR."""
    if isinstance(choice, bool):
        return dict(values), choice
    return {**values, "sar": {**(values.get("sar") or {}), "weight": choice}}, True
