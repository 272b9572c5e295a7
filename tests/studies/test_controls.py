"""What is done to a trained prompt afterwards is what a run with these settings measures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from simprompt.data.catalogue import REHEARSAL_RANDOM, load
from simprompt.experiments.protocols.common import limit
from simprompt.experiments.runner import identify
from simprompt.experiments.store import run_folder
from simprompt.experiments.sweep.make import sweep
from simprompt.features.cache import images_of
from simprompt.prompt.loading import load_prompt
from simprompt.studies import Control, Point, Study, control_table, controls, find, grid
from simprompt.utils.options import RecipeOptions

TASK = "icons/places"
QUICK = ("training.max_steps=6", "training.lr=0.05", "training.shots=4")
CONTROLS = {
    "tcp, options.blend=0.5": Control("text", "tcp", blend=0.5),
    "coop, options.blend=0.4": Control("context", "coop", context=0.4),
    "image-map, options.host=coop": Control("map", "coop", ridge=0.1),
    "image-map, options.host=tcp": Control("half-way map", "tcp", blend=0.5, ridge=0.3, hold=50.0),
    "image-map, options.host=zero-shot": Control("zero-shot map", "zero-shot", ridge=0.1),
    "means+text": Control("means", "coop", means=True),
}
POINTS = (
    Point("zero-shot", ("training.shots=4",), "zero-shot", sar=False),
    Point("coop", QUICK, sar=False),
    Point("tcp", QUICK, "tcp", sar=False),
    Point("tcp, options.blend=0.5", (*QUICK, "options.blend=0.5"), "tcp", sar=False),
    Point("coop, options.blend=0.4", (*QUICK, "options.blend=0.4"), sar=False),
    Point(
        "image-map, options.host=coop",
        (*QUICK, "options.host=coop", "options.ridge=0.1", "options.host_options={}"),
        "image-map",
        sar=False,
    ),
    Point(
        "image-map, options.host=tcp",
        (*QUICK, "options.host=tcp", "options.ridge=0.3", "options.hold=50",
         'options.host_options={"blend": 0.5}'),
        "image-map",
        sar=False,
    ),
    Point(
        "image-map, options.host=zero-shot",
        ("training.shots=4", "training.epochs=1", "options.host=zero-shot", "options.ridge=0.1"),
        "image-map",
        sar=False,
    ),
    Point("means+text", QUICK, "means+text", sar=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """(base, new) of each point as its run measures them, and of each control."""
    study = Study("try", "Is it the same?", POINTS, "coop", controls=(*CONTROLS.values(),))
    plan = grid.plan(
        study, datasets=[TASK], seeds=[1],
        recipe=RecipeOptions(settings=["max_test_per_class=6"]),
    )  # fmt: skip
    place = tmp_path_factory.mktemp("runs")
    swept = sweep(plan.configs, str(place), quiet=True)
    assert not swept.failed
    runs = {
        point.label: (result["base"], result["new"])
        for point, configs in plan.rows
        for result in [swept.results[configs[0].handle]]
    }
    rows = controls.measured(plan, swept.results, place, study.controls)
    return runs, {row["method"]: (row["base"], row["new"]) for row in rows}


@pytest.mark.parametrize("point", CONTROLS)
def test_a_control_measures_what_a_run_with_its_settings_does(point, measured):
    runs, found = measured
    assert found[CONTROLS[point].label] == pytest.approx(runs[point])


def test_controls_differ(measured):
    _, found = measured
    assert len({*found.values()}) > 3


def test_the_mean_context_of_all_seeds_is_one_prompt_for_all_of_them(tmp_path):
    """Its answers do not depend on the seed any more, and they are those of the mean by hand."""
    point = Point("CoOp", (*QUICK, "training.max_steps=30"), sar=False)
    averaged = Control("mean", "CoOp", over_seeds=True)
    plain = Control("CoOp", "CoOp")
    study = Study("try", "Is it the mean?", (point,), "CoOp", controls=(averaged, plain))
    plan = grid.plan(
        study, datasets=[TASK], seeds=[1, 2],
        recipe=RecipeOptions(settings=["max_test_per_class=6"]),
    )  # fmt: skip
    swept = sweep(plan.configs, str(tmp_path), quiet=True)
    rows = controls.measured(plan, swept.results, tmp_path, study.controls)
    areas = {label: [r["area"] for r in rows if r["method"] == label] for label in ("mean", "CoOp")}
    assert areas["mean"][0] == areas["mean"][1]
    assert areas["CoOp"][0] != areas["CoOp"][1]
    first, second = (
        load_prompt(Path(run_folder(tmp_path, identify(c))) / "prompt") for c in plan.configs
    )
    with torch.no_grad():
        first.learner.ctx.add_(second.learner.ctx).div_(2)
    view = load(TASK).base
    images = limit(view.test, 6)
    text = first.text_features(view.classnames).cpu()
    features = torch.cat([F.normalize(x, dim=-1) for x in images_of(first.learner, images)])
    right = ((features @ text.T).argmax(1) == torch.tensor(images.labels)).float().mean().item()
    (base,) = {r["base"] for r in rows if r["method"] == "mean"}
    assert base == pytest.approx(100 * right)


def rows_of(values: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Rows of controls by label: (base, new) on tasks a, b, c ..., rehearsed."""
    return [
        {"dataset": f"icons/{task}{REHEARSAL_RANDOM}", "method": label, "seed": 1,
         "base": base, "new": new, "area": base * new / 100, "ece_base": 1.0, "ece_new": 2.0,
         "fit_seconds": 0.1}
        for label, pairs in values.items()
        for task, (base, new) in zip("abcdefgh", pairs, strict=False)
    ]  # fmt: skip


