"""Named settings with provenance, one YAML file each.

    source: where these numbers were published, or the command that chose them
    method: coop
    options: {n_ctx: 4}            # the method's own settings
    training: {lr: 0.002, ...}     # shots, epochs, batch size ...
    sar: {weight: 0.4, ...}        # optional
    template: "a photo of a {}."   # optional; the dataset's own if absent
    template_set: kgcoop           # optional; whose templates the field's datasets take

A recipe is a base that `--set key=value` and other flags change further. `METHOD@MODEL` is the
recipe of a method on an embedded model and is taken where none is named; `published` is no recipe
at all: the schedule and the defaults that the method's authors published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from simprompt.clip.catalogue import EMBEDDED
from simprompt.config import RunConfig, SARPlus, Settings, Training, parse
from simprompt.errors import SimpromptError, did_you_mean
from simprompt.utils.files.parsing import yaml_value
from simprompt.utils.files.regular import is_file, read_text

# what settings are in a group; those of "options" are the method's
KINDS: dict[str, type[Settings]] = {"training": Training, "sar": SARPlus, "run": RunConfig}
GROUPS = ("training", "sar", "options")
KEYS = {"source", "note", "method", *GROUPS, "template", "template_set"}
PUBLISHED = "published"
DEFAULT_METHOD = "coop"


def names() -> list[str]:
    """Every recipe that ships with the package."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name[: -len(".yaml")] for f in files if f.name.endswith(".yaml"))


def load(name: str) -> dict[str, Any]:
    """A recipe by name or by path to a YAML file; `published` is an empty one.

    Raises:
        SimpromptError: no such recipe, or not a mapping with the keys above.
    """
    if name == PUBLISHED:
        return {}
    try:
        if name in names():
            text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
        elif is_file(name):
            text = read_text(name)
        else:
            raise SimpromptError(
                f"There is no recipe called {name!r} and no file of that name. "
                f"{did_you_mean(name, [*names(), PUBLISHED])}"
                f"Recipes: {', '.join([*names(), PUBLISHED])}."
            )
        values = yaml_value(text)
    except (OSError, ValueError) as error:  # UnicodeDecodeError is one
        reason = " ".join(str(error).split())
        raise SimpromptError(f"The recipe {name} is not valid YAML in UTF-8: {reason}.") from None
    if not isinstance(values, dict) or not set(values) <= KEYS:
        raise SimpromptError(
            f"The recipe {name} should be a mapping with the keys {', '.join(sorted(KEYS))}."
        )
    values = {key: value for key, value in values.items() if value is not None}
    for key in KEYS - set(GROUPS):
        if not isinstance(values.get(key, ""), str):
            raise SimpromptError(
                f"The recipe {name} has {key}: {values[key]!r:.200}, where words should stand."
            )
    for group in GROUPS:
        if not isinstance(values.get(group) or {}, dict):
            raise SimpromptError(
                f"The recipe {name} has {group}: {values[group]!r}, where settings should stand, "
                f"such as {group}: {{{EXAMPLE[group]}}}."
            )
    for group in ("training", "sar"):
        if values.get(group):
            values[group] = renamed(group, values[group])
    return values


EXAMPLE = {"training": "epochs: 50", "sar": "weight: 0.4", "options": "n_ctx: 4"}


def method_of(recipe: str | None) -> str:
    """What is trained where no method is named: the recipe's method, or CoOp."""
    method: str = (load(recipe) if recipe else {}).get("method", DEFAULT_METHOD)
    return method


def fits(recipe: str, method: str) -> bool:
    """Whether a recipe is of this method, or of none; zero-shot goes with any, as its baseline."""
    return method in ("zero-shot", load(recipe).get("method", method))


def of_run(method: str, model: str, recipe: str | None = None) -> dict[str, Any]:
    """What a run's settings begin with: `recipe`, or else METHOD@MODEL; empty where there is
    neither.

    Zero-shot takes the training set and the template of another method's recipe, not its options.

    Raises:
        SimpromptError: as `load`; or the recipe is another method's.
    """
    if recipe is None:
        fitting = f"{method}@{model}"
        return load(fitting) if model in EMBEDDED and fitting in names() else {}
    values = load(recipe)
    if not fits(recipe, method):
        raise SimpromptError(
            f"The recipe {recipe} is one of {values['method']}, not of {method}: use "
            f"--method {values['method']}, or leave --recipe out."
        )
    if values.get("method", method) != method:
        values.pop("options", None)
    return values


