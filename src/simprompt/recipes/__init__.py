"""Named settings with provenance, one YAML file each.

    source: where these numbers were published, or the command that chose them
    method: coop
    options: {n_ctx: 4}            # the method's own settings
    training: {lr: 0.002, ...}     # shots, epochs, batch size ...
    sar: {weight: 0.4, ...}        # optional
    template: "a photo of a {}."   # optional; the dataset's own if absent

A recipe is a base that `--set key=value` and other flags change further.
"""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path
from typing import Any

from simprompt.config import SAR, RunConfig, Settings, parse
from simprompt.errors import SimpromptError

KEYS = {"source", "note", "method", "options", "training", "sar", "template"}


def names() -> list[str]:
    """Every recipe that ships with the package."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name[: -len(".yaml")] for f in files if f.name.endswith(".yaml"))


def load(name: str) -> dict[str, Any]:
    """A recipe by name or by path to a YAML file.

    Raises:
        SimpromptError: no such recipe, or not a mapping with the keys above.
    """
    import yaml

    if name in names():
        text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise SimpromptError(
            f"There is no recipe called {name!r} and no file of that name. "
            f"Recipes: {', '.join(names())}."
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SimpromptError(f"The recipe {name} is not valid YAML: {error}.") from None
    if not isinstance(values, dict) or not set(values) <= KEYS:
        raise SimpromptError(
            f"The recipe {name} should be a mapping with the keys {', '.join(sorted(KEYS))}."
        )
    return values


def of_run(method: str, model: str, recipe: str | None = None) -> dict[str, Any]:
    """What a run's settings begin with: `recipe`, or else METHOD@MODEL; empty where there is
    neither.

    Raises:
        SimpromptError: as `load`.
    """
    fitting = f"{method}@{model}"
    chosen = recipe or (fitting if fitting in names() else None)
    return load(chosen) if chosen else {}


def assign(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`values` with "training.lr=0.01", "sar.weight=0.2", "options.n_ctx=16" put in.

    A key without a dot goes where a setting of that name is: training first, then sar, then the
    method's options.
    """
    import yaml

    result = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise SimpromptError(f"--set takes key=value, such as sar.weight=0.2; got {text!r}.")
        group, dot, field = key.strip().partition(".")
        if not dot:
            group, field = _group_of(group), group
        if group == "run":
            result[field] = yaml.safe_load(value)
        elif group in ("training", "sar", "options"):
            result[group] = {**(result.get(group) or {}), field: yaml.safe_load(value)}
        else:
            raise SimpromptError(
                f"--set {text}: there is no group {group!r}; use training., sar. or options."
            )
    return result


def _group_of(field: str) -> str:
    from simprompt.config import Training

    groups: list[tuple[str, type[Settings]]] = [
        ("training", Training),
        ("sar", SAR),
        ("run", RunConfig),
    ]
    return next((group for group, kind in groups if field in kind.model_fields), "options")


def build(values: dict[str, Any], sar: bool, **fixed: Any) -> RunConfig:
    """A run from a recipe's values: the method's published schedule, changed by the recipe.

    Args:
        sar: whether the recipe's (or the default) SAR settings are used.
        fixed: dataset, model, seed and the like.
    """
    method = fixed.pop("method", None) or values.get("method", "coop")
    methods = importlib.import_module("simprompt.methods")  # torch: only when a run is made
    learner = methods.find(method)
    where = f"Settings of {method}"
    options = parse(learner.Config, values.get("options") or {}, where)
    training = {**learner.schedule.model_dump(), **(values.get("training") or {})}
    regulariser = parse(SAR, values.get("sar") or {}, "Settings of SAR") if sar else None
    of_run = {k: v for k, v in values.items() if k in RunConfig.model_fields}  # from --set
    return parse(
        RunConfig,
        {
            **of_run,
            "method": method,
            "options": options.model_dump(),
            "training": training,
            "sar": regulariser,
            "template": values.get("template"),
            **{k: v for k, v in fixed.items() if v is not None},
        },
        "Settings of the run",
    )