def test_base_classes_choose_the_bravest_of_those_that_are_level():
    """0.2 is as good as 0.1 but for noise, and better on pseudo-new classes; 0.4 is worse."""
    several = tuple(Control(f"map {r}", "CoOp", "map", ridge=r) for r in (0.1, 0.2, 0.4))
    rows = rows_of(
        {
            "map 0.1": [(70, 50), (60, 52), (65, 48), (66, 50)],
            "map 0.2": [(67, 52), (60, 51.5), (60, 51), (66, 49.5)],
            "map 0.4": [(55, 53), (50, 53), (52, 52), (51, 53)],
        }
    )
    assert control_table.chosen(several, rows)["map"].ridge == 0.2


def test_records_hold_differences_and_tests_of_what_was_chosen():
    generator = random.Random(0)
    tasks = [(generator.uniform(50, 70), generator.uniform(45, 60)) for _ in range(6)]
    several = (
        Control("zero-shot", "zero-shot"), Control("SAR", "SAR"), Control("switch", "CoOp"),
        Control("map 0.1", "CoOp", "map"), Control("map 0.2", "CoOp", "map"),
    )  # fmt: skip
    rows = rows_of(
        {
            "zero-shot": [(b - 8, n + 0.1) for b, n in tasks],
            "SAR": tasks,
            "switch": [(b + 2 + i / 10, n) for i, (b, n) in enumerate(tasks)],
            "map 0.1": [(b + 5, n + 2 - i / 10) for i, (b, n) in enumerate(tasks)],
            "map 0.2": [(b + 1, n) for b, n in tasks],
        }
    )
    found = control_table.records(several, rows, {"map": several[3]}, "SAR")
    by_label = {record["control"]: record for record in found}
    chosen = by_label["map 0.1"]
    assert chosen["chosen"]
    assert 3 < chosen["d_h"] < 5
    assert chosen["d_h_low"] < chosen["d_h"] < chosen["d_h_high"]
    assert chosen["p_holm"] >= chosen["p"]
    assert by_label["map 0.2"]["p_holm"] is None  # a point of a path makes no claim
    assert by_label["switch"]["p_holm"] is not None
    assert by_label["SAR"]["p_new_within_1"] < 0.05
    assert chosen["p_new_within_1"] > 0.5
    study = Study("try", "about", (), "SAR")
    shown = control_table.table(study, found, "SAR", "zero-shot")
    assert [row[0] for row in shown.rows] == ["zero-shot", "SAR", "switch", "map 0.1"]


def test_every_control_of_the_studies_has_its_prompt():
    for name in ("blend", "frontier"):
        study = find(name)
        labels = {point.label for point in study.points}
        assert study.controls
        assert {control.source for control in study.controls} <= labels
        assert study.compared_with in labels
        assert len({control.label for control in study.controls}) == len(study.controls)