def place(key: str) -> tuple[str, str]:
    """Where a setting belongs: ("training", "lr") for "training.lr" and for "lr".

    A key without a dot goes where a setting of that name is: training first, then sar, then the
    run itself ("run"), then the method's options.

    Raises:
        SimpromptError: no such group, or a group without a setting.
    """
    group, dot, field = key.strip().partition(".")
    if not dot:
        group, field = _group_of(group), group
    if group in KINDS:
        field = KINDS[group].former.get(field, field)
    if not dot and field in GROUPS:
        raise SimpromptError(
            f"{key} is a group of settings; set one of them, such as {field}."
            f"{EXAMPLE[field].replace(': ', '=')}."
        )
    of_the_run = set(RunConfig.model_fields) - set(GROUPS)
    if group not in ("run", *GROUPS) or (group == "run" and field not in of_the_run):
        inside = {f"{of}.{setting}" for of, kind in KINDS.items() for setting in kind.model_fields}
        raise SimpromptError(
            f"There is no setting {key!r}. {did_you_mean(key, inside | of_the_run)}Settings are in "
            f"the groups training., sar. and options.; those of the run itself are "
            f"{', '.join(sorted(of_the_run))}."
        )
    return group, field


def split(text: str) -> tuple[str, str]:
    """ "training.lr=0.01" -> ("training.lr", "0.01").

    Raises:
        SimpromptError: there is no key or no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SimpromptError(f"A setting is key=value, such as sar.weight=0.2; got {text!r}.")
    return key.strip(), value


def assign(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`values` with "training.lr=0.01", "sar.weight=0.2", "options.n_ctx=16" put in; see `place`
    and, for a host, `of_host`.

    Raises:
        SimpromptError: an assignment without a key or a value, or a key that is none.
    """
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    pairs = [split(text) for text in assignments]
    host = dict(pairs).get("options.host")
    if host is not None:
        result["options"] = of_host(result.get("options") or {}, _value(host))
    for key, value in pairs:
        put(result, key, _value(value))
    return result


def of_host(options: Mapping[str, Any], host: str | None) -> dict[str, Any]:
    """A method's `options` where its host is to be `host` (None: as it is): another host than
    theirs does not take the settings that they have for their own."""
    other = host is not None and host != options.get("host")
    return {k: v for k, v in options.items() if not (other and k == "host_options")}


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a key such as "training.lr" in `values`; see `place`.

    Raises:
        SimpromptError: a key that is none.
    """
    group, field = place(key)
    if group == "run":
        values[field] = value
    else:
        values[group] = {**(values.get(group) or {}), field: value}


def _value(text: str) -> Any:
    """A number, a word, null ...: as YAML reads it; text that is no YAML is itself."""
    try:
        return yaml_value(text)
    except ValueError:
        return text


def _group_of(field: str) -> str:
    kinds = KINDS.items()
    return next((g for g, k in kinds if field in {*k.model_fields, *k.former}), "options")


def renamed(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a group by their present names; see `config.Settings`.

    Raises:
        SimpromptError: one under both its names.
    """
    try:
        return KINDS[group].renamed(values)
    except ValueError as error:
        raise SimpromptError(f"Settings of {group}: {error}.") from None


def build(values: dict[str, Any], sar: bool, **fixed: Any) -> RunConfig:
    """A run from a recipe's values: the method's published schedule, changed by the recipe.

    Args:
        sar: whether the recipe's (or the default) SAR settings are used.
        fixed: dataset, model, seed and the like.
    """
    from simprompt import methods, regularisers  # torch: only when a run is made

    method = fixed.pop("method", None) or values.get("method", DEFAULT_METHOD)
    learner = methods.find(method)
    context = f"Settings of {method}"
    options = parse(learner.Config, values.get("options") or {}, context)
    training = {**learner.schedule.model_dump(), **(values.get("training") or {})}
    regulariser = None
    if sar:
        about = values.get("sar") or {}
        name = about.get("regulariser") or "SAR"
        regulariser = parse(regularisers.settings_of(about), about, f"Settings of {name}")
    of_the_run = {k: v for k, v in values.items() if k in RunConfig.model_fields}  # from --set
    return parse(
        RunConfig,
        {
            **of_the_run,
            "method": method,
            "options": options.model_dump(),
            "training": training,
            "sar": regulariser,
            "template": values.get("template"),
            "template_set": values.get("template_set"),
            **{k: v for k, v in fixed.items() if v is not None},
        },
        "Settings of the run",
    )
