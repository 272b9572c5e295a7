"""A setting that is added, and changes nothing where it is not asked for, makes no run again."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

import pytest
from pydantic import create_model

from simprompt import methods
from simprompt.config import SAR, Neutral, RunConfig, SARPlus, Settings, Training, counted
from simprompt.experiments.store import read_runs

SETTINGS = {
    "RunConfig": (RunConfig, {"dataset": "x"}), "Training": (Training, {}), "SAR": (SAR, {}),
    "SARPlus": (SARPlus, {"compare_with": "all"}),
    **{name: (methods.find(name).Config, {}) for name in methods.names()},
}  # fmt: skip

PINNED = {
    "RunConfig": "6a6a86f1", "Training": "5e65f530", "SAR": "c4df0c79", "SARPlus": "bad3bed8",
    "class-means": "44136fa3", "cocoop": "14d77b8b", "coop": "d74a331f", "dept": "36c1c991",
    "ivlp": "9b19ddaf", "kgcoop": "510426bf", "language": "165f3664", "linear-probe": "44136fa3",
    "maple": "b651a25b", "means+text": "8cac4400", "prograd": "b286e13e", "promptsrc": "35926067",
    "tcp": "7f9507db", "tip-adapter": "41489e92", "vpt": "05a1f1fc", "vpt+text": "6e3bca47",
    "zero-shot": "44136fa3", "image-map": "10bb7892",
    "images+text": "3398ef0f",
}  # fmt: skip


def digest(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(counted(settings), sort_keys=True).encode()).hexdigest()[:8]


def extended(kind: type[Settings], **fields: object) -> type[Settings]:
    return create_model("Extended", __base__=kind, **fields)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_counts_at_the_defaults_does_not_change_unnoticed(name):
    """If this fails because you added a setting: say with `config.Neutral` at which value a run is
    what it was before. If a default changed: that is what the key is for; pin the new digest."""
    kind, values = SETTINGS[name]
    now = digest(kind(**values))
    assert name in PINNED, f'a new method: add {{"{name}": "{now}"}} to PINNED in this file'
    assert now == PINNED[name]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_neutral_setting_moves_no_key_and_another_value_of_it_does(name):
    kind, values = SETTINGS[name]
    for annotation, default, other in (
        (Annotated[bool, Neutral(False)], False, True),
        (Annotated[float, Neutral(0.0)], 0.0, 0.1),
        (Annotated[str, Neutral("off")], "off", "on"),
        (Annotated[int | None, "no mark"], None, 0),
    ):
        larger = extended(kind, added=(annotation, default))
        assert digest(larger(**values)) == digest(kind(**values))
        assert digest(larger(**values, added=other)) != digest(kind(**values))


def test_a_default_that_changes_moves_the_key():
    """Also where the new default is what the setting's neutral value was not."""
    now = extended(Training, added=(Annotated[bool, Neutral(False)], True))
    assert digest(now()) != PINNED["Training"]
    assert digest(now(added=False)) == PINNED["Training"]
    faster = extended(Training, lr=(float, 0.1))
    assert digest(faster()) != PINNED["Training"]


def test_inner_settings_are_looked_into():
    larger = extended(Training, added=(Annotated[bool, Neutral(False)], False))
    run = RunConfig(dataset="x").model_copy(update={"training": larger()})
    assert digest(run) == PINNED["RunConfig"]
    assert digest(run.model_copy(update={"training": larger(added=True)})) != PINNED["RunConfig"]


def test_no_is_not_nought():
    kind = extended(Training, added=(Annotated[int | bool, Neutral(False)], False))
    assert digest(kind(added=0)) != digest(kind(added=False))


def result(seed: int, settings: str = "s", **more: object) -> dict:
    config = {"model": "m", "dataset": "d", "training": {"shots": 1, "epochs": 1, "max_steps": 1}}
    return {
        "protocol": "base-to-new", "dataset": "d", "method": "coop", "seed": seed, "base": 50.0,
        "new": 50.0, "h": 50.0, "parameters": 1, "steps": 1, "train_seconds": 1, "seconds": 1,
        "peak_mb": 1, "curves": {}, "classes": {}, "environment": {}, "when": f"2026-0{seed}",
        "config": {**config, **more}, "key": f"k{seed}", "format": 2,
        "identity": {"code": 3, "settings": f"{settings}{seed}"},
    }  # fmt: skip


def test_a_table_takes_a_seed_once_whichever_release_made_it(tmp_path):
    """A later release has a setting more, which is written into the result beside the others."""
    for folder, values in {
        "a": result(1), "b": {**result(1, added=False), "key": "other content", "when": "2027"},
        "c": result(2), "d": result(2), "e": result(3), "f": result(3, model="another"),
    }.items():  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "result.json").write_text(json.dumps(values), encoding="utf-8")
    with (
        pytest.warns(UserWarning, match="1 results were made later again"),
        pytest.warns(UserWarning, match="1 results are there more than once"),
    ):
        found = read_runs([tmp_path])
    assert [r["seed"] for r in found] == [1, 2, 3, 3]
    assert found[0]["when"] == "2027"
